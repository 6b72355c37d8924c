"""The evaluation's results that come with the package, as tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

Scalar = str | int | float | bool | None


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(checkpoint: str = "starter") -> list[Table]:
    """Those of one checkpoint, in the order of their files' names; none where none are shipped, or a file is damaged."""
    folder = resources.files("unialign_gen.eval") / "results" / checkpoint
    out: list[Table] = []
    if not folder.is_dir():
        return out
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".json"):
            try:
                out += tables_in(json.loads(file.read_text()), file.name.removesuffix(".json"))
            except (OSError, ValueError, RecursionError):
                continue
    return out


def tables_in(value: Any, title: str) -> list[Table]:
    """A list of records is a table; the plain values of a record are one of two columns; what lies deeper follows."""
    out: list[Table] = []
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        columns = list(dict.fromkeys(k for row in value for k, v in row.items() if isinstance(v, Scalar)))
        if columns:
            out.append(Table(title, columns, [[shown(row.get(c)) for c in columns] for row in value]))
    elif isinstance(value, dict):
        plain = [[k, shown(v)] for k, v in value.items() if isinstance(v, Scalar)]
        if plain:
            out.append(Table(title, ["", "value"], plain))
        for key, inner in value.items():
            if not isinstance(inner, Scalar):
                out += tables_in(inner, f"{title}, {key}")
    return out


def shown(value: Scalar) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
