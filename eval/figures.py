"""A measured number with everything that belongs to it, as one flat row: what tables, CSV and JSON are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from .intervals import Estimate

Row = dict[str, Any]
DIMENSIONS = ("dataset", "checkpoint", "decoder", "method", "task", "subset", "label", "metric")  # in the order of columns


def row(metric: str, estimate: Estimate, n: int, **dimensions: Any) -> Row:
    """One figure. `dimensions` say of what: dataset, method, task, decoder ..."""
    return {**dimensions, "metric": metric, "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": n}


def plain(value: float) -> Estimate:
    """A number that has no interval."""
    return Estimate(value, math.nan, math.nan)


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which methods are compared: each with each, once."""
    return list(combinations(names, 2))


def clean(value: Any) -> Any:
    """A copy that JSON can hold: NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
