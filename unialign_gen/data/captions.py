"""Captions in a file beside the media: JSONL or CSV, by the sample's id."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, as_input_error
from .files import without_suffix
from .storage import place, reached


def sentence(label: str) -> str:
    """A label as a caption."""
    return f"A video of {label.strip()}."


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, columns by name) of a JSONL file, or of a CSV file with a header.

    Raises:
        InputError: the file is not there or a line is not one JSON object.
    """
    with reached(path):
        file = path.open(encoding="utf-8-sig", newline="")
    with file as f, as_input_error(f"{path} is not in UTF-8 ({{error}}): save it so", UnicodeDecodeError):
        if path.suffix.lower() in (".csv", ".tsv"):
            reader = csv.DictReader(f, dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(f"{path}, line {reader.line_num}: it has more or fewer columns than the header")
                yield reader.line_num, dict(row)
            return
        for number, line in enumerate(f, 1):
            if not line.strip():
                continue
            with as_input_error(f"{path}, line {number}: not JSON ({{error}})", ValueError):
                row = json.loads(line)
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected one JSON object a line")
            yield number, row


def texts(value: Any, where: str) -> tuple[str, ...]:
    """A string or a list of strings, as captions; empty ones are dropped.

    Raises:
        InputError: it is neither.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(t, str) for t in listed):
        raise InputError(f"{where}: expected a string or a list of strings, got {json.dumps(value)[:60]}")
    return tuple(t.strip() for t in listed if t.strip())


def read(path: str | Path | None) -> dict[str, tuple[str, ...]]:
    """Captions by id, from rows `{id, caption}` or `{id, captions}`; rows with the same id add up.

    An id with the suffix of a media file is there without it too, unless another row has that id itself.

    Raises:
        InputError: the file is not there, or a row has no id or no caption.
    """
    out: dict[str, tuple[str, ...]] = {}
    short: dict[str, tuple[str, ...]] = {}
    if path is None:
        return out
    path = place(path)
    for number, row in rows(path):
        where = f"{path}, line {number}"
        value = row.get("captions", row.get("caption"))
        if not isinstance(row.get("id"), str) or value is None:
            raise InputError(f"{where}: expected an id and a caption, or captions")
        found = texts(value, where)
        for names, name in ((out, row["id"]), (short, without_suffix(row["id"]))):
            names[name] = names.get(name, ()) + found
    return short | out
