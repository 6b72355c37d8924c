"""How sure a number is: intervals of shares, of means over clips, and of distances between sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 2**18  # clips drawn at a time


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share `hits / n`, 95 %; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


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
        return Estimate(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    means = []
    for part in range(0, times, max(1, BLOCK // len(found))):
        at = rng.integers(0, len(found), (min(times - part, max(1, BLOCK // len(found))), len(found)))  # (times, clips)
        means.append((found * heavy)[at].sum(1) / heavy[at].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Estimate(float((found * heavy).sum() / heavy.sum()), float(low), float(high))


def halves(count: int, times: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`times` random halves (count // 2,) of the numbers below `count`; the same ones for every method, which pairs them."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        yield np.sort(rng.permutation(count)[: count // 2])


def from_halves(
    value: float, replicates: Sequence[float], count: int, low: float = -math.inf, high: float = math.inf
) -> Estimate:
    """The delete-half jackknife (Shao & Wu 1989): value +- 1.96 standard errors, from the same statistic on `halves`.

    For distances between distributions. Drawing with repetition would repeat pictures, which lowers the rank of their
    covariance and so moves every replicate away from the value; halves are moved too, all alike, which the spread does not see.
    The interval is cut to what the number can be, `low` to `high`. Without replicates it is NaN.
    """
    if not len(replicates):
        return Estimate(value, math.nan, math.nan)
    half = count // 2
    error = float(np.std(replicates)) * math.sqrt(half / max(1, count - half))
    return Estimate(value, max(low, value - 1.959964 * error), min(high, value + 1.959964 * error))
