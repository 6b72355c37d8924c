"""All pictures that are trained on or measured with, their variants too: arrays of pixels beside a list of rows.

pictures64.npy, pictures128.npy    uint8 (N, side, side, 3), read by memory-mapping
rows.jsonl                         one object a picture, in the same order: plain ones first
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unialign_gen.data.manifest import Row
from unialign_gen.errors import InputError

from .concepts import article
from .rasters import SIDE
from .variants import NAME, Cut, Variant, compositions, draw, pairs, recolouring, recolourings

SMALL = 64
TRAIN_COMPOSITIONS, TEST_COMPOSITIONS, TEST_PAIRS = 14_000, 600, 100
FIVE = ("red", "yellow", "green", "blue", "purple")
COLOUR_WORDS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
    "gray",
    "golden",
)


@dataclass
class Picture:
    """A row of `rows.jsonl`.

    Attributes:
        split: `train`, `test` (held out) or `cross` (makers that training never meets).
        colour: the name of the colour that most of it has, "" if none.
        kind: `plain`, `recoloured` or `composition`.
        parts: ids of the plain pictures that it is made of; `variant_of` is the one that was recoloured.
    """

    id: str
    split: str
    tier: str
    style: str
    source: str
    captions: list[str]
    concepts: list[str]
    colour: str
    kind: str
    parts: list[str]
    variant_of: str | None

    @property
    def name(self) -> str:
        """What it shows: its first concept, or else its first caption in lower case less a given colour, or its id."""
        if self.kind == "recoloured" and not self.concepts:
            return self.captions[1].removeprefix(f"{self.colour} ")
        return self.concepts[0] if self.concepts else (self.captions or [self.id])[0].lower()

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


def read(root: Path) -> list[Picture]:
    """The rows of the data folder.

    Raises:
        InputError: there are none.
    """
    try:
        with (root / "rows.jsonl").open() as f:
            return [Picture(**json.loads(line)) for line in f]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no rows in {root} that can be read: run `data` first ({error})") from error


def plain(row: Row, colour: str) -> Picture:
    """A picture as it came; a colour that its name does not say is said in two more captions."""
    shown = Picture(
        row.id, row.split, row.tier, row.style, row.source, list(row.captions), row.concepts, colour, "plain", [row.id], None
    )
    said = {word for caption in row.captions for word in caption.lower().split()}
    if colour and row.split != "cross" and not said & set(COLOUR_WORDS) and NAME.fullmatch(shown.name):
        shown.captions += coloured(colour, shown.name)
    return shown


def box_share(inside: np.ndarray) -> float:
    """How much of its own bounding box a mask (h, w) covers; 0 if it is empty."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return float(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean()) if len(rows) else 0.0


def cuts(rows: Sequence[Picture], cut_outs: np.ndarray) -> list[Cut]:
    """What can stand in a composition: things with a short name, less its colour, and a transparent ground."""
    out = []
    for n, row in enumerate(rows):
        first, _, rest = row.name.partition(" ")
        name = rest if rest and first in COLOUR_WORDS else row.name
        if NAME.fullmatch(name) and 0.02 < box_share(cut_outs[n, ::2, ::2, 3] > 127) < 0.97:
            out.append(Cut(n, row.id, name, row.style, row.source, row.tier, row.split, row.concepts, row.colour))
    return out


def variants(found: Sequence[Cut]) -> list[Variant]:
    """Recoloured pictures and compositions, in mixed order; those of held-out pictures are held out.

    Held-out concepts come in each of five colours, for colour words to be told by.
    """
    mine = {split: [cut for cut in found if cut.split == split] for split in ("train", "test")}
    out = list(recolourings(mine["train"], 1, 3))
    out += [recolouring(cut, c, f"{cut.id}+{c}") for cut in mine["test"] if cut.concepts for c in FIVE]
    for split, count in (("train", TRAIN_COMPOSITIONS), ("test", TEST_COMPOSITIONS)):
        out += compositions(mine[split], count, split)
    random.Random(0).shuffle(out)
    unseen = [cut for cut in mine["test"] if cut.concepts and "emoji" in cut.style]
    return [*out, *pairs(unseen, TEST_PAIRS, "unseen")]


def paint(job: tuple[int, Variant, Path, Path]) -> None:
    """Draws one variant into its place in an array."""
    number, variant, cut_outs, out = job
    np.load(out, mmap_mode="r+")[number] = np.asarray(draw(variant, np.load(cut_outs, mmap_mode="r")))


def build(root: Path, rows: Sequence[Row], colour: Sequence[str], jobs: int) -> int:
    """Writes the plain pictures at once, so that others can begin, then all of them; returns how many there are."""
    shown = [plain(row, name) for row, name in zip(rows, colour, strict=True)]
    cut_outs = np.load(root / "cutouts.npy", mmap_mode="r")
    made = variants(cuts(shown, cut_outs))
    part = root / "pictures128.part.npy"
    pixels = np.lib.format.open_memmap(part, "w+", np.uint8, (len(shown) + len(made), SIDE, SIDE, 3))
    for n, cut in enumerate(cut_outs):
        opacity = cut[..., 3:].astype(np.uint16)
        pixels[n] = (cut[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255
    write(root, shown, pixels[: len(shown)])
    work = ((len(shown) + n, variant, root / "cutouts.npy", part) for n, variant in enumerate(made))
    with ProcessPoolExecutor(jobs) as pool:
        for _ in pool.map(paint, work, chunksize=64):
            pass
    write(root, [*shown, *(Picture(**variant.row()) for variant in made)], pixels)  # type: ignore[arg-type]
    os.replace(part, root / "pictures128.npy")
    return len(pixels)


def write(root: Path, rows: Sequence[Picture], pixels: np.ndarray) -> None:
    """Replaces `rows.jsonl` and `pictures64.npy`: every picture of (N, 128, 128, 3) at half its size."""
    part = root / "pictures64.part.npy"
    small = np.lib.format.open_memmap(part, "w+", np.uint8, (len(rows), SMALL, SMALL, 3))
    for n, picture in enumerate(pixels):
        small[n] = np.asarray(Image.fromarray(picture).reduce(SIDE // SMALL))
    small.flush()
    lines = "".join(json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rows)
    (root / "rows.part").write_text(lines)
    os.replace(part, root / "pictures64.npy")
    os.replace(root / "rows.part", root / "rows.jsonl")
