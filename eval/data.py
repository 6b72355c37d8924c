"""Which prompts a measurement uses: held-out captions, recordings and pictures, in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unialign_gen.data.manifest import Row, read

SPLITS = {"held_out": "test", "cross_source": "cross"}


@dataclass
class Prompt:
    """An input of one modality and the concepts it stands for."""

    kind: str
    value: str
    concepts: list[str]


def shuffled(values: Sequence[Prompt], limit: int) -> list[Prompt]:
    """At most `limit` prompts, in an order that follows from their content alone."""
    return sorted(values, key=lambda p: hashlib.sha1(f"{p.kind}:{Path(p.value).name}".encode()).hexdigest())[:limit]


def prompts(root: Path, split: str, limit: int, extra: bool = False) -> dict[str, list[Prompt]]:
    """The prompts of `held_out` or `cross_source` by modality: `image`, `text`, `audio`.

    A caption counts only if no training picture has it; a recording only if it is one (no renders, no speech). With `extra`
    those two follow, as `render` and `speech`.
    """
    rows = read(root)
    seen = {c.lower() for r in rows if r.split == "train" for c in r.captions}
    mine = [r for r in rows if r.split == SPLITS[split] and r.concepts]
    pictures = [r for r in mine if r.kind == "picture"]
    texts = {c: r for r in pictures for c in r.captions if c.lower() not in seen}
    sounds = [r for r in mine if r.kind == "sound" and r.style in ("rec", "fx")]

    def of(kind: str, rows: Sequence[Row]) -> list[Prompt]:
        return [Prompt(kind, str(root / r.path), r.concepts) for r in rows]

    found = {
        "image": shuffled(of("image", pictures), limit),
        "text": shuffled([Prompt("text", c, r.concepts) for c, r in texts.items()], limit),
        "audio": shuffled(of("audio", sounds), limit),
    }
    if extra:
        for name, style in (("render", "font"), ("speech", "speech")):
            found[name] = shuffled(of("audio", [r for r in mine if r.style == style]), limit)
    return found
