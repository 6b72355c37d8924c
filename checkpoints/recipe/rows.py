"""All pictures that are trained on or measured with, their variants too: arrays of pixels beside a list of rows.

pictures64.npy, pictures128.npy    uint8 (N, side, side, 3), read by memory-mapping
rows.jsonl                         one object a picture, in the same order: plain ones first
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unialign_gen.errors import as_input_error

from .concepts import article

Name = TypeVar("Name")
One = TypeVar("One")


@dataclass
class Picture:
    """A row of `rows.jsonl`."""

    id: str
    split: str  # `train`, `test` (held out) or `cross` (makers that training never meets)
    tier: str
    style: str
    source: str
    captions: list[str]
    concepts: list[str]
    colour: str  # the name of the colour that most of it has, "" if none
    kind: str  # `plain`, `recoloured` or `composition`
    parts: list[str]  # ids of the plain pictures that it is made of
    variant_of: str | None  # the one that was recoloured

    @property
    def name(self) -> str:
        """What it shows: its first concept, or else its first caption in lower case less a given colour, or its id."""
        if self.kind == "recoloured" and not self.concepts:
            return self.captions[1].removeprefix(f"{self.colour} ")
        return self.concepts[0] if self.concepts else (self.captions or [self.id])[0].lower()

    @property
    def said(self) -> list[str]:
        """Its captions; of a picture without any, its style."""
        return self.captions or [self.style]

    @property
    def coloured_captions(self) -> list[str]:
        """Those that name its colour beside what it is."""
        if self.kind == "recoloured":
            return self.captions
        return [c for c in self.captions if self.colour and c in coloured(self.colour, self.name)]

    @property
    def plain_captions(self) -> list[str]:
        """All others."""
        return [c for c in self.captions if c not in self.coloured_captions]


def coloured(colour: str, name: str) -> list[str]:
    """A thing in its colour."""
    return [article(f"{colour} {name}"), f"{colour} {name}"]


def grouped(named: Iterable[tuple[Name, One]]) -> dict[Name, list[One]]:
    """What has each name, in its order."""
    out: dict[Name, list[One]] = {}
    for name, one in named:
        out.setdefault(name, []).append(one)
    return out


def read(root: Path) -> list[Picture]:
    """The rows of the data folder.

    Raises:
        InputError: there are none.
    """
    none = f"no rows in {root} that can be read: run `data` first ({{error}})"
    with as_input_error(none, OSError, ValueError, TypeError), (root / "rows.jsonl").open() as f:
        return [Picture(**json.loads(line)) for line in f]


def numbered(names: Sequence[str]) -> Tensor:
    """(N,): equal numbers, from 0 on, for equal names."""
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])
