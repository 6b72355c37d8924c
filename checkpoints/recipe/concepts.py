"""The concept vocabulary, and which concepts a picture's name and keywords stand for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from unialign_gen.text import with_article

from .plan import table

KEEP_S = {"glass", "bus", "glasses", "scissors", "bagpipes", "maracas", "swiss", "albatross", "virus"}


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) from the parts, the same on every machine: splits depend on nothing but an item's name."""
    return int(hashlib.sha1("|".join(parts).encode()).hexdigest()[:8], 16) / 2**32


def normal(text: str) -> str:
    """Lower case words without punctuation, possessive and plural s."""
    words = re.sub(r"[^a-z0-9]+", " ", text.lower().replace("'s ", " ").replace("\u2019s ", " ")).split()
    return " ".join(w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") and w not in KEEP_S else w for w in words)


def article(name: str) -> str:
    """`name` with a or an, unless it is a plural."""
    if (name.endswith("s") and not name.endswith("ss")) or name.split()[0] in ("a", "an", "the"):
        return name
    return with_article(name)


@dataclass
class Phrase:
    """A pattern over a normalised name. Mark `=`: the whole name; `~`: Italian or French, for clip-art titles only."""

    mark: str
    pattern: re.Pattern[str]


@dataclass
class Concept:
    """A row of `tables/concepts.tsv`."""

    name: str
    kind: str
    phrases: list[Phrase]
    vetoes: list[Phrase]
    vggsound: str


def phrases(cell: str) -> list[Phrase]:
    """Those of a cell of the table, which commas part."""
    out = []
    for text in filter(None, map(str.strip, cell.split(","))):
        words = " ".join(map(re.escape, normal(text).split()))
        mark = text[0] if text[0] in "=~" else ""
        out.append(Phrase(mark, re.compile(f"^(an? |the )?{words}$" if mark == "=" else rf"(?:^| ){words}(?= |$)")))
    return out


CONCEPTS = {
    row["concept"]: Concept(row["concept"], row["kind"], phrases(row["phrases"]), phrases(row["vetoes"]), row["vggsound"] or "")
    for row in table("concepts")
}


def match(source: str, name: str, words: list[str]) -> list[str]:
    """Concepts with a phrase in `name`, or equal to a keyword where keywords are trusted, and no veto in either."""
    name = normal(name)
    keywords = [normal(w) for w in words] if source in ("openclipart", "tuxpaint-stamps") else []

    def hit(phrase: Phrase) -> bool:
        if phrase.mark == "~" and source != "openclipart":
            return False
        return bool(phrase.pattern.search(name)) or any(phrase.pattern.fullmatch(w) for w in keywords)

    def vetoed(concept: Concept) -> bool:
        return any(v.pattern.search(t) for v in concept.vetoes for t in (name, *keywords))

    return [c.name for c in CONCEPTS.values() if any(map(hit, c.phrases)) and not vetoed(c)]
