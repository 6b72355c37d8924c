"""Squared geodesic distance from squared chord, with finite slopes everywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SERIES_BELOW = 1e-2  # of the squared chord: four terms are exact to 1e-11 there
END = 1e-6  # 1 - (chord / 2)^2 is held above this: at antipodal points the slope is infinite


def squared_angle(chord2: Tensor) -> Tensor:
    """arccos(<a, b>)^2 (eq 14) from q = |a - b|^2 in [0, 4], as 4 arcsin(sqrt(q) / 2)^2; near 0 by its series."""
    q = chord2.clamp(0, 4)
    series = q * (1 + q * (1 / 12 + q * (1 / 90 + q / 560)))
    return torch.where(q < SERIES_BELOW, series, 4 * (q.sqrt() / 2).clamp(max=1).asin().square())


def angle_slope(chord2: Tensor) -> Tensor:
    """d(angle^2) / dq: 1 at q = 0, rising to a guarded maximum at q = 4."""
    q = chord2.clamp(0, 4)
    series = 1 + q * (1 / 6 + q * (1 / 30 + q / 140))
    safe = q.clamp(min=SERIES_BELOW)
    half = safe.sqrt() / 2
    slope = half.clamp(max=1).asin() / (half * (1 - half.square()).clamp(min=END).sqrt())
    return torch.where(q < SERIES_BELOW, series, slope)


class _SquaredAngle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chord2: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(chord2)
        return squared_angle(chord2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad * angle_slope(ctx.saved_tensors[0])


def squared_geodesic(chord2: Tensor) -> Tensor:
    """Squared geodesic distance (...) from the squared chord, in [0, pi^2]; differentiable everywhere."""
    return _SquaredAngle.apply(chord2)
