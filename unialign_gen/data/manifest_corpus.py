"""A manifest of one's own: JSONL or CSV with any of the columns id, text, audio, video, image, label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..notes import note
from .captions import rows, texts
from .corpus import Corpus, Sample
from .storage import File, file_at, on_disk, place

KNOWN = ("id", "text", "label")  # all other columns hold files


def read(path: str | Path) -> Corpus:
    """The samples of a manifest. Paths in it are absolute, URLs, or start at the manifest's folder.

    `text` is a string or, in JSONL, a list of strings. Any further column holds files of a modality of that name. A sample
    without an id is called by its line number. A video's sound track is its sound where there is no audio column.
    A file that is not there is missing in its modality alone (`Sample.absent`), a sample that has nothing else altogether; one
    in a store is looked for when it is read.

    Raises:
        InputError: the file is not there, a row cannot be understood, or two samples have the same id.
    """
    path = place(path)
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for number, row in rows(path):
        sample = parse(row, path, number)
        if sample.id in seen:
            raise InputError(f"{path}, line {number}: id {sample.id!r} is that of line {seen[sample.id]} too")
        seen[sample.id] = number
        samples.append(sample)
    reasons = {column: reason for sample in reversed(samples) for column, reason in sample.absent.items()}
    for column in sorted(reasons.keys() - {column for column in reasons if any(s.file(column) for s in samples)}):
        said = f"{path}: column {column} is used for nothing, since it names no file that is there ({reasons[column]})"
        note("column", f"{said}; columns other than {', '.join(KNOWN)} hold files")
    return Corpus.of(path.stem, samples)


def parse(row: dict[str, Any], path: Path, number: int) -> Sample:
    where = f"{path}, line {number}"
    given = {name: value for name, value in row.items() if value not in (None, "")}
    name = given.get("id", str(number))
    if not isinstance(name, str | int):
        raise InputError(f"{where}: an id is a string")
    files: dict[str, File] = {}
    for column, value in given.items():
        if column in KNOWN:
            continue
        if not isinstance(value, str):
            raise InputError(f"{where}: column {column} holds the path of a file, got {value!r}")
        if "://" in value or not on_disk(path):
            files[column] = file_at(value if "://" in value else f"{path.parent}/{value}")
        else:
            files[column] = str((path.resolve().parent / Path(value).expanduser()).resolve())
    if "audio" not in row and "video" in files:
        files["audio"] = files["video"]
    local = {column: file for column, file in files.items() if isinstance(file, str)}
    absent = {column: f"no such file: {file}" for column, file in local.items() if not Path(file).is_file()}
    files = {column: file for column, file in files.items() if column not in absent}
    text = texts(given["text"], where) if "text" in given else ()
    label = given.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise InputError(f"{where}: a label is a string, several are joined by |, got {json.dumps(label)[:60]}")
    known = {modality: files.pop(modality) for modality in ("audio", "video", "image") if modality in files}
    return Sample(str(name), text, **known, label=None if label is None else str(label), extra=files, absent=absent)
