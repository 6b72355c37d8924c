"""The concept vocabulary, and which concepts a picture's name and keywords stand for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache

from unialign_gen.media.text import with_article

from .plan import table

CONCEPTS = {row["concept"]: row for row in table("concepts")}
# what its pictures show, for people: a heart of "heartbeat", a microphone of "singing"
SHOWN = {concept: row["phrases"].split(",")[0].strip("=~") for concept, row in CONCEPTS.items()}
NOUN = re.compile(r"[a-z]+([ -][a-z]+)?")  # of one or two words


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) from the parts, the same on every machine: splits depend on nothing but an item's name."""
    return int(hashlib.sha1("|".join(parts).encode()).hexdigest()[:8], 16) / 2**32


def normal(text: str) -> str:
    """Lower case words without punctuation and a plural's s: to be compared, not read."""
    words = re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
    return " ".join(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words)


def article(name: str) -> str:
    """`name` with a or an, unless it is a plural."""
    if name.endswith("s") and not name.endswith("ss"):
        return name
    return with_article(name)


@cache
def pattern(cell: str, foreign: bool) -> re.Pattern[str]:
    """A cell of phrases, which commas part, over normalised names.

    A phrase marked `=` is the whole name; one marked `~` is Italian or French, and counts only with `foreign`.
    """
    found = []
    for phrase in filter(None, map(str.strip, cell.split(","))):
        if phrase[0] == "=":
            found.append(f"^{normal(phrase)}$")
        elif phrase[0] != "~" or foreign:
            found.append(f"(?:^| ){normal(phrase)}(?= |$)")
    return re.compile("|".join(found) or "(?!)")  # of no phrases one that matches nothing


def foreign(concept: str, name: str) -> bool:
    """Whether a name has one of the concept's Italian or French phrases."""
    phrases = (phrase.strip() for phrase in CONCEPTS[concept]["phrases"].split(","))
    return any(f" {normal(phrase)} " in f" {normal(name)} " for phrase in phrases if phrase.startswith("~"))


def match(source: str, name: str, words: Sequence[str]) -> list[str]:
    """Concepts with a phrase in `name`, or equal to a keyword where keywords are trusted, and no veto in either."""
    name, clip_art = normal(name), source == "openclipart"
    keywords = [normal(w) for w in words] if clip_art or source == "tuxpaint-stamps" else []
    found = []
    for concept, row in CONCEPTS.items():
        phrases, vetoes = pattern(row["phrases"], clip_art), pattern(row["vetoes"], True)
        named = phrases.search(name) or any(map(phrases.fullmatch, keywords))
        if named and not any(map(vetoes.search, (name, *keywords))):
            found.append(concept)
    return found
