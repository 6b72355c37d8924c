"""The figures and the answers of docs/bench.md, from the reports of the alignment bench.

    unialign-gen bench synthetic --set out=bench/synthetic
    unialign-gen bench starter --set out=bench/starter
    python benchmarks/bench_page.py bench/synthetic bench/starter

Writes docs/bench/*.svg, and what stands between the marks `<!-- answers -->` and `<!-- end -->` of docs/bench.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from unialign_gen.bench.measure import JOINT
from unialign_gen.bench.report import read
from unialign_gen.eval.figures import Row

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- answers -->", "<!-- end -->"
TOGETHER = "all modalities together"
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9, "axes.spines.top": False}
matplotlib.rcParams |= {"axes.spines.right": False, "legend.frameon": False}


def means(rows: Iterable[Row]) -> dict[str, float]:
    """By objective."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["method"], []).append(row["value"])
    return {method: float(np.mean(v)) for method, v in values.items()}


class Found:
    """The rows of all data sets, to be asked."""

    def __init__(self, folders: Sequence[Path]):
        self.rows = {name: rows for folder in folders for name, rows in read(folder / "report.json").items()}

    def some(self, *datasets: str) -> list[str]:
        """Those of the data sets that there are."""
        return [d for d in datasets if d in self.rows]

    def whole(self, dataset: str, metric: str) -> list[Row]:
        """The rows of a figure with all training samples."""
        rows = [r for r in self.rows[dataset] if (r["metric"], r["subset"]) == (metric, "all")]
        return [r for r in rows if r["value"] is not None]

    def of(self, dataset: str, metric: str, task: str | None = None) -> dict[str, float]:
        """The figure by objective; the mean over tasks where none is named."""
        return means(r for r in self.whole(dataset, metric) if task in (None, r["task"]))

    def pathways(self, dataset: str, metric: str) -> dict[str, float]:
        """The mean over the query's pathways, tasks `text, image` and so on."""
        return means(r for r in self.whole(dataset, metric) if ", " in r["task"] and "missing" not in r["task"])


def panels(
    name: str, titles: Sequence[str], size: tuple[float, float], legend: int = 0, **how: Any
) -> Iterator[tuple[Any, str]]:
    """The panels of a figure, side by side under their titles, to be drawn on; it is saved when all are."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False, **how)[0]
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title)
        yield axis, title
    axes[legend].legend(fontsize=7)
    (DOCS / "bench").mkdir(exist_ok=True)
    figure.savefig(DOCS / "bench" / f"{name}.svg", metadata={"Date": None, "Creator": None})


def table(intro: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, and what is said before it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return (f"{intro}\n\n" if intro else "") + "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


# The figures, and with them the tables that answer a question.


def objectives(found: Found) -> None:
    """R@1, labels and gap of every objective, a column of panels for each data set of three modalities."""
    datasets = found.some("equal", "unequal", "broken", "starter")
    names = sorted(found.pathways(datasets[0], "R@1"), key=lambda m: found.pathways(datasets[0], "R@1")[m])
    for axis, dataset in panels("objectives", datasets, (2.6 * len(datasets) + 1.2, 4.6), sharey=True):
        tables = {
            "R@1, pathways": (found.pathways(dataset, "R@1"), "o"),
            "R@1, centroid": (found.of(dataset, "R@1", "centroid"), "s"),
            "labels, all together": (found.of(dataset, "label precision", TOGETHER), "^"),
            "gap": (found.of(dataset, "gap"), "x"),
        }
        for label, (table, marker) in tables.items():
            there = [n for n in names if n in table]
            axis.plot([table[n] for n in there], [names.index(n) for n in there], marker, label=label, markersize=5)
        axis.set(yticks=range(len(names)), yticklabels=names)
        axis.grid(alpha=0.3)


def gap(found: Found) -> str:
    """What a gap that is put in afterwards does."""
    kinds = {
        "R@1, pathways": ("R@1", "all"),
        "labels, pathways": ("label precision", "all"),
        "labels, all together": ("label precision", TOGETHER),
        "pictures: judge top-5": ("judge top-5", None),
    }
    moved = ", moved apart by "
    gaps = {
        d: sorted({float(r["metric"].partition(moved)[2]) for r in rows if r["metric"].startswith(f"R@1{moved}")})
        for d, rows in found.rows.items()
    }

    def curve(dataset: str, metric: str, task: str | None) -> list[float]:
        """Means over objectives by gap; none where there are no pictures."""
        tables = [found.of(dataset, f"{metric}{moved}{g:g}", task) for g in gaps[dataset]]
        return [float(np.mean(list(t.values()))) for t in tables] if all(tables) else []

    datasets = [d for d in found.some("equal", "starter") if gaps[d]]
    for axis, dataset in panels("gap", datasets, (3.4 * len(datasets), 3), legend=-1):
        for label, kind in kinds.items():
            if values := curve(dataset, *kind):
                axis.plot(gaps[dataset], values, marker="o", markersize=4, label=label)
        axis.set(xlabel="moved apart by, after training", ylim=(0, None))
    rows = []
    for dataset, at in gaps.items():
        upto = [curve(dataset, *kind)[: sum(g <= 1 for g in at)] for kind in kinds.values()]
        rows.append([dataset, *(f"{100 * c[0]:.1f} % to {100 * c[-1]:.1f} %" if len(c) > 1 else "" for c in upto)])
    intro = "Means moved together, then apart by 1, all else the same (means over objectives; pictures: the reference alone):"
    return table(intro, ("data set", "R@1 of pathways", "labels, pathways", "labels together", "pictures, judge top-5"), rows)


def joint(found: Found) -> str:
    """What all modalities together gain over the best pathway alone, with intervals."""

    def gains(dataset: str, task: str) -> dict[str, list[float]]:
        """Value, low and high by objective."""
        rows = found.whole(dataset, "gain in R@1 over the best pathway alone")
        return {r["method"]: [r["value"], r["low"], r["high"]] for r in rows if r["task"] == task}

    datasets = found.some("equal", "unequal", "starter")
    names = list(gains(datasets[0], JOINT[0]))
    for axis, dataset in panels("joint", datasets, (2.8 * len(datasets) + 1.2, 4.4), sharey=True):
        for k, task in enumerate(JOINT):
            those = gains(dataset, task)
            value, low, high = np.array(list(those.values())).T
            places = [names.index(n) + 0.18 * (k - 1.5) for n in those]
            error = [value - low, high - value]
            axis.errorbar(value, places, xerr=error, fmt="os^D"[k], color=f"C{k}", markersize=3, label=task)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set(yticks=range(len(names)), yticklabels=names, xlabel="gain in R@1")
    rows = []
    for dataset in found.rows:
        cells = [dataset]
        for task in JOINT:
            if those := gains(dataset, task):
                value, low, high = np.array(list(those.values())).T
                counts = f"{(low > 0).sum()} gain, {(high < 0).sum()} lose, of {len(value)}"
                cells.append(f"{100 * value.mean():+.1f}; {counts}")
        if len(cells) > 1:
            rows.append(cells)
    intro = "Mean gain in R@1 in points, and how many objectives gain or lose with an interval that leaves 0 out:"
    return table(intro, ("data set", *JOINT), rows)


def predictors(found: Found) -> str:
    """R@1 against the distance of means, and against what remains without it."""
    kinds, rows = ("gap", "distribution gap"), []
    for axis, metric in panels("predictors", kinds, (6.4, 3), sharey=True):
        for dataset in found.rows:
            x, y = found.of(dataset, metric), found.pathways(dataset, "R@1")
            axis.plot([x[n] for n in x], [y[n] for n in x], "o", markersize=4, label=dataset)
        axis.set(ylabel="R@1, pathways")
    for dataset in found.rows:
        targets = found.pathways(dataset, "R@1"), found.of(dataset, "label precision", TOGETHER)
        cells = [dataset, str(len(targets[0]))]
        for y, metric in product(targets, kinds):
            x = found.of(dataset, metric)
            cells.append(f"{np.corrcoef(list(x.values()), [y[n] for n in x])[0, 1] ** 2:.2f}" if len(x) > 3 else "-")
        rows.append(cells)
    heads = ("R@1 by the gap", "by the distribution gap", "labels together by the gap", "by the distribution gap")
    return table("R squared over the objectives:", ("data set", "objectives", *heads), rows)


def conflicts(found: Found) -> str:
    """zeta, chi and the Hoelder divergence against the number of modalities, of data sets that differ in nothing else."""
    kinds, modalities = ("zeta", "chi", "Hoelder divergence"), {"two": 2, "equal": 3, "five": 5, "eight": 8}
    datasets = found.some(*modalities)
    at = [modalities[d] for d in datasets]
    tables = [[found.of(d, metric) for d in datasets] for metric in kinds]  # by metric and data set
    names = [n for n in tables[0][-1] if all(n in by_name for by_name in tables[0])]
    for (axis, _), those in zip(panels("conflicts", kinds, (9, 3)), tables, strict=True):
        for name in names:
            axis.plot(at, [by_name[name] for by_name in those], marker="o", markersize=4, label=name)
        axis.set(xlabel="modalities", xticks=at)
    head = [" / ".join(kinds), *(f"M = {m}" for m in at)]
    rows = [[n, *(" / ".join(f"{each[n]:.3f}" for each in those) for those in zip(*tables, strict=True))] for n in names]
    return table("At the anchor, temperature 0.07 and bandwidth 0.3 for all:", head, rows)


def following(found: Found) -> str:
    rows = []
    for dataset, metric in product(found.rows, ("Hoelder divergence", "Frechet distance")):
        x, y = found.of(dataset, "gap"), found.of(dataset, metric)
        shared = [n for n in x if n in y]
        if len(shared) > 3:
            rank = spearmanr([x[n] for n in shared], [y[n] for n in shared])
            rows.append([dataset, metric, str(len(shared)), f"{rank.statistic:+.2f}", f"{rank.pvalue:.2f}"])
    return table("", ("data set", "against the gap", "objectives", "rank correlation", "p"), rows)


SECTIONS: dict[str, tuple[Callable[[Found], str], str]] = {
    "Does a gap matter for groups and generation, and not for retrieval?": (gap, "gap"),
    "Do modalities together find more than the best alone?": (joint, "joint"),
    "Which gap predicts?": (predictors, "predictors"),
    "Do zeta, chi and the Hoelder divergence fall?": (conflicts, "conflicts"),
    "Do the Hoelder and the Frechet distance follow the gap?": (following, ""),
}


def main(reports: Annotated[list[Path], typer.Argument(help="Folders of benches.")]) -> None:
    found = Found(reports)
    objectives(found)
    parts = [f"![Every objective: R@1, labels, gap](bench/objectives.svg)\n\nData sets: {', '.join(found.rows)}."]
    for title, (tell, figure) in SECTIONS.items():
        parts += [f"### {title}", tell(found), *([f"![{title}](bench/{figure}.svg)"] if figure else [])]
    page = DOCS / "bench.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    typer.run(main)
