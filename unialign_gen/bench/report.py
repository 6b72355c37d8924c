"""A bench's results as rows with intervals, and as one page and one JSON file (`report.html`, `report.json`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.cache import FeatureCache
from ..eval import report, results
from ..eval.figures import Estimate, Row, bootstrap, row
from .config import BenchConfig


def write(config: BenchConfig) -> Path:
    """Writes the report of what is there; returns the bench's folder."""
    made = [{"protocol": "alignment bench", **of_dataset(config, name)} for name in config.datasets]
    found = [(config.out, result) for result in made if result["rows"]]
    report.write(found, config.out, "The alignment bench")
    return config.out


def read(path: Path) -> dict[str, list[Row]]:
    """The rows of a bench's `report.json` by data set."""
    joined = json.loads(path.read_text("utf-8"))
    return {r["about"]["dataset"]: results.unpacked(r["rows"]) for r in joined["results"]}


def of_dataset(config: BenchConfig, dataset: str) -> dict[str, Any]:
    """`about`, `rows` and paired `differences` from the reference, of one data set's finished objectives."""
    about: dict[str, Any] = {"dataset": dataset}
    rows: list[Row] = []
    differences: list[Row] = []
    paths = {name: config.result_path(dataset, name) for name in config.chosen(dataset)}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    about |= {f"left out: {name}": result["unusable"] for name, result in found.items() if "unusable" in result}
    for split in ("train", "validation", "test"):
        about[f"{split} samples"] = str(len(FeatureCache.open(config.out / "data" / dataset / split)))
    about |= {"seeds": str(config.seeds), "steps": str(config.steps), "batch": str(config.batch)}
    about |= {f"settings: {name}": searched(config, name, r) for name, r in found.items() if r.get("settings")}
    sizes = sorted({r["size"] for result in found.values() for r in result["runs"]}, key=lambda s: s or np.inf)
    for size in sizes:
        subset = "all" if size is None else f"{size} training samples"
        runs = {name: [r for r in result["runs"] if r["size"] == size] for name, result in found.items()}
        runs = {name: some for name, some in runs.items() if some}
        for name, some in runs.items():
            rows += rows_of(some, dataset=dataset, subset=subset, method=name)
            if config.reference in runs and name != config.reference:
                where = {"dataset": dataset, "subset": subset, "method": f"{name} - {config.reference}"}
                reference = averaged(runs[config.reference])
                differences += over_samples({k: x - reference[k] for k, x in averaged(some).items()}, **where)
    return {"about": about, "rows": rows, "differences": differences}


def searched(config: BenchConfig, name: str, result: dict[str, Any]) -> str:
    """What was tried, what was chosen, and the best score."""
    options = config.objectives[name].search
    tried = "; ".join(f"{option} of {', '.join(map(str, values))}" for option, values in options.items())
    chosen = ", ".join(f"{option} {value}" for option, value in result["settings"].items())
    scores = [t["score"] for t in result["trials"]]
    range_of = f"; {len(scores)} trials, validation score {min(scores):.3f} to {max(scores):.3f}" if scores else ""
    return f"{chosen} ({tried}{range_of})"


def averaged(runs: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Figures of each sample (n,), means over seeds."""
    return {key: np.mean([np.array(r["samples"][key], dtype=float) for r in runs], 0) for key in runs[0]["samples"]}


def over_samples(found: dict[str, np.ndarray], **about: Any) -> list[Row]:
    """Rows of figures by `metric|task` of each sample (n,)."""
    named = [(key.split("|"), x) for key, x in found.items()]
    return [row(metric, bootstrap(x), **about, task=task) for (metric, task), x in named]


def rows_of(runs: Sequence[dict[str, Any]], **about: Any) -> list[Row]:
    """Means over seeds; intervals over samples, or over seeds (1.96 standard errors) where a figure is of the whole space."""
    made = over_samples(averaged(runs), **about)
    groups = {"": [r["space"] | r["cost"] for r in runs]}
    groups |= {f", moved apart by {gap}": [r["moved"][gap] for r in runs] for gap in runs[0]["moved"]}
    for moved, each in groups.items():
        for key in each[0]:
            metric, _, task = key.partition("|")
            value = over_seeds([figures[key] for figures in each if key in figures])
            made.append(row(metric + moved, value, **about, task=task or "all"))
    return made


def over_seeds(values: Sequence[float]) -> Estimate:
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, n=1)
    error = 1.959964 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Estimate(mean, mean - error, mean + error, len(values))
