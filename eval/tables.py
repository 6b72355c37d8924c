"""Rows of figures as tables and charts for a person: methods down, tasks across, a number with its interval in each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from .figures import Row

SHARES = ("R@", "gain in R@", "mAP", "nDCG", "judge", "AIC", "AIS", "IIS", "class accuracy", "linear probe", "zero-shot")
PERCENT = (*SHARES, "precision", "recall", "coverage", "separability")
HIGHER = (*SHARES, "agreement", "precision", "recall", "density", "coverage", "cosine", "V-measure", "ARI")
LOWER = ("FID", "KID", "MIND", "distance", "gap", "median rank", "Hoelder", "alignment", "separability", "zeta", "chi")
CHARTED = ("FID", "Frechet distance", "judge top-1", "AIC", "R@1", "gap")  # the metrics that a page draws
GAPS, QUALITIES = ("gap", "Frechet gap, centred"), ("R@1", "judge top-1", "AIC", "FID", "Frechet distance", "V-measure")


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
    return f"{value:{plus}.{1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 4}f}"


def cell(r: Row, signed: bool = False) -> str:
    """`12.3 (11.0 to 13.9)`."""
    text = number(r["value"], r["metric"], signed)
    if r.get("low") is None or r.get("high") is None:
        return text
    low, high = (number(r[k], r["metric"], signed).removesuffix(" %") for k in ("low", "high"))
    return f"{text} ({low} to {high})"


def better(metric: str) -> str:
    """Which way is good, where there is one."""
    if metric.endswith(("mismatched", "strangers")):  # in results of the first edition
        return ""
    if metric.startswith(HIGHER):
        return ", higher is better"
    return ", lower is better" if any(word in metric for word in LOWER) else ""


def pivot(
    rows: Sequence[Row], down: Callable[[Row], tuple[str, ...]], across: Callable[[Row], str], show: Callable[[Row], str]
) -> tuple[list[str], list[list[str]]]:
    """Column heads, and rows of cells: what `down` and `across` say of each row, in the order of first appearance."""
    columns, found = list(dict.fromkeys(map(across, rows))), {(down(r), across(r)): r for r in rows}
    keys = dict.fromkeys(map(down, rows))
    return columns, [[*k, *(show(found[k, c]) if (k, c) in found else "" for c in columns)] for k in keys]


def by_metric(rows: Sequence[Row], signed: bool = False) -> list[FigureTable]:
    """A table for each metric (and dataset, subset): decoder and method down, task across."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        groups.setdefault((r.get("dataset"), r.get("subset"), r["metric"]), []).append(r)
    tables = []
    for (dataset, subset, metric), group in groups.items():
        names = ["decoder", "method"] if any(r.get("decoder") for r in group) else ["method"]
        columns, body = pivot(group, key if len(names) == 2 else lambda r: key(r)[1:], column, lambda r: cell(r, signed))
        counts = sorted({r["n"] for r in group if r.get("n")} or {0})
        of = f"N = {counts[0]}" if len(counts) == 1 else f"N = {counts[0]} to {counts[-1]}"
        extractor = next((f", {r['extractor']} after {r['resize']}" for r in group if r.get("extractor")), "")
        where = ", ".join(str(v) for v in (dataset, subset) if v and v != "all")
        title = f"{metric}{'' if signed else better(metric)}; {of}{extractor}{'; ' + where if where else ''}"
        tables.append(FigureTable(title, [*names, *columns], body))
    return tables


def key(r: Row) -> tuple[str, ...]:
    return str(r.get("decoder") or ""), str(r["method"])


def column(r: Row) -> str:
    label = str(r.get("label") or "").partition(" ")[2]  # cosine, volume, and what was added to it
    return f"{r['task']} {label}".strip()


def of_classes(rows: Sequence[Row]) -> list[FigureTable]:
    """Figures by class: one table a decoder and task, classes down, methods across."""
    groups: dict[str, list[Row]] = {}
    for r in rows:
        named = [{**r, "metric": m, "value": v} for m, v in r.items() if m.startswith(("agreement", "judge top-1", "AIC"))]
        groups.setdefault(f"{r.get('decoder') or ''} {r['task']}".strip(), []).extend(named)
    made = {
        name: pivot(group, lambda r: (r["class"], str(r["n"])), lambda r: f"{r['method']}, {r['metric']}", cell)
        for name, group in groups.items()
    }
    return [FigureTable(f"By class: {name}", ["class", "N", *columns], body) for name, (columns, body) in made.items()]


def of_published(table: dict[str, Any]) -> FigureTable:
    """A table of the paper."""
    heads = list(table["rows"][0])
    said = {None: "-", True: "yes", False: "no"}
    body = [[said[r[h]] if r[h] is None or isinstance(r[h], bool) else str(r[h]) for h in heads] for r in table["rows"]]
    return FigureTable(f"Published, table {table['number']}: {table['title']}", heads, body)


def published_rows(tables: Sequence[dict[str, Any]], rows: Sequence[Row]) -> list[Row]:
    """The paper's numbers of the same data and metrics as rows of one's own, marked as published; no others."""
    found: list[Row] = []
    for r in {(r.get("dataset"), r.get("subset"), r["metric"]): r for r in rows}.values():
        name, about = str(r.get("dataset") or "").lower(), {k: r.get(k) for k in ("dataset", "subset", "metric")}
        for table in tables:
            for p in table["rows"]:
                said: dict[str, float | None] = {}
                if r["metric"] == "FID" and table["number"] == 3 and "vggsound" in name:
                    said = {task: p[task] for task in ("T->I", "A->I", "(T+A)->I", "mean")}
                    about["decoder"] = p["decoder"]
                elif r["metric"] == "R@1" and table["number"] == 1:
                    target, score = p["modality"].partition("-")[2], "cosine" if p["modality"] == "T-V" else "volume"
                    about["label"] = f"{p['modality']} {score}"
                    for data, way in product(("MSR-VTT", "DiDeMo", "ActivityNet"), ("T2V", "V2T")):
                        value = p[f"{data} {way}"]
                        if data.lower().replace("-", "") in name and value is not None:
                            said[f"T->{target}" if way == "T2V" else f"{target}->T"] = value / 100
                made = [{**about, "task": task, "value": v} for task, v in said.items() if v is not None]
                found += [{"method": f"{p['method']} (published)", **m} for m in made]
    return found


def bars(rows: Sequence[Row], most: int = 24) -> list[dict[str, Any]]:
    """Bars with intervals of the main metrics: a title, and of each bar its label, text, and lengths between 0 and 1."""
    found = []
    for metric in dict.fromkeys(r["metric"] for r in rows if r["metric"].startswith(CHARTED) and "infinity" not in r["metric"]):
        mine = [r for r in rows if r["metric"] == metric and r["value"] is not None and r.get("low") is not None][:most]
        top = max((r["high"] for r in mine), default=0.0)
        if top <= 0:
            continue
        made = []
        for r in mine:
            low, value, high = (round(max(0.0, r[k]) / top, 4) for k in ("low", "value", "high"))
            label = " ".join(part for part in (*key(r), column(r)) if part)
            made.append({"label": label[:52], "text": number(r["value"], metric), "low": low, "value": value, "high": high})
        found.append({"title": f"{metric}{better(metric)}", "bars": made})
    return found


def plane(
    title: str, series: Mapping[str, Sequence[Sequence[float]]], x_name: str = "", lines: bool = False, ends: bool = True
) -> dict[str, Any]:
    """Points (x, y) of named series in a square of side 1, with the numbers at its ends; `lines` joins them."""
    every = np.array([p for points in series.values() for p in points], dtype=float)
    low, size = every.min(0), np.ptp(every, axis=0)
    scaled = {n: ((np.array(p) - low) / np.where(size > 0, size, 1)).round(4).tolist() for n, p in series.items()}
    x, y = ([f"{low[i]:.4g}", f"{low[i] + size[i]:.4g}"] if ends else ["", ""] for i in (0, 1))
    made = [{"name": name[:24], "points": points} for name, points in scaled.items()]
    return {"title": title, "x_name": x_name, "x": x, "y": y, "lines": lines, "series": made}


def gap_against_quality(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A point a method, where at least two have both a gap and a quality on one dataset: means over tasks."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for r in rows:
        metric = r["metric"].partition(" (")[0]  # in whichever features
        if metric in (*GAPS, *QUALITIES) and r["value"] is not None:
            found.setdefault((str(r.get("dataset")), metric), {}).setdefault(str(r["method"]), []).append(r["value"])
    charts = []
    for (dataset, gap), quality in product(found, QUALITIES):
        if gap in GAPS and (dataset, quality) in found:
            one, other = found[dataset, gap], found[dataset, quality]
            points = {m: [[float(np.mean(one[m])), float(np.mean(other[m]))]] for m in one if m in other}
            if len(points) > 1:
                charts.append(plane(f"{quality} by {gap}, means over tasks; {dataset}", points, gap))
    return charts
