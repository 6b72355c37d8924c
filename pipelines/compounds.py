"""What a text of one thing names: its noun. "A car key" is a key, where its embedding may lie nearest to cars."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor

from unialign_gen.concepts.understanding import Understanding, is_called, without_articles

from .colours import COLOURS
from .phrases import bare, singular
from .words import AROUND, DETERMINERS, FUNCTION_WORDS, is_doing

PICTURE = r"(?:an? )?(?:picture|photo|drawing|painting|sketch|icon|illustration|cartoon) of "
# how near a text must lie to what has its name, and how many known things may be nearer; others mean another thing by it
NEAR, NEARER = 0.35, 30
AHEAD = 0.35  # by how much what is drawn may lie nearer than what is called as the noun alone
FORMS = {  # last words that say how a thing is shown, or which part
    *("emoji", "icon", "symbol", "sign", "logo", "sticker", "clipart", "drawing", "sketch", "picture", "photo", "painting"),
    *("illustration", "cartoon", "silhouette", "outline", "contour", "profile", "face", "head"),
}


class Compound(NamedTuple):
    """A text of one thing: what stands before its words, the words before its noun, the noun, and what follows."""

    start: str
    before: list[str]
    noun: str
    rest: str


def compound(text: str, nouns: Collection[str]) -> Compound | None:
    """A text's parts if it names one thing in a word or a few, perhaps with a place or the like after it.

    >>> compound("a red car key on a big table", {"key", "car"})
    Compound(start='a ', before=['red', 'car'], noun='key', rest=' on a big table')
    """
    start = rf"(?:{PICTURE})?(?:(?:{'|'.join(DETERMINERS)}) )?"
    place = rf"(?: (?:{'|'.join(AROUND)}) .*)?"
    found = re.fullmatch(rf"({start})((?:[^\W\d_]+ ){{0,3}}?)([^\W\d_]{{3,}})({place})", bare(text), re.I)
    if found is None:
        return None
    before, noun = found[2].lower().split(), found[3].lower()
    if any(map(is_doing, (*before, noun))) or noun in FORMS or (before and noun in COLOURS) or FUNCTION_WORDS & {*before}:
        return None
    return Compound(found[1], before, noun, found[4])


def meant(text: str, known: Understanding, near: Tensor, drawn: int) -> int | None:
    """The place of the known thing that a text names, where it is drawn as another; None where nothing known is called so, or
    all that is lies far from the text.

    What is called as the whole text goes before what is called as its noun, of several the nearest.

    Args:
        near: how near the text lies to everything known (things,).
        drawn: the place of what it is drawn as.

    >>> import torch
    >>> from unialign_gen.concepts import Understanding
    >>> known = Understanding(["car", "old key", "car park"], torch.eye(3), torch.eye(3), {})
    >>> meant("a red car key", known, torch.tensor([0.7, 0.5, 0.2]), drawn=0)
    1
    """
    whole = without_articles(bare(text))
    if exactly := known.called.get(whole, []) if " " in whole else []:
        return None if drawn in exactly else max(exactly, key=lambda place: float(near[place]))
    found = compound(text, known.nouns)
    if found is None:
        return None
    one = singular(found.noun, known.nouns) or found.noun
    if found.rest.startswith(" with ") and any(is_called(known.names[drawn], word) for word in found.rest.split()):
        return None  # "cloud with rain" is one thing
    before = [word for word in found.before if word not in COLOURS]
    names = (" ".join([*before, one]), before[-1] + one) if before else ()
    places, least = next(filter(None, (known.called.get(name, []) for name in names)), None), NEAR
    if places is None and not is_called(known.names[drawn], one):
        least = max(NEAR, float(near[drawn]) - AHEAD)
        places = [place for name in (one, f"{one}s") for place in known.called.get(name, [])]
    if not places or drawn in places:
        return None
    itself = [place for place in places if known.names[place].lower().endswith((one, f"{one}s")) and near[place] >= least]
    best = max(itself or places, key=lambda place: float(near[place]))  # rather a cup than a cup with straw
    return best if near[best] >= least and int((near > near[best]).sum()) < NEARER else None
