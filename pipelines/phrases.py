"""What a text names beside one thing: more things, as in "a cat and three cars", or what is around it, as on a mat."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from unialign_gen.concepts.understanding import Understood
from unialign_gen.media.text import clean_text, with_article

from .beside import Box, in_lines, side_by_side
from .colours import COLOURS, NAME, SHADE, colour_of
from .words import ABOVE, AROUND, BELOW, BESIDE, DETERMINERS

# what a text ends with: "on blue", "on grass", "isolated on a red background", ", white background"
ON = r"(?: isolated)? on ((?:\w+ )?\w+)$"
BACKGROUND = r"(?:,?(?: isolated)? (?:on|with|against|over|in front of)|,)(?: an?| the)? ((?:[\w-]+ ){1,3}background)$"
MANY = r"^(?:[5-9]|\d\d+)\b|\b(?:five|six|seven|eight|nine|ten|eleven|twelve)\b"
NUMBERS = {word: n for n, words in enumerate(("two", "three", "four", "five", "six"), 2) for word in (words, str(n))}
ARRANGED = rf"{MANY}|(?<!\w)(?:{'|'.join((*NUMBERS, *BESIDE, *ABOVE, *BELOW))})(?!\w)"
THING = rf"(?:{'|'.join(sorted(DETERMINERS))}) .+"
WHO = r"(.+?)(?<!\ba)(?<!\ban)(?<!\bthe)(?! during )"  # not an article alone
IRREGULAR = {"men": "man", "women": "woman", "people": "person", "children": "child", "mice": "mouse", "geese": "goose"}
SAME = "deer fish sheep scissors glasses sunglasses goggles headphones jeans pants shorts trousers"
IRREGULAR |= {word: word for word in SAME.split()}
ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""))  # of plurals, and of their singulars
MOST = 4  # parts of a text
FULL = 6  # things in one picture


@dataclass(frozen=True)
class Phrases:
    """What a text names, from left to right or, with `down`, from top to bottom, how many of each, and the ground of all."""

    texts: tuple[str, ...]
    counts: tuple[int, ...]
    down: bool = False
    ground: str = ""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """A place in the picture for each of the things; those of one phrase stand together."""
        strips = side_by_side([1] * len(self.texts), self.down)
        return tuple(box for strip, count in zip(strips, self.counts, strict=True) for box in in_lines(count, strip))

    @property
    def grounded(self) -> tuple[str, ...]:
        """The texts with the ground, where they name none of their own."""
        return tuple(text if " on " in text else f"{text} {self.ground}".strip() for text in self.texts)


def phrases_of(text: str, known: Collection[str] = ()) -> Phrases | None:
    """A text's parts around the words that say where things stand; None if it has one thing and no ground of a colour, parts of
    both kinds, or more of them than `MOST`.

    A ground that it ends with, "on blue" or "on a red background", is that of all that name none. Of up to `FULL` things in all
    each stands alone; of more, the numbers stay in the text. `known` are nouns, to tell what a plural is of.

    >>> phrases_of("a cat and a dog on blue")
    Phrases(texts=('a cat', 'a dog'), counts=(1, 1), down=False, ground='on blue')
    >>> phrases_of("a cat on a mat and a dog on grass").texts
    ('a cat on a mat', 'a dog on grass')
    >>> phrases_of("two boats under a sun")
    Phrases(texts=('a sun', 'a boat'), counts=(1, 2), down=True, ground='')
    """
    text, ends = without_ground(text)
    above, below, found = (split(text, words) for words in (ABOVE, BELOW, BESIDE))
    if len(found) > 1:  # commas alone may stand between the words for one thing
        found = [one for part in found for one in part.split(", ") if one]
    elif len(above) + len(below) == 3:
        found = above if len(above) == 2 else below[::-1]
    down = len(above) + len(below) > 2
    if len(found) > MOST or (down and len(split(text, BESIDE)) > 1):
        return None
    ones, counts = zip(*(counted(one, known) for one in found), strict=True) if found else ((), ())
    if sum(counts) > FULL:
        ones, counts = tuple(found), (1,) * len(found)
    made = phrases(ones, counts, down, ends)
    return made if sum(counts) > 1 or (counts and made.ground) else None


def is_arranged(text: str) -> bool:
    """Whether a text may say how many there are, what is beside what, or a ground of a colour.

    >>> [is_arranged(text) for text in ("seven cats", "two men riding two horses", "a cat on blue", "a cat on a mat")]
    [True, True, True, False]
    """
    return re.search(ARRANGED, bare(text), re.IGNORECASE) is not None or colour_of(without_ground(text)[1]) is not None


def related(text: str, known: Collection[str] = ()) -> Phrases | None:
    """Who does something with what, or stands on what; None if a text says no such thing. They stand beside each other, or who
    is on something above it.

    >>> related("a girl holding two balloons")
    Phrases(texts=('a girl', 'a balloon'), counts=(1, 2), down=False, ground='')
    >>> related("a cat sleeping on a chair").down
    True
    """
    text, ends = without_ground(text)
    found = re.fullmatch(rf"{WHO} (?:(?:\w+ing )?(on|with)|(\w+ing)) ({THING})", text, re.IGNORECASE)
    if found is None or re.search(rf" \w+ing {THING}", found[4], re.IGNORECASE):
        return None
    ones, counts = zip(*(counted(one, known) for one in (found[1], found[4])), strict=True)
    down = (found[2] or found[3]).lower() in ("on", "riding")
    return phrases(ones, counts, down, ends) if sum(counts) <= FULL else None


def without_ground(text: str) -> tuple[str, str]:
    """A text and the ground that it ends with, "" if it has none.

    >>> [without_ground(text) for text in ("a frog, sky blue background", "a bird on a branch", "a cat on grass")]
    [('a frog', 'on a sky blue background'), ('a bird on a branch', ''), ('a cat', 'on grass')]
    """
    text = bare(text)
    if found := re.search(BACKGROUND, text, re.IGNORECASE):
        return bare(text[: found.start()]), f"on {with_article(found[1])}"
    found = re.search(ON, text, re.IGNORECASE)
    if found and (" " not in found[1] or colour_of(found[1])):
        return text[: found.start()], f"on {found[1]}"
    return text, ""


def phrases(texts: Sequence[str], counts: tuple[int, ...], down: bool, ground: str) -> Phrases:
    """Texts on a ground of a colour, or else each with the ground."""
    found = Phrases(tuple(texts), counts, down, ground)
    return found if colour_of(ground) else replace(found, texts=found.grounded, ground="")


def counted(text: str, known: Collection[str]) -> tuple[str, int]:
    """What a text has several of, as one, and how many.

    >>> counted("three red cherries in a bowl", {"cherry"})
    ('a red cherry in a bowl', 3)
    >>> counted("two tone car", {"car"})
    ('two tone car', 1)
    """
    found = re.fullmatch(rf"(?:the )?({'|'.join(NUMBERS)}) (.*?)\b(\w++)((?: (?:{'|'.join(AROUND)}) .*)?)", text, re.IGNORECASE)
    one = singular(found[3].lower(), known) if found else None
    several = found and any(word in IRREGULAR or singular(word, known) in known for word in found[2].lower().split())
    if found is None or one is None or several:  # nothing that is counted, or more than one thing
        return text, 1
    return with_article(f"{found[2]}{one}{found[4]}"), NUMBERS[found[1].lower()]


def singular(word: str, known: Collection[str]) -> str | None:
    """What a word is the plural of: a known noun, or else the word less its s; None where it is no plural.

    >>> [singular(word, {"shoe", "bus", "scissors"}) for word in ("shoes", "buses", "scissors", "sheep", "gizmos", "glass")]
    ['shoe', 'bus', 'scissors', 'sheep', 'gizmo', None]
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if not word.endswith("s") or word.endswith("ss"):
        return None
    ones = (word.removesuffix(end) + new for end, new in ENDINGS if word.endswith(end))
    return next((one for one in ones if one in known), word[:-1])


def bare(text: str) -> str:
    """A text with single spaces, without punctuation at its ends."""
    return clean_text(text).strip(" ,.;:!?")


def split(text: str, words: Sequence[str]) -> list[str]:
    """A text's parts between some words; colours of one thing, black and white, stay together."""
    held = re.sub(rf"({NAME}) and (?={SHADE} )", "\\1\n", text, flags=re.IGNORECASE)
    parts = re.split(rf",? (?:{'|'.join(words)}) ", held, flags=re.IGNORECASE)
    return [part.replace("\n", " and ") for part in parts if part]


def are_things(texts: Sequence[str], understood: Sequence[Understood], by_name: bool = False) -> bool:
    """Whether each of a text's parts names a thing, so that it is drawn for itself.

    All must be understood. They are things, and not two properties of one ("a black and white cat"), if each begins as a thing
    does, with "a" or "two" say, or has a name of what it is understood as. `by_name`, each must be understood as its noun.
    """
    a_colour = (DETERMINERS | COLOURS.keys()).issuperset  # "a red and a blue car"; but "a violet on white" is one thing
    if not all(u.understood for u in understood) or (len(texts) > 1 and any(a_colour(text.lower().split()) for text in texts)):
        return False
    if by_name:
        nouns = [re.split(rf" (?:{'|'.join(AROUND)}) ", text, flags=re.IGNORECASE)[0].split()[-1] for text in texts]
        return all(u.named_in(noun) for u, noun in zip(understood, nouns, strict=True))
    begun = all(text.split()[0].lower() in DETERMINERS for text in texts)
    return begun or all(u.named_in(text, heads=True) for u, text in zip(understood, texts, strict=True))
