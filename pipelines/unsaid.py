"""The words of a text that what it is drawn as does not show."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from unialign_gen.concepts.understanding import is_called

from .colours import COLOURS, colour_of
from .phrases import MANY, NUMBERS, bare, counted, without_ground
from .words import DETERMINERS, FUNCTION_WORDS, OF, is_doing, thing_ends

MOST = 16  # words that are tried: of a longer text all others may be missing, but for what the thing is called
NEVER = FUNCTION_WORDS | {"picture", "drawing", "illustration", "icon", "emoji", "clipart"}  # as every picture is
TINTS = COLOURS.keys() | {"dark", "light", "black-and-white"}  # a thing's own are looked for in the picture
TINTS |= {f"{one}ish" for one in (*COLOURS, "redd", "greyi")}


def unsaid(text: str, drawn: Callable[[Sequence[str]], Sequence[str]], nouns: Collection[str]) -> list[str]:
    """Words that the thing which a text is drawn as is not called by; those that follow each other as one.

    They are nouns that by themselves are drawn as another thing, numbers of more than can be drawn, and other words without
    which the thing is the same.

    Args:
        drawn: the names of the things that some texts are drawn as.
        nouns: known ones; the last word before "with", "on" and the like, or before who does what, is one too.

    >>> def last(texts): return [text.split()[-1] for text in texts]
    >>> unsaid("an old knight on a horse", last, {"horse"})
    ['old knight']
    """
    whole, ground = without_ground(text)
    words = (whole if colour_of(ground) else bare(text)).split()
    plain = [re.sub(r"[^\w'-]", "", word.lower()) for word in words]
    own = thing_ends(plain)
    shown = {n for n, word in enumerate(plain) if word in TINTS and (n < own or n == len(words) - 1)}
    said = [n for n, word in enumerate(plain) if word and word not in NEVER and n not in shown]
    numbers = {n for n, word in enumerate(plain) if word in NUMBERS} if counted(whole, nouns)[1] > 1 else set()
    if len(said) < 2 and not numbers:
        return []

    def without(place: int) -> str:
        return " ".join(word for n, word in enumerate(words) if n != place)

    named = {n for n in said if is_noun(plain, n, nouns)}
    tried = said[:MOST]
    thing, *others = drawn([" ".join(words), *(plain[n] if n in named else without(n) for n in tried)])
    called = {n for n in said if is_called(thing, plain[n])}
    called |= {m for n in said if n + 1 in said and is_called(thing, plain[n] + plain[n + 1]) for m in (n, n + 1)}
    gone = {n for n, other in zip(tried, others, strict=True) if (other != thing) == (n in named)} - called
    gone |= {*said[MOST:]} - called
    gone |= ({n for n in said if re.fullmatch(MANY, plain[n])} | numbers) - called
    runs = "".join("x" if n in gone else " " for n in range(len(words)))
    return [bare(" ".join(words[run.start() : run.end()])).strip("()") for run in re.finditer("x+", runs)]


def is_noun(words: Sequence[str], place: int, nouns: Collection[str]) -> bool:
    """Whether one of a text's words in lower case names a thing, as far as its place tells. A bowl of soup is one thing.

    >>> words = "a small boy flying a kite beside a glass of milk".split()
    >>> [word for n, word in enumerate(words) if is_noun(words, n, {"milk"})]
    ['boy', 'kite']
    """
    word, after = words[place], words[place + 1 : place + 2]
    before = [other for other in words[:place] if other not in DETERMINERS][-2:]
    if after == ["of"] or (before[-1:] == ["of"] and " ".join(before) not in OF) or is_doing(word):
        return False
    who = bool(after) and is_doing(after[0]) and (words[place + 2 : place + 3] or ["on"])[0] in FUNCTION_WORDS
    return word in nouns or not after or after[0] in FUNCTION_WORDS - DETERMINERS or who
