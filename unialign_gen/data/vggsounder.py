"""VGGSounder (Zverev et al. 2025, Apache-2.0): which classes of VGGSound's test clips annotators heard, saw, or both.

VGGSound's own label is both audible and visible in 7,109 of its 15,446 test clips. A picture can only be asked for what is to
be seen, and a sound can only ask for what is to be heard.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError, as_input_error
from . import vggsound
from .cache import write_whole

NAME = "vggsounder.csv"
COLUMNS = ("video_id", "label", "modality")


def find_list(given: Path | None, root: Path) -> Path:
    """VGGSounder's list: the given file, the one in VGGSound's folder, or that of the installed package `vggsounder`.

    Raises:
        InputError: there is none.
    """
    package = find_spec("vggsounder")
    shipped = [Path(p) / "data" / NAME for p in (package.submodule_search_locations if package else None) or ()]
    places = [given] if given else [root / NAME, *shipped]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"no {places[0]}: VGGSounder's list goes there, or is named with --annotations, or comes with pip install vggsounder"
    )


def heard_and_seen(path: Path) -> dict[str, frozenset[str]]:
    """The classes of each clip that were both heard and seen; clips that have none are left out.

    Raises:
        InputError: the file is not there, or not of VGGSounder's form.
    """
    found: dict[str, set[str]] = {}
    with (
        as_input_error(f"{path} cannot be read: {{error}}", OSError, UnicodeDecodeError, csv.Error),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.DictReader(file)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise InputError(f"{path} is not VGGSounder's list: its columns are {', '.join(COLUMNS)} ...")
        for row in reader:
            if row["modality"] == "AV":
                found.setdefault(row["video_id"], set()).add(row["label"])
    return {clip: frozenset(labels) for clip, labels in found.items()}


def write_subset(clips: Iterable[vggsound.Row], annotations: Path, to: Path) -> int:
    """VGGSound's list (`vggsound.rows`) of the test clips whose own label was heard and seen; returns how many they are.

    Raises:
        InputError: there is none.
    """
    known = heard_and_seen(annotations)
    kept = [r for r in clips if r.split in ("test", None) and r.label in known.get(r.id, ())]
    if not kept:
        raise InputError(f"{annotations}: no clip's label was heard and seen: is it VGGSounder's list of these clips?")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([(r.youtube, r.start, r.label, "test") for r in kept])
    write_whole(to, out.getvalue().encode())
    return len(kept)
