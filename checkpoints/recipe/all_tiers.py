"""A data folder in which tier C is trained on too: for comparison with results that had all of the data, never for what ships.

The same files by links, another manifest: the share-alike rows' place is given to tier C, which heads may learn from and
decoders not. What is held out of it follows the rules of the other tiers; the sound font that nothing else holds out stays
held out, so that renders are tested on a font that training never met.
"""

from __future__ import annotations

from pathlib import Path

from unialign_gen.errors import InputError

from . import manifest
from .manifest import Row
from .pictures import held_out
from .sounds import hold_out, session

LINKED = ("images", "audio", "towers", "features", "image_space")
FONT = "timgm6mb"


def resplit(rows: list[Row]) -> list[Row]:
    """The rows with those of tier C among the others, changed in place."""
    mine = [row for row in rows if row.tier == "C"]
    for row in mine:
        row.tier = "B"
        if row.kind == "picture":
            row.split = "test" if held_out(row.source, row.key) else "train"
        else:
            row.split = "test" if row.source == FONT else "train"
    takes = [row for row in mine if row.kind == "sound" and row.style in ("rec", "fx")]
    hold_out(takes, {row.id: session(row.source, row.key) for row in takes})
    return rows


def write(root: Path, out: Path) -> None:
    """Writes the folder `out` beside the data in `root`; `caches`, `heads` and `recall` take it as their root.

    Raises:
        InputError: the features or the image space are not there yet, or `out` holds something.
    """
    manifest.read(root)
    missing = [name for name in LINKED if not (root / name).is_dir()]
    if missing:
        raise InputError(f"{root} has no {', '.join(missing)} yet: run `towers`, `restore` and `caches` first")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (out / name).symlink_to((root / name).resolve())
    manifest.write(out, resplit(manifest.read(root)))
