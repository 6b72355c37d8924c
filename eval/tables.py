"""Rows of figures as tables for a person: methods down, tasks across, a number with its interval in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .figures import Row

PERCENT = ("R@", "gain in R@", "mAP", "nDCG", "judge", "precision", "recall", "coverage", "separability")
CHARTED = ("FID", "Frechet distance", "judge top-1", "R@1", "gap")  # the metrics that a page draws
LOWER = ("FID", "KID", "MIND", "distance", "gap", "median rank", "Hoelder", "alignment", "separability", "zeta", "chi")


@dataclass(frozen=True)
class FigureTable:
    """A title, column heads, and rows of cells that are text already."""

    title: str
    head: list[str]
    rows: list[list[str]]


def number(value: float | None, metric: str, signed: bool = False) -> str:
    if value is None:
        return "-"
    plus = "+" if signed else ""
    if metric.startswith(PERCENT):
        return f"{100 * value:{plus}.1f} %"
    if abs(value) >= 100:
        return f"{value:{plus}.1f}"
    return f"{value:{plus}.2f}" if abs(value) >= 1 else f"{value:{plus}.4f}"


def cell(r: Row, signed: bool = False) -> str:
    """`12.3 (11.0 to 13.9)`."""
    text = number(r["value"], r["metric"], signed)
    if r.get("low") is None or r.get("high") is None:
        return text
    low, high = (number(r[k], r["metric"], signed).removesuffix(" %") for k in ("low", "high"))
    return f"{text} ({low} to {high})"


def better(metric: str) -> str:
    """Which way is good, where there is one."""
    if metric.endswith(("mismatched", "strangers")):
        return ""
    if metric.startswith(
        ("agreement", "judge", "R@", "gain", "mAP", "nDCG", "precision", "recall", "density", "coverage", "cosine")
    ):
        return ", higher is better"
    return ", lower is better" if any(word in metric for word in LOWER) else ""


def by_metric(rows: Sequence[Row], signed: bool = False) -> list[FigureTable]:
    """A table for each metric (and dataset, subset): decoder and method down, task across."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        groups.setdefault((r.get("dataset"), r.get("subset"), r["metric"]), []).append(r)
    tables = []
    for (dataset, subset, metric), group in groups.items():
        columns = list(dict.fromkeys(column(r) for r in group))
        keys = list(dict.fromkeys(key(r) for r in group))
        found = {(key(r), column(r)): r for r in group}
        names = [n for n, used in (("decoder", any(k[0] for k in keys)), ("method", True)) if used]
        counts = sorted({r["n"] for r in group})
        of = f"N = {counts[0]}" if len(counts) == 1 else f"N = {counts[0]} to {counts[-1]}"
        extractor = next((f", {r['extractor']} after {r['resize']}" for r in group if r.get("extractor")), "")
        where = ", ".join(str(v) for v in (dataset, subset) if v and v != "all")
        title = f"{metric}{'' if signed else better(metric)}; {of}{extractor}{'; ' + where if where else ''}"
        body = [
            [*(k if len(names) == 2 else k[1:]), *(cell(found[k, c], signed) if (k, c) in found else "" for c in columns)]
            for k in keys
        ]
        tables.append(FigureTable(title, [*names, *columns], body))
    return tables


def key(r: Row) -> tuple[str, str]:
    return str(r.get("decoder") or ""), str(r["method"])


def column(r: Row) -> str:
    label = str(r.get("label") or "").partition(" ")[2]  # cosine, volume, and what was added to it
    return f"{r['task']} {label}".strip()


def of_published(table: dict[str, Any]) -> FigureTable:
    """A table of the paper."""
    heads = list(table["rows"][0])
    body = [[said(r[h]) for h in heads] for r in table["rows"]]
    return FigureTable(f"Published, table {table['number']}: {table['title']}", heads, body)


def said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def of_classes(rows: Sequence[Row]) -> list[FigureTable]:
    """Figures by class: one table a decoder and task, classes down, methods across."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        groups.setdefault((str(r.get("decoder") or ""), r["task"]), []).append(r)
    tables = []
    for (decoder, task), group in groups.items():
        metrics = [m for m in group[0] if m.startswith(("agreement", "judge top-1"))]
        methods = list(dict.fromkeys(r["method"] for r in group))
        found = {(r["class"], r["method"]): r for r in group}
        heads = ["class", "N", *(f"{m}, {metric}" for m in methods for metric in metrics)]
        body = []
        for name in dict.fromkeys(r["class"] for r in group):
            cells = [number(found[name, m].get(metric), metric) for m in methods for metric in metrics]
            body.append([name, str(found[name, methods[0]]["n"]), *cells])
        tables.append(FigureTable(f"By class: {decoder} {task}".strip(), heads, body))
    return tables


def charts(rows: Sequence[Row], most: int = 24) -> list[dict[str, Any]]:
    """Bars with intervals of the main metrics: a title, and of each bar its label, text, and lengths between 0 and 1."""
    found = []
    for metric in dict.fromkeys(r["metric"] for r in rows if r["metric"].startswith(CHARTED) and "infinity" not in r["metric"]):
        mine = [r for r in rows if r["metric"] == metric and r["value"] is not None and r.get("low") is not None][:most]
        top = max((r["high"] for r in mine), default=0.0)
        if top <= 0:
            continue
        bars = []
        for r in mine:
            low, value, high = (round(max(0.0, r[k]) / top, 4) for k in ("low", "value", "high"))
            label = " ".join(part for part in (*key(r), column(r)) if part)
            bars.append({"label": label[:52], "text": number(r["value"], metric), "low": low, "value": value, "high": high})
        found.append({"title": f"{metric}{better(metric)}", "bars": bars})
    return found
