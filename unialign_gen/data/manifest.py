"""A data set's manifest: one JSON line a picture or sound."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, as_input_error
from ..output import user_cache
from .storage import write_rows

FILE = "manifest.jsonl"


@dataclass
class Row:
    """A picture or a sound.

    Attributes:
        kind: `picture` or `sound`.
        source, key: the package it came in and its name there.
        tier: `A` permissive, `B` share-alike, `C` copyleft.
        concepts: what it shows or what makes the sound; may be empty.
        style: how it is drawn, or `rec`, `fx`, `font`, `speech`.
        split: `train`, `test` (held out) or `cross` (makers that training never meets).
        path: relative to the data set's folder.
    """

    id: str
    kind: str
    source: str
    key: str
    licence: str
    tier: str
    concepts: list[str]
    style: str
    captions: list[str]
    split: str
    path: str
    seconds: float = 0.0


def default_root() -> Path:
    """`$UNIALIGN_DATA`, or `unialign_gen/starter-data` in the user's cache folder."""
    return Path(os.environ.get("UNIALIGN_DATA") or user_cache() / "starter-data")


def read(root: Path) -> list[Row]:
    """The rows of the data set in `root`.

    Raises:
        InputError: there is none, or its manifest cannot be read.
    """
    path = root / FILE
    if not path.is_file():
        raise InputError(
            f"no data set in {root}: build it with `python -m unialign_gen.checkpoints.recipe data`, or give --data"
        )
    with as_input_error(f"{path} is not a manifest of this version: {{error}}", ValueError, TypeError), path.open() as f:
        return [Row(**json.loads(line)) for line in f]


def write(root: Path, rows: list[Row]) -> None:
    """Replaces the manifest in one step."""
    write_rows(root / FILE, map(vars, rows))
