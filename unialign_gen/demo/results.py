"""The evaluation's results that come with the package, as the report's own tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

SHOWN = ("judge top-1", "R@1", "gap")  # and the Frechet distance; the report has every metric


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(checkpoint: str = "starter") -> list[Table]:
    """Those of one checkpoint's `report.json`; none where none is shipped, or it is damaged."""
    file = resources.files("unialign_gen.eval") / "results" / checkpoint / "report.json"
    if not file.is_file():
        return []
    try:
        return tables_of(file.read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def tables_of(report: str) -> list[Table]:
    """The tables of a report's main metrics, each titled with its protocol."""
    from ..eval.results import unpacked
    from ..eval.tables import by_metric

    out = []
    for result in json.loads(report)["results"]:
        rows = [r for r in unpacked(result["rows"]) if shown(r["metric"])]
        out += [Table(f"{result['protocol'].capitalize()}: {t.title}", t.head, t.rows) for t in by_metric(rows)]
    return out


def shown(metric: str) -> bool:
    """Whether the page has it; the distance's extrapolation is left to the report."""
    return metric in SHOWN or (metric.startswith("Frechet distance") and "infinity" not in metric)
