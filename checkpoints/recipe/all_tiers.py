"""A data folder in which tier C is trained on too: for comparison with results that had all of the data, never for what ships.

The same files by links, another manifest: the share-alike rows' place is given to tier C, which heads may learn from and
decoders not. What is held out of it follows the rules of the other tiers; the sound font that nothing else holds out stays
held out, so that renders are tested on a font that training never met.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from unialign_gen.errors import InputError

from . import manifest
from .manifest import Row
from .pictures import held_out
from .sounds import hold_out, session

LINKED, COPIED = ("images", "audio", "packages", "unpacked", "encoders", "features"), "image_space"
FONT = "timgm6mb"
MARK = "ALL_TIERS"  # a file that says what the folder is


def resplit(rows: list[Row]) -> None:
    """Puts the rows of tier C among the others, in place."""
    mine = [row for row in rows if row.tier == "C"]
    for row in mine:
        row.tier = "B"
        if row.kind == "picture":
            row.split = "test" if held_out(row.source, row.key) else "train"
        else:
            row.split = "test" if row.source == FONT else "train"
    takes = [row for row in mine if row.kind == "sound" and row.style in ("rec", "fx")]
    hold_out(takes, {row.id: session(row.source, row.key) for row in takes})


def write(root: Path, out: Path) -> None:
    """Writes the folder `out` beside the data in `root`; `image-space`, `caches`, `heads`,
    `recognise` and `recall` take it as their root.

    Raises:
        InputError: no data in `root`, or no encoders, features or image space yet; `out` is there already.
    """
    rows = manifest.read(root)
    missing = [name for name in (*LINKED, COPIED) if not (root / name).is_dir()]
    if missing:
        raise InputError(f"{root} has no {', '.join(missing)} yet: run `data`, `encoders`, `restore` and `caches` first")
    if out.exists():
        raise InputError(f"{out} is there already: give another --out")
    out.mkdir(parents=True)
    for name in LINKED:
        (out / name).symlink_to((root / name).resolve())
    shutil.copytree(root / COPIED, out / COPIED)
    resplit(rows)
    manifest.write(out, rows)
    (out / MARK).write_text("Heads here may have learned from tier C: for comparison only.\n")


def marked(root: Path) -> bool:
    """Whether `root` is a folder that `write` wrote."""
    return (root / MARK).exists()


def refuse(root: Path) -> None:
    """For steps whose results ship.

    Raises:
        InputError: `root` is a folder that `write` wrote.
    """
    if marked(root):
        raise InputError(f"{root} lets tier C be trained on: nothing of it may ship")
