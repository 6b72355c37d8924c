"""What a compound noun names: its last word. "A car key" is a key, where its embedding may lie nearest to cars."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from unialign_gen.concepts.understanding import Understood
from unialign_gen.media.text import with_article

from .phrases import ABOVE, AROUND, BELOW, BESIDE, COLOURS, DETERMINERS, OF, bare, singular

PICTURE = r"(?:an? )?(?:picture|photo|drawing|painting|sketch|icon|illustration|cartoon) of "
SURE = 0.55  # nearness of a noun to what has its name: less of it is drawn as anything
FUNCTION_WORDS = DETERMINERS | set(" ".join((*AROUND, *BESIDE, *ABOVE, *BELOW, *OF)).split())
FUNCTION_WORDS |= {"or", "to", "for", "from", "by", "is", "are", "was", "were", "has", "have"}
THINGS = {"building", "ceiling", "clothing", "earring", "painting", "pudding", "spring", "string", "wedding"}  # and no verbs
FORMS = {  # last words that say how a thing is shown, or what of it
    *("emoji", "icon", "symbol", "sign", "logo", "sticker", "clipart", "drawing", "sketch", "picture", "photo", "painting"),
    *("illustration", "cartoon", "silhouette", "outline", "contour", "profile", "face", "head"),
}


class Compound(NamedTuple):
    """A text of one thing in several words: what stands before them, the words before its noun, the noun, and what follows."""

    start: str
    before: list[str]
    noun: str
    rest: str


def compound(text: str, nouns: Collection[str]) -> Compound | None:
    """A text's parts if it is a compound noun, perhaps with a place or the like after it.

    >>> compound("a red car key on a table", {"key", "car"})
    Compound(start='a ', before=['red', 'car'], noun='key', rest=' on a table')
    """
    start = rf"(?:{PICTURE})?(?:(?:{'|'.join(DETERMINERS)}) )?"
    place = rf"(?: (?:{'|'.join(AROUND)}) .*)?"
    found = re.fullmatch(rf"({start})((?:[^\W\d_]+ ){{1,3}})([^\W\d_]{{3,}})({place})", bare(text), re.I)
    if found is None:
        return None
    before, noun = found[2].lower().split(), found[3].lower()
    doing = [word for word in (*before, noun) if re.fullmatch(r"\w{3,}ing", word) and word not in THINGS]
    if doing or noun in FORMS or noun in COLOURS or FUNCTION_WORDS & {*before}:
        return None
    return Compound(found[1], before, noun, found[4])


def shortened(text: str, understood: Understood, nouns: Collection[str]) -> tuple[str, str] | None:
    """A compound that is understood as something else than its noun, without the known things before that, or in
    one word where that is known, and its noun; None where nothing known has such a name.

    >>> shortened("a red car key", Understood(True, 0.8, ("police car", "bus")), {"car", "key"})
    ('a red key', 'key')
    >>> shortened("a snow man", Understood(True, 0.8, ("snow", "cloud")), {"snow", "snowman"})
    ('a snowman', 'snowman')
    >>> shortened("a police car", Understood(True, 0.8, ("police car", "bus")), {"car", "key"})
    """
    found = compound(text, nouns)
    if found is None:
        return None
    joined, kept = found.before[-1] + found.noun, found.before[:-1]
    if joined not in nouns:
        joined = found.noun
        kept = [word for word in found.before if word in COLOURS or not (word in nouns or names(understood, word, nouns))]
    called = (singular(joined, nouns) or joined) in nouns
    if names(understood, joined, nouns) or not called or len(kept) == len(found.before):
        return None
    short, article = " ".join([*kept, joined]), re.fullmatch(r"(.*)\ban? ", found.start, re.I)
    return (article[1] + with_article(short) if article else found.start + short) + found.rest, joined


def unsaid(text: str, understood: Understood, nouns: Collection[str]) -> list[str]:
    """The words of a compound that it is not drawn as: its noun, or known things before that.

    >>> unsaid("a bird cage", Understood(True, 0.8, ("bird", "chicken")), {"bird", "cage"})
    ['cage']
    >>> unsaid("a strawberry cake", Understood(True, 0.8, ("birthday cake", "pancakes")), {"strawberry", "cake"})
    ['strawberry']
    """
    found = compound(text, nouns)
    if found is None:
        return []
    if names(understood, found.noun, nouns):
        return [word for word in found.before if word in nouns and word not in COLOURS and not understood.named_in(word)]
    said = found.start or found.noun in nouns  # two words alone may be anything
    return [found.noun] if said and any(names(understood, word, nouns) for word in found.before) else []


def names(understood: Understood, word: str, nouns: Collection[str]) -> bool:
    """Whether what a text is drawn as, the nearest known thing, has a word in its name: the same, in another number, or as the
    end of a longer one.
    """
    one = singular(word, nouns) or word
    said = re.findall(r"[^\W\d_]+", understood.nearest[0].lower())
    return any(one in (w, singular(w, nouns)) or (len(one) > 2 and w.endswith(one)) for w in said)
