"""Rows of Hugging Face `datasets`: a folder that `save_to_disk` wrote, one of Parquet files, or a repository of the hub.

Columns of audio, video and pictures are found by their type, captions as `text`, `caption` or `captions`, labels as `label`,
ids as `id`. Rows stay in their files, which `datasets` maps; a sample's bytes are read when it is decoded.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, as_input_error
from .captions import texts
from .corpus import Corpus, Sample
from .storage import File, Stored, on_disk, reached, read_url

TEXT = ("text", "caption", "captions", "sentence")
SHARD = re.compile(r"(?P<split>\w+)-\d+-of-\d+(-\w+)?\.parquet")  # as the hub names them


def read(root: str | Path, split: str | None = "train") -> Corpus:
    """The samples of a data set, in its order.

    Args:
        split: where there are several.

    Raises:
        InputError: `datasets` is not installed, there is no such data set or split, or no column that is understood.
    """
    with reached(root):
        rows = table(root, split)
    media = {}
    for column, feature in rows.features.items():
        kind = type(feature).__name__.lower()
        if kind in ("audio", "video", "image") and kind not in media:
            media[kind] = rows.select_columns([column]).cast_column(column, type(feature)(decode=False))
    plain = [c for c in rows.column_names if c in (*TEXT, "label", "id")]
    if not media and not set(plain) & set(TEXT):
        raise InputError(f"{root} has no column of text, audio, video or pictures: its columns are {rows.column_names}")
    names: Any = rows.features["label"] if "label" in plain else None
    samples: list[Sample] = []
    for number, row in enumerate(rows.select_columns(plain)) if plain else enumerate({} for _ in range(len(rows))):
        name = str(row.get("id", number))
        given: Any = next((row[c] for c in TEXT if row.get(c)), [])
        label = row.get("label")
        if label is not None and hasattr(names, "int2str"):
            label = names.int2str(label) if label >= 0 else None  # -1: of a split whose labels are not published
        files: dict[str, File] = {
            kind: Stored(f"{root}[{number}].{kind}", partial(cell, column, number)) for kind, column in media.items()
        }
        text = texts(given, f"{root}, row {number}")
        audio, video = files.get("audio", files.get("video")), files.get("video")
        samples.append(Sample(name, text, audio, video, files.get("image"), None if label is None else str(label)))
    if twice := [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]:
        raise InputError(f"{root}: {len(twice)} ids are of several rows, the first: {twice[0]}: give each row its own")
    return Corpus.of(f"dataset {Path(str(root)).name}", samples)


def table(root: str | Path, split: str | None) -> Any:
    """The rows of a split."""
    with as_input_error("corpora of kind dataset need `pip install datasets`", ImportError):
        import datasets
    path: Any = root
    if isinstance(root, str) or (on_disk(root) and not root.exists()):
        return datasets.load_dataset(str(root), split=split or "train")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        found = datasets.load_from_disk(str(root))
        if not isinstance(found, datasets.DatasetDict):
            return found
        if split not in found:
            raise InputError(f"{root} has no split {split}: it has {', '.join(map(str, found))}")
        return found[split]
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(f"{root} holds neither Parquet files nor what `save_to_disk` of datasets writes")
    splits: dict[str, list[str]] = {}
    for file in files:
        named = SHARD.fullmatch(file.name)
        splits.setdefault(named["split"] if named else "", []).append(str(file))
    if splits.keys() != {""} and split is not None and split not in splits:
        raise InputError(f"{root} has no split {split}: it has {', '.join(filter(None, splits))}")
    chosen = splits[split] if split in splits else [str(file) for file in files]
    return datasets.load_dataset("parquet", data_files=chosen, split="train")


def cell(column: Any, number: int) -> bytes:
    """The bytes of a row's file, which may lie outside of the table."""
    value = next(iter(column[number].values()))
    if value is None:
        raise FileNotFoundError
    return value["bytes"] if value.get("bytes") is not None else read_url(value["path"])
