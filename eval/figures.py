"""Measured numbers: how sure one can be of them, and as flat rows, which tables, CSV and JSON are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

Row = dict[str, Any]
DIMENSIONS = ("dataset", "checkpoint", "decoder", "method", "task", "subset", "label", "metric")  # in the order of columns
BLOCK = 2**18  # clips drawn at a time


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, which is NaN where there is none, and what it is a mean of."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


def bootstrap(
    values: Sequence[float] | np.ndarray, weights: np.ndarray | None = None, times: int = 2000, seed: int = 0
) -> Estimate:
    """A mean over clips with Efron's percentile interval (1979): clips are drawn anew, with repetition.

    Of two methods' differences clip by clip it is the paired interval.

    Args:
        values: one a clip; NaN marks clips that have none, they are left out.
        weights: how much each counts, such as a clip's number of queries; equal by default.
    """
    found = np.asarray(values, dtype=np.float64)
    heavy = np.ones(len(found)) if weights is None else np.asarray(weights, dtype=np.float64)
    heavy, found = heavy[~np.isnan(found)], found[~np.isnan(found)]
    if not len(found):
        return Estimate(math.nan)
    rng = np.random.default_rng(seed)
    means = []
    for part in range(0, times, max(1, BLOCK // len(found))):
        at = rng.integers(0, len(found), (min(times - part, max(1, BLOCK // len(found))), len(found)))  # (times, clips)
        means.append((found * heavy)[at].sum(1) / heavy[at].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Estimate(float((found * heavy).sum() / heavy.sum()), float(low), float(high), int(heavy.sum()))


def halves(count: int, times: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`times` random halves (count // 2,) of the numbers below `count`; the same ones for every method, which pairs them."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        yield np.sort(rng.permutation(count)[: count // 2])


def from_halves(
    value: float, replicates: Sequence[float] | np.ndarray, count: int, low: float = -math.inf, high: float = math.inf
) -> Estimate:
    """The delete-half jackknife (Shao & Wu 1989): value +- 1.96 standard errors, from the same statistic on `halves`.

    For distances between distributions. Drawing with repetition would repeat pictures, which lowers the rank of their
    covariance and so moves every replicate away from the value; halves are moved too, all alike, which the spread does not see.
    The interval is cut to what the number can be, `low` to `high`. Without replicates it is NaN.
    """
    if not len(replicates):
        return Estimate(value, n=count)
    half = count // 2
    error = 1.959964 * float(np.std(replicates)) * math.sqrt(half / max(1, count - half))
    return Estimate(value, max(low, value - error), min(high, value + error), count)


def row(metric: str, estimate: Estimate, **dimensions: Any) -> Row:
    """One figure. `dimensions` say of what: dataset, method, task, decoder ..."""
    return {**dimensions, "metric": metric, **vars(estimate)}


Values = Mapping[str, Mapping[tuple[str, str], np.ndarray]]  # method -> (task, metric) -> what a figure is made of


def tabulate(values: Values, estimate: Callable[[str, np.ndarray], Estimate], **dimensions: Any) -> dict[str, list[Row]]:
    """`rows` of every method, and `differences` between each two of them on the same clips; what has no value is left out.

    Args:
        estimate: of a metric, from numbers that can be subtracted, such as one a clip, or a whole and its halves.
    """
    differences = {
        f"{a} - {b}": {k: x - values[b][k] for k, x in values[a].items() if k in values[b]} for a, b in combinations(values, 2)
    }
    out: dict[str, list[Row]] = {}
    for name, groups in (("rows", values), ("differences", differences)):
        made = [
            row(metric, estimate(metric if name == "rows" else "", x), **dimensions, method=method, task=task)
            for method, found in groups.items()
            for (task, metric), x in found.items()
        ]
        out[name] = [r for r in made if not math.isnan(r["value"])]
    return out


def clean(value: Any) -> Any:
    """A copy that JSON can hold: NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
