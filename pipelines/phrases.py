"""What a text names beside its first thing: more things, as in "a cat and a car", or what is around it, as on a mat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unialign_gen.concepts.understanding import Understood
from unialign_gen.text import clean_text

BESIDE = ("and", "&", "beside", "next to", "near")
ABOVE = ("above", "over", "on top of")
BELOW = ("below", "beneath", "underneath", "under")
AROUND = ("on", "in", "inside", "into", "at", "with", "behind", "through", "across", "among")
GROUND = r"(?:(?:light |dark )?\w+|(?:(?:an?|the) )?(?:\w+ )+background)$"  # a colour, behind "on"
MANY = r"^(?:[5-9]|\d\d+)\b|\b(?:five|six|seven|eight|nine|ten|eleven|twelve)\b"
DETERMINERS = {"a", "an", "the", "one", "two", "three", "four", "some"}
MOST = 4  # things in one picture


@dataclass(frozen=True)
class Phrases:
    """What a text names, from left to right or, with `down`, from top to bottom."""

    texts: tuple[str, ...]
    down: bool = False


def phrases_of(text: str) -> Phrases | None:
    """A text's parts around the words that say where things stand; None if there are none, of both kinds, or more than `MOST`.

    A ground that it ends with, "on blue" or "on a red background", is that of all that name none.

    >>> phrases_of("a cat and a dog on blue").texts
    ('a cat on blue', 'a dog on blue')
    >>> phrases_of("a boat under a sun")
    Phrases(texts=('a sun', 'a boat'), down=True)
    """
    text = bare(text)
    ground = re.search(rf" on {GROUND}", text, re.IGNORECASE)
    text, ends = (text[: ground.start()], ground[0]) if ground else (text, "")
    above, below, found = (split(text, words) for words in (ABOVE, BELOW, BESIDE))
    if len(found) > 1:  # commas alone may stand between the words for one thing
        found = [one for part in found for one in part.split(", ") if one]
    elif len(above) + len(below) == 3:
        found = above if len(above) == 2 else below[::-1]
    down = len(above) + len(below) > 2
    if not 1 < len(found) <= MOST or (down and len(split(text, BESIDE)) > 1):
        return None
    return Phrases(tuple(one if " on " in one else one + ends for one in found), down)


def bare(text: str) -> str:
    """A text with single spaces, without punctuation at its ends."""
    return clean_text(text).strip(" ,.;:!?")


def split(text: str, words: Sequence[str]) -> list[str]:
    """A text's parts between some words."""
    return [part for part in re.split(rf",? (?:{'|'.join(words)}) ", text, flags=re.IGNORECASE) if part]


def are_things(texts: Sequence[str], understood: Sequence[Understood]) -> bool:
    """Whether each of a text's parts names a thing, so that it is drawn for itself.

    All must be understood. They are things, and not two properties of one ("a black and white cat"), if each begins as a thing
    does, with "a" or "two" say, or has a name of what it is understood as.
    """
    if not all(u.understood for u in understood):
        return False
    begun = all(text.split()[0].lower() in DETERMINERS for text in texts)
    return begun or all(u.named_in(text, heads=True) for u, text in zip(understood, texts, strict=True))


def left_out(text: str, understood: Understood) -> list[str]:
    """What a text says of things around the first, or of more than four, and has no name of anything that it is understood as.

    >>> left_out("five dogs with a hat on blue", Understood(True, 0.9, ("dog", "cow")))
    ['five', 'a hat']
    """
    text = bare(text)
    words = re.split(rf" ({'|'.join(AROUND)}) ", text, flags=re.IGNORECASE)
    around = [
        what
        for word, what in zip(words[1::2], words[2::2], strict=True)
        if re.search(r"[^\W\d_]{3}", what) and not (word.lower() == "on" and re.match(GROUND, what, re.IGNORECASE))
    ]
    return [what for what in re.findall(MANY, text, re.IGNORECASE) + around if not understood.named_in(what)]
