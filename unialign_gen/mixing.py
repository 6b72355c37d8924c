"""Mixing of unit embeddings, and the scale contract between them and a decoder.

Contrastive training gives unit vectors; a decoder was trained on raw image embeddings of some typical norm; and the mean
of two unit vectors at angle t has norm cos(t / 2). So: mix on the unit sphere, return to it, then multiply by the
decoder's own `embed_norm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .notes import note

Method = Literal["lerp", "slerp", "spherical_mean"]
METHODS: tuple[Method, ...] = ("lerp", "slerp", "spherical_mean")
CANCELLED = 1e-4
STEPS, SETTLED = 2000, 1e-9  # of the spherical mean, in radians


def check_weights(weights: Sequence[float], count: int) -> list[float]:
    """The weights as finite floats, the largest of them 1 or -1: only their ratios count, and no sum of them overflows.

    Raises:
        InputError: their number is not `count`, one is not a finite number, or all are zero.
    """
    values = [float(w) for w in weights]
    if len(values) != count:
        raise InputError(f"{len(values)} weights for {count} prompts: give one weight for each")
    if not all(math.isfinite(w) for w in values):
        raise InputError(f"weights must be finite numbers, got {values}")
    if not any(values):
        raise InputError("all weights are zero: at least one prompt must count")
    largest = max(abs(w) for w in values)
    return [w / largest for w in values]


def check_embedding(embedding: Tensor) -> Tensor:
    """An embedding (..., d) as fp32 unit vectors.

    Raises:
        InputError: it holds NaN or infinity, or a zero vector, which has no direction.
    """
    embedding = embedding.float()
    if not torch.isfinite(embedding).all():
        raise InputError("an embedding holds NaN or infinite values")
    norm = embedding.norm(dim=-1, keepdim=True)
    if (norm < 1e-8).any():
        raise InputError("an embedding is a zero vector, which has no direction")
    return torch.where((norm - 1).abs() < 1e-6, embedding, embedding / norm)  # of norm 1 it stays what it is, bit for bit


def mix(embeddings: Sequence[Tensor], weights: Sequence[float] | None = None, method: Method = "lerp") -> Tensor:
    """Weighted mix of n embeddings, each (..., d), as unit vectors (..., d).

    Args:
        embeddings: any length above zero; they are normalised first, whatever their norm.
        weights: one a prompt, equal by default; only their ratios count.
        method: `lerp` adds up and renormalises, and is the one that takes negative weights (embedding arithmetic);
            `slerp` follows the great circle between exactly two (Shoemake 1985); `spherical_mean` minimises the
            weighted sum of squared angles of any number (Buss & Fillmore 2001), and for two equals `slerp`.

    Opposite vectors: `slerp` and `spherical_mean` turn through a fixed plane, so that the result is defined and
    repeatable; `lerp` cannot where the weighted sum vanishes.

    Raises:
        InputError: no embedding, shapes that differ, weights that do not fit (see `check_weights`), negative weights
            outside `lerp`, `slerp` of other than two, or a `lerp` that cancels out.
    """
    if not embeddings:
        raise InputError("nothing to mix: give at least one prompt")
    if len({e.shape for e in embeddings}) > 1:
        raise InputError(f"embeddings differ in shape: {[tuple(e.shape) for e in embeddings]}")
    if method not in METHODS:
        raise InputError(f"unknown mixing method {method!r}: choose from {', '.join(METHODS)}")
    values = check_weights([1.0] * len(embeddings) if weights is None else weights, len(embeddings))
    points = [check_embedding(e) for e in embeddings]
    if method == "lerp":
        return lerp(points, values)
    if min(values) < 0:
        raise InputError(f"{method} takes no negative weights: use lerp for embedding arithmetic")
    if method == "slerp":
        if len(points) != 2:
            raise InputError(f"slerp takes exactly two prompts, got {len(points)}: use spherical_mean or lerp")
        return slerp(points[0], points[1], values[1] / sum(values))
    return spherical_mean(points, values)


def lerp(points: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum of unit vectors, back on the sphere."""
    scale = sum(abs(w) for w in weights)
    total = torch.stack([p * (w / scale) for p, w in zip(points, weights, strict=True)]).sum(0)
    if (total.norm(dim=-1) < CANCELLED).any():
        raise InputError("the weighted prompts cancel out: change a weight")
    return check_embedding(total)


def perpendicular(point: Tensor) -> Tensor:
    """A unit vector at right angles to each row of (..., d), the same one for the same row every time."""
    axis = F.one_hot(point.abs().argmin(-1), point.shape[-1]).to(point)
    return F.normalize(axis - (axis * point).sum(-1, keepdim=True) * point, dim=-1)


def tangent(base: Tensor, point: Tensor) -> Tensor:
    """Logarithm map: the vector at `base` (..., d) that points along the great circle to `point`, as long as their angle.

    Opposite points get the direction of `perpendicular(base)`.
    """
    cosine = (base * point).sum(-1, keepdim=True)
    across = point - cosine * base
    sine = across.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, cosine)
    direction = torch.where((sine < 1e-6) & (cosine < 0), perpendicular(base), across / sine.clamp(min=1e-12))
    return direction * angle


def walk(base: Tensor, step: Tensor) -> Tensor:
    """Exponential map: from `base` (..., d) along the tangent vector `step`, by its length."""
    angle = step.norm(dim=-1, keepdim=True)
    return F.normalize(torch.cos(angle) * base + torch.sin(angle) * step / angle.clamp(min=1e-12), dim=-1)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The point a share `t` of the way from unit vectors `a` to `b` (..., d), at constant speed along the great circle."""
    return walk(a, tangent(a, b) * t)


def spherical_mean(points: Sequence[Tensor], weights: Sequence[float], steps: int = STEPS) -> Tensor:
    """Weighted Karcher mean of unit vectors (..., d), by the fixed-point iteration of Buss & Fillmore 2001.

    Starts at the heaviest point; a point opposite to the current mean pulls through the plane of `perpendicular`. Where it has
    not settled after `steps` a note says so, which happens where points stand almost opposite and no mean is clearly the best.
    """
    total = sum(weights)
    stack = torch.stack(list(points)).double()  # (n, ..., d)
    shares = stack.new_tensor([w / total for w in weights]).reshape(-1, *[1] * (stack.ndim - 1))
    mean = stack[max(range(len(points)), key=lambda i: weights[i])]
    for _ in range(steps):
        step = (tangent(mean, stack) * shares).sum(0)
        mean = walk(mean, step)
        if float(step.norm(dim=-1).max()) < SETTLED:
            break
    else:
        note("not settled", f"the spherical mean of {len(points)} prompts still moves after {steps} steps: they point apart")
    return mean.to(points[0].dtype)


def to_decoder(embedding: Tensor, embed_norm: float) -> Tensor:
    """Unit embeddings (..., d) at the norm that a decoder was trained on: the last step before a decoder, taken once."""
    if not embed_norm > 0:
        raise InputError(f"embed_norm must be positive, got {embed_norm}")
    return embedding * embed_norm


def path(a: Tensor, b: Tensor, frames: int, method: Method = "slerp") -> Tensor:
    """`frames` points (frames, d) from `a` to `b` (d,), both ends included.

    Raises:
        InputError: fewer than two frames, no whole number of them, or a bad mix.
    """
    if not isinstance(frames, Integral) or frames < 2:
        raise InputError(f"an interpolation needs a whole number of at least 2 frames, got {frames!r}")
    shares = [i / (frames - 1) for i in range(frames)]
    return torch.stack([mix([a, b], [1 - t, t], method) for t in shares])
