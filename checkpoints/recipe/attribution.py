"""Who made what the starter was trained on: a line for each source and licence, counted from the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .manifest import Row

HEADER = "source\tkind\tlicence\ttier\ttrained on\titems\n"


def trained_on(kind: str, tier: str) -> str:
    """What met the items of a kind and tier."""
    if tier == "C":
        return "nothing: cross-source test set"
    return "decoder and heads" if tier == "A" and kind == "picture" else "heads"


def write(rows: Sequence[Row], path: Path) -> None:
    """Writes the table, one line a (source, kind, licence, tier)."""
    count = Counter((r.source, r.kind, r.licence, r.tier) for r in rows)
    lines = [f"{s}\t{k}\t{licence}\t{t}\t{trained_on(k, t)}\t{n}\n" for (s, k, licence, t), n in sorted(count.items())]
    path.write_text(HEADER + "".join(lines))
