"""Results on disk: what a protocol found, with everything it is to be read with, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from unialign_gen.data import cache
from unialign_gen.errors import InputError, as_input_error
from unialign_gen.notes import note
from unialign_gen.output import make_folder

from .figures import DIMENSIONS, Row, clean

PUBLISHED = Path(__file__).with_name("published.json")
FILE = "result.json"


def write(folder: Path, protocol: str, about: dict[str, Any], found: dict[str, Any]) -> Path:
    """`result.json` in a folder; `found` has `rows` and whatever else the protocol has.

    That of another protocol which lies there becomes `result-PROTOCOL.json`.
    """
    make_folder(folder)
    with suppress(InputError, OSError):
        before = read(folder / FILE)["protocol"]
        if before != protocol:
            os.replace(folder / FILE, folder / f"result-{before}.json")
            note("kept", f"{folder / FILE} was of {before}: it is result-{before}.json now")
    text = json.dumps(clean({"protocol": protocol, "about": about, **found}), indent=1, ensure_ascii=False)
    cache.write_whole(folder / FILE, (text + "\n").encode())
    return folder / FILE


def read(path: Path) -> dict[str, Any]:
    """A result file, or the one in a folder; an `InputError` if it is none."""
    path = path / FILE if path.is_dir() else path
    with as_input_error(
        f"{path} is no result of `unialign-gen eval generation`, `retrieval` or `gap`", OSError, ValueError, KeyError, TypeError
    ):
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found["rows"], list) or not isinstance(found["about"], dict) or "protocol" not in found:
            raise TypeError("no rows")
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """Every row, columns in one order: what it is of, then the number, its interval and n."""
    named = [d for d in DIMENSIONS if any(d in r for r in rows)]
    rest = [k for k in dict.fromkeys(k for r in rows for k in r) if k not in (*named, "value", "low", "high", "n", "draws")]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*named, "value", "low", "high", "n", *rest], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{k: clean(v) for k, v in r.items()} for r in rows])
    return out.getvalue()


def joined(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Results in one small file: rows and differences as `packed` tables with four digits; no draws, classes or pictures."""
    kept = [
        {k: r[k] for k in ("protocol", "about")} | {k: packed(r.get(k, [])) for k in ("rows", "differences")} for r in found
    ]
    return {"results": kept, "published": published()}


def packed(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as one table: what all have in common once, then columns and their values, words as numbers of `levels`."""
    rows = [{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in r.items() if k != "draws"} for r in rows]
    names = list(dict.fromkeys(k for r in rows for k in r))
    common = {k: rows[0][k] for k in names if all(k in r and r[k] == rows[0][k] for r in rows)}
    columns = [k for k in names if k not in common]
    levels = {k: list(dict.fromkeys(r[k] for r in rows)) for k in columns if all(isinstance(r.get(k), str) for r in rows)}
    values = [[levels[k].index(r[k]) if k in levels else r.get(k) for k in columns] for r in rows]
    return {"common": common, "levels": levels, "columns": columns, "values": values}


def unpacked(table: dict[str, Any]) -> list[Row]:
    """The rows of a `packed` table, where what a row does not have is None."""
    levels = [table["levels"].get(k) for k in table["columns"]]
    rows = [[v if n is None else n[v] for v, n in zip(values, levels, strict=True)] for values in table["values"]]
    return [{**table["common"], **dict(zip(table["columns"], row, strict=True))} for row in rows]


def published() -> dict[str, Any]:
    """Tables 1 to 3 of the paper, as printed."""
    return json.loads(PUBLISHED.read_text("utf-8"))
