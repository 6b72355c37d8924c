"""Frechet distance of two Gaussians fitted to features (Dowson & Landau 1982), called FID on Inception's (Heusel et al. 2017).

    d = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

The last trace is the sum of the roots of S1 S2's eigenvalues, a symmetric-definite problem where S2 is not singular; and it is
the sum of the singular values of F1^T F2, F F^T = S any factor of a covariance: Cholesky's, or the centred features over
sqrt(n - 1) themselves. Nothing is complex or NaN, and fewer samples than features cost less, not more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from scipy.stats import linregress
from torch import Tensor
from torch.linalg import matrix_norm

from unialign_gen.deprecated import renamed
from unialign_gen.errors import InputError

from .moments import FeatureSource, Moments, check_features, moments

SMALLEST = 1e-14  # share of the largest eigenvalue below which the root of one is no longer exact


def frechet_distance(x: Tensor | Moments, y: Tensor | Moments) -> float:
    """Of features (N, d) and (M, d), of statistics of them, or of one of each; at least 0.

    Of two sets of features by whichever factors are smaller: with fewer rows than columns their covariances are never made.

    Raises:
        InputError: statistics of different extractors or resizes, fewer than two rows, or features that are not finite.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(x, x + 2), 6)  # the same covariance: |shift|^2
        12.0
    """
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        check_features(x, y)
        if min(len(x), len(y)) <= x.shape[1]:
            (mx, fx), (my, fy) = feature_factor(x), feature_factor(y)
            return distance(mx, my, fx.square().sum(), fy.square().sum(), matrix_norm(fx.T @ fy, "nuc"))
        x = moments([x], FeatureSource("", ""))
    a = x if isinstance(x, Moments) else moments([x], y.source)  # type: ignore[union-attr]
    b = y if isinstance(y, Moments) else moments([y], a.source)
    a.check_comparable(b)
    return distance(a.mean, b.mean, a.cov.trace(), b.cov.trace(), root_trace(a.cov, b.cov))


def distance(m1: Tensor, m2: Tensor, trace1: Tensor, trace2: Tensor, root: Tensor | float) -> float:
    """From means (d,), traces of the covariances and tr (S1 S2)^(1/2)."""
    return max(0.0, float((m1 - m2).square().sum() + trace1 + trace2 - 2 * root))


def root_trace(s1: Tensor, s2: Tensor) -> Tensor | float:
    """tr (S1 S2)^(1/2) of covariances (d, d)."""
    try:
        values = scipy.linalg.eigvalsh(s1.cpu().numpy(), s2.cpu().numpy(), type=2)  # of S1 S2, ascending
    except np.linalg.LinAlgError:  # S2 is singular
        values = np.zeros(1)
    if values[0] > SMALLEST * values[-1]:
        return float(np.sqrt(values).sum())
    return matrix_norm(factor(s1).T @ factor(s2), "nuc")


def factor(cov: Tensor) -> Tensor:
    """F (d, r) with F F^T = cov (d, d): Cholesky's, or by eigenvectors where fewer samples than features leave it singular."""
    lower, info = torch.linalg.cholesky_ex(cov)
    diagonal = lower.diagonal()
    if int(info) == 0 and float(diagonal.min()) ** 2 > len(cov) * torch.finfo(cov.dtype).eps * float(diagonal.max()) ** 2:
        return lower
    values, vectors = torch.linalg.eigh(cov)
    keep = values > len(cov) * torch.finfo(cov.dtype).eps * values[-1].clamp(min=0)
    return vectors[:, keep] * values[keep].sqrt()


def feature_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and a factor (d, min(N, d)) of the unbiased covariance of features (N, d), fp64."""
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    if len(x) > x.shape[1]:
        return mean, factor(centred.T @ centred / (len(x) - 1))  # (d, d)
    return mean, centred.T / max(1, len(x) - 1) ** 0.5  # (d, N)


class Extrapolation(NamedTuple):
    """A distance extrapolated to infinitely many pictures.

    value: the intercept; error: its standard error in the fit, which does not know that the subsets share pictures;
    slope: of the distance in 1/N; points: the (N, distance) fitted.
    """

    value: float
    error: float
    slope: float
    points: list[tuple[int, float]]


def frechet_infinity(x: Tensor, y: Tensor, points: int = 15, smallest: float = 0.5, seed: int = 0) -> Extrapolation:
    """Chong & Forsyth 2020 (arXiv 1911.07023): the distance is linear in 1/N, so its value at 1/N = 0 has no bias from N.

    Args:
        x: features (N, d) of the pictures to judge; subsets without repetition are drawn from them.
        y: features (M, d) of the reference, which stays whole: its own size still biases the result.
        points: how many subset sizes, evenly spaced up to N.
        smallest: the first of them, as a share of N.

    Raises:
        InputError: fewer than 8 pictures, or features that are not finite.

    Example:
        >>> x = torch.randn(4060, 8, generator=torch.Generator().manual_seed(0))
        >>> frechet_infinity(x[:60], x[60:]).value < frechet_distance(x[:60], x[60:])
        True
    """
    check_features(x, y)
    if len(x) < 8:
        raise InputError(f"at least 8 pictures are needed to extrapolate, got {len(x)}")
    mean, reference = feature_factor(y)
    trace = reference.square().sum()
    x = x.double()
    projected = x @ reference  # (N, r)
    rng = np.random.RandomState(seed)
    found = []
    for size in np.unique(np.linspace(smallest * len(x), len(x), points).round().astype(int)).tolist():
        picked = torch.from_numpy(rng.permutation(len(x))[:size])
        part, cross = x[picked], projected[picked]
        middle = part.mean(0)
        spread = (part - middle).square().sum() / (size - 1)
        centred = cross - cross.mean(0)  # (size, r)
        small = centred if size <= cross.shape[1] else torch.linalg.qr(centred, mode="r").R  # of the same singular values
        root = matrix_norm(small, "nuc") / (size - 1) ** 0.5
        found.append((size, distance(middle, mean, spread, trace, root)))
    fit = linregress([1 / n for n, _ in found], [d for _, d in found])
    return Extrapolation(float(fit.intercept), float(fit.intercept_stderr), float(fit.slope), found)


__getattr__ = renamed(__name__, {"frechet_of_features": "frechet_distance", "Infinity": "Extrapolation"})
