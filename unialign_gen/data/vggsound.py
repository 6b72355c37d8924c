"""VGGSound (Chen et al. 2020; annotations CC-BY-4.0): 200 thousand ten second clips of YouTube in 309 classes.

`vggsound.csv` as published has no header: YouTube id, start in seconds, label, `train` or `test`. An older `test.csv` has
`{id}_{start:06d}.mp4, label`. About a fifth of the clips can no longer be downloaded, so missing files are normal.
"""

from __future__ import annotations

import csv as csv_format
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, as_input_error
from .corpus import Corpus, Sample
from .files import MediaFolder, clip_names, without_suffix
from .storage import place

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Row:
    youtube: str
    start: int
    label: str
    split: str | None

    @property
    def id(self) -> str:
        return f"{self.youtube}_{self.start:06d}"


def read(
    root: str | Path,
    split: str | None = "test",
    csv: str | Path | None = None,
) -> Corpus:
    """The clips of a split whose files are below `root`, in the order of the list. They have labels and no captions.

    Args:
        root: a folder, at any depth below which the files lie, named in any way of `files.clip_names`.
        split: `train`, `test`, or None for both.
        csv: the list; by default `vggsound.csv` or `{split}.csv` in `root`.

    Raises:
        InputError: no such folder or list, or a row that is not of VGGSound's form.
    """
    if split not in (*SPLITS, None):
        raise InputError(f"unknown split {split!r} of VGGSound: choose train or test")
    path = find_list(place(root), split) if csv is None else place(csv)
    folder = MediaFolder(root)
    listed: list[Sample] = []
    seen: set[str] = set()
    for row in rows(path):
        if split is not None and row.split not in (split, None):
            continue
        if row.id in seen:
            listed.append(Sample(row.id, absent={"video": "listed more than once: the first row counts"}))
            continue
        seen.add(row.id)
        names = clip_names(row.youtube, row.start)
        video, audio = folder.find(names)
        absent = {} if audio else {"video": folder.reason(names)}
        listed.append(Sample(row.id, (), audio, video, label=row.label, absent=absent))
    return Corpus.of(f"vggsound {split or 'train and test'}", listed)


def find_list(root: Path, split: str | None) -> Path:
    for name in ("vggsound.csv", f"{split}.csv"):
        if (root / name).is_file():
            return root / name
    raise InputError(f"no vggsound.csv in {root}: put it there or say where it is")


def rows(path: Path) -> Iterator[Row]:
    """The rows of a list, published or older; a first row of column names is passed over.

    Raises:
        InputError: the file is not there, or a row is of neither form.
    """
    if not path.is_file():
        raise InputError(f"no such list: {path}")
    wrong = as_input_error(f"{path} is not in UTF-8 ({{error}}): save it so", UnicodeDecodeError)
    with path.open(encoding="utf-8-sig", newline="") as f, wrong:
        reader = csv_format.reader(f)
        for cells in reader:
            if not cells:
                continue
            row = published(cells) if len(cells) == 4 else older(cells) if len(cells) == 2 else None
            if row is not None:
                yield row
            elif reader.line_num > 1:
                raise InputError(f"{path}, line {reader.line_num}: expected id, start, label and train or test")


def published(cells: list[str]) -> Row | None:
    youtube, start, label, split = (cell.strip() for cell in cells)
    try:
        return Row(youtube, int(float(start)), label, split) if split in SPLITS else None
    except ValueError:
        return None


def older(cells: list[str]) -> Row | None:
    youtube, _, start = without_suffix(cells[0].strip()).rpartition("_")
    return Row(youtube, int(start), cells[1].strip(), None) if youtube and start.isdecimal() else None


def select(corpus: Corpus, count: int = 1024, seed: int = 0) -> Corpus:
    """`count` samples in an order that depends on nothing but the ids and the seed: that of SHA-256 of `seed:id`.

    Which clips the paper held out is unpublished. Two copies of the corpus in which different files are missing give
    selections that differ by just those clips, and `digest` tells. Missing clips that a complete copy would have given
    are the selection's missing ones. A corpus of fewer samples gives all of them.
    """

    def place(name: str) -> str:
        return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    chosen = sorted(corpus.samples, key=lambda sample: place(sample.id))[:count]
    last = place(chosen[-1].id) if len(chosen) == count and chosen else "g"  # behind every hexadecimal number
    passed = sorted((m for m in corpus.missing if place(m.id) < last), key=lambda m: place(m.id))
    return Corpus(f"{corpus.name}, {len(chosen)} by hash, seed {seed}", chosen, passed)
