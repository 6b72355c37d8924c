"""The figures and the answers of docs/bench.md, from the reports of the alignment bench.

    unialign-gen bench synthetic --set out=bench/synthetic
    unialign-gen bench starter --set out=bench/starter
    python benchmarks/bench_page.py bench/synthetic bench/starter

Writes docs/bench/*.svg, and what stands between the marks `<!-- answers -->` and `<!-- end -->` of docs/bench.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
        self.datasets = list(self.rows)

    def whole(self, dataset: str, metric: str) -> list[Row]:
        """The rows of a figure with all training samples."""
        rows = [r for r in self.rows.get(dataset, ()) if (r["metric"], r["subset"]) == (metric, "all")]
        return [r for r in rows if r["value"] is not None]

    def of(self, dataset: str, metric: str, task: str | None = None) -> dict[str, float]:
        """The figure by objective; the mean over tasks where none is named."""
        return means(r for r in self.whole(dataset, metric) if task in (None, r["task"]))

    def intervals(self, dataset: str, metric: str, task: str) -> dict[str, tuple[float, float, float]]:
        rows = [r for r in self.whole(dataset, metric) if r["task"] == task]
        return {r["method"]: (r["value"], r["low"], r["high"]) for r in rows}

    def pathways(self, dataset: str, metric: str) -> dict[str, float]:
        """The mean over the query's pathways, tasks `text, image` and so on."""
        return means(r for r in self.whole(dataset, metric) if ", " in r["task"] and "missing" not in r["task"])

    def modalities(self, dataset: str) -> int:
        return 1 + len({r["task"] for r in self.rows[dataset] if r["metric"] == "label precision" and ", " in r["task"]})


def by_modalities(found: Found) -> list[str]:
    """The data sets that differ in nothing but their number of modalities."""
    return sorted((d for d in ("two", "equal", "five", "eight") if d in found.rows), key=found.modalities)


def gaps_of(found: Found, dataset: str) -> list[float]:
    mark = "R@1, moved apart by "
    return sorted({float(r["metric"].removeprefix(mark)) for r in found.rows[dataset] if r["metric"].startswith(mark)})


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


# Figures.


def objectives_figure(found: Found) -> None:
    """R@1, labels and gap of every objective, a column of panels for each data set of three modalities."""
    datasets = [d for d in ("equal", "unequal", "broken", "starter") if d in found.rows]
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


def gap_figure(found: Found) -> None:
    """What a gap that is put in afterwards does."""
    datasets = [d for d in ("equal", "starter") if d in found.rows and gaps_of(found, d)]
    for axis, dataset in panels("gap", datasets, (3.4 * len(datasets), 3), legend=-1):
        at = gaps_of(found, dataset)
        for metric, label, task in (
            ("R@1", "R@1, pathways", "all"),
            ("label precision", "labels, pathways", "all"),
            ("label precision", "labels, all together", TOGETHER),
            ("judge top-5", "pictures: judge top-5", None),
        ):
            tables = [found.of(dataset, f"{metric}, moved apart by {g:g}", task) for g in at]
            if all(tables):
                axis.plot(at, [np.mean(list(t.values())) for t in tables], marker="o", markersize=4, label=label)
        axis.set(xlabel="moved apart by, after training", ylim=(0, None))


def joint_figure(found: Found) -> None:
    """What all modalities together gain over the best pathway alone, with intervals."""
    datasets = [d for d in ("equal", "unequal", "starter") if d in found.rows]
    metric = "gain in R@1 over the best pathway alone"
    names = list(found.intervals(datasets[0], metric, JOINT[0]))
    for axis, dataset in panels("joint", datasets, (2.8 * len(datasets) + 1.2, 4.4), sharey=True):
        for k, task in enumerate(JOINT):
            table = found.intervals(dataset, metric, task)
            for n in table:
                value, low, high = table[n]
                error = [[value - low], [high - value]]
                place = names.index(n) + 0.18 * (k - 1.5)
                label = task if n == next(iter(table)) else None
                axis.errorbar(value, place, xerr=error, fmt="os^D"[k], color=f"C{k}", markersize=3, label=label)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set(yticks=range(len(names)), yticklabels=names, xlabel="gain in R@1")


def conflicts_figure(found: Found) -> None:
    """zeta, chi with its bound, and the Hoelder divergence against the number of modalities."""
    datasets = by_modalities(found)
    at = [found.modalities(d) for d in datasets]
    shared = set.intersection(*(set(found.of(d, "zeta")) for d in datasets))
    for axis, metric in panels("conflicts", ("zeta", "chi", "Hoelder divergence"), (9, 3)):
        for name in [n for n in found.of(datasets[0], "zeta") if n in shared]:
            axis.plot(at, [found.of(d, metric)[name] for d in datasets], marker="o", markersize=4, label=name)
        axis.set(xlabel="modalities", xticks=at)


def predictors_figure(found: Found) -> None:
    """R@1 against the distance of means, and against what remains without it."""
    for axis, metric in panels("predictors", ("gap", "distribution gap"), (6.4, 3), sharey=True):
        for dataset in found.datasets:
            x, y = found.of(dataset, metric), found.pathways(dataset, "R@1")
            axis.plot([x[n] for n in x], [y[n] for n in x], "o", markersize=4, label=dataset)
        axis.set(ylabel="R@1, pathways")


# Answers.


def table(intro: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, and what is said before it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return (f"{intro}\n\n" if intro else "") + "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def about_gap(found: Found) -> str:
    rows = []
    for dataset in found.datasets:
        cells, at = [dataset], [g for g in gaps_of(found, dataset) if g <= 1]
        for metric, task in (("R@1", "all"), ("label precision", "all"), ("label precision", TOGETHER), ("judge top-5", None)):
            ends = [found.of(dataset, f"{metric}, moved apart by {g:g}", task).values() for g in at[:1] + at[1:][-1:]]
            both = len(ends) > 1 and all(ends)
            cells.append(" to ".join(f"{100 * np.mean(list(end)):.1f} %" for end in ends) if both else "")
        rows.append(cells)
    intro = "Means moved together, then apart by 1, all else the same (means over objectives; pictures: the reference alone):"
    return table(intro, ("data set", "R@1 of pathways", "labels, pathways", "labels together", "pictures, judge top-5"), rows)


def about_joint(found: Found) -> str:
    metric, rows = "gain in R@1 over the best pathway alone", []
    for dataset in found.datasets:
        cells = [dataset]
        for task in JOINT:
            if gains := list(found.intervals(dataset, metric, task).values()):
                below, above = sum(high < 0 for _, _, high in gains), sum(low > 0 for _, low, _ in gains)
                mean = np.mean([value for value, _, _ in gains])
                cells.append(f"{100 * mean:+.1f}; {above} gain, {below} lose, of {len(gains)}")
        if len(cells) > 1:
            rows.append(cells)
    intro = "Mean gain in R@1 in points, and how many objectives gain or lose with an interval that leaves 0 out:"
    return table(intro, ("data set", *JOINT), rows)


def about_predictors(found: Found) -> str:
    rows = []
    for dataset in found.datasets:
        y = found.pathways(dataset, "R@1")
        together = found.of(dataset, "label precision", TOGETHER)
        cells = [dataset, str(len(y))]
        for target in (y, together):
            for metric in ("gap", "distribution gap"):
                x = found.of(dataset, metric)
                cells.append(f"{np.corrcoef(list(x.values()), [target[n] for n in x])[0, 1] ** 2:.2f}" if len(x) > 3 else "-")
        rows.append(cells)
    targets = ("R@1 by the gap", "by the distribution gap", "labels together by the gap", "by the distribution gap")
    return table("R squared over the objectives:", ("data set", "objectives", *targets), rows)


def about_conflicts(found: Found) -> str:
    datasets = by_modalities(found)
    names = [n for n in found.of(datasets[-1], "zeta") if all(n in found.of(d, "zeta") for d in datasets)]
    head = ["zeta / chi / Hoelder divergence", *(f"M = {found.modalities(d)}" for d in datasets)]
    rows = [
        [n, *(" / ".join(f"{found.of(d, m)[n]:.3f}" for m in ("zeta", "chi", "Hoelder divergence")) for d in datasets)]
        for n in names
    ]
    return table("At the anchor, temperature 0.07 and bandwidth 0.3 for all:", head, rows)


def about_following(found: Found) -> str:
    rows = []
    for dataset in found.datasets:
        x = found.of(dataset, "gap")
        for metric in ("Hoelder divergence", "Frechet distance"):
            y = found.of(dataset, metric)
            shared = [n for n in x if n in y]
            if len(shared) > 3:
                rank = spearmanr([x[n] for n in shared], [y[n] for n in shared])
                rows.append([dataset, metric, str(len(shared)), f"{rank.statistic:+.2f}", f"{rank.pvalue:.2f}"])
    return table("", ("data set", "against the gap", "objectives", "rank correlation", "p"), rows)


SECTIONS: dict[str, tuple[Callable[[Found], str], str]] = {
    "Does a gap matter for groups and generation, and not for retrieval?": (about_gap, "gap"),
    "Do modalities together find more than the best alone?": (about_joint, "joint"),
    "Which gap predicts?": (about_predictors, "predictors"),
    "Do zeta, chi and the Hoelder divergence fall?": (about_conflicts, "conflicts"),
    "Do the Hoelder and the Frechet distance follow the gap?": (about_following, ""),
}


def main(reports: Annotated[list[Path], typer.Argument(help="Folders of benches.")]) -> None:
    found = Found(reports)
    for draw in (objectives_figure, gap_figure, joint_figure, conflicts_figure, predictors_figure):
        draw(found)
    parts = [f"![Every objective: R@1, labels, gap](bench/objectives.svg)\n\nData sets: {', '.join(found.datasets)}."]
    for title, (tell, figure) in SECTIONS.items():
        parts += [f"### {title}", tell(found), *([f"![{title}](bench/{figure}.svg)"] if figure else [])]
    page = DOCS / "bench.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    typer.run(main)
