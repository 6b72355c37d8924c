"""Kernel distances between two sets of features: the squared maximum mean discrepancy (MMD), and KID and CMMD made of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unialign_gen.deprecated import renamed
from unialign_gen.errors import InputError

from .moments import check_features
from .prdc import squared_distances

ROWS = 2048


def polynomial_kernel(dots: Tensor, width: int) -> Tensor:
    """KID's kernel (x.y / d + 1)^3, (n, m), from dot products (n, m) of features `width` wide."""
    return (dots / width + 1) ** 3


def squared_mmd(kxx: Tensor, kxy: Tensor, kyy: Tensor) -> float:
    """Unbiased squared MMD (Gretton et al. 2012, eq 3) from kernel matrices (n, n), (n, m), (m, m); can be below 0."""
    n, m = kxy.shape
    within_x = (kxx.sum() - kxx.trace()) / (n * (n - 1))
    within_y = (kyy.sum() - kyy.trace()) / (m * (m - 1))
    return float(within_x + within_y - 2 * kxy.mean())


def kid(x: Tensor, y: Tensor, subsets: int = 100, subset_size: int | None = 1000, seed: int = 2020) -> tuple[float, float]:
    """KID (Binkowski et al. 2018, arXiv 1801.01401) of features (N, d) and (M, d): mean and deviation over subsets, fp64.

    Args:
        subset_size: the same rows that torch-fidelity draws with this seed; None takes all rows once, and the deviation is 0.

    Raises:
        InputError: a subset is larger than a set or smaller than 2, or features are not finite.

    Example:
        >>> x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
        >>> mean, deviation = kid(x, x + 1, subsets=10, subset_size=30)
        >>> mean > 5 * deviation
        True
    """
    check_features(x, y)
    if subset_size is not None and not 2 <= subset_size <= min(len(x), len(y)):
        raise InputError(f"subsets of {subset_size} do not fit sets of {len(x)} and {len(y)}: give 2 to {min(len(x), len(y))}")
    x, y, rng = x.double(), y.double(), np.random.RandomState(seed)
    found = []
    for _ in range(1 if subset_size is None else subsets):
        a, b = (s if subset_size is None else s[rng.choice(len(s), subset_size, replace=False)] for s in (x, y))
        found.append(squared_mmd(*(polynomial_kernel(p @ q.T, x.shape[1]) for p, q in ((a, a), (a, b), (b, b)))))
    return float(np.mean(found)), float(np.std(found))


def cmmd(x: Tensor, y: Tensor, sigma: float = 10.0, scale: float = 1000.0) -> float:
    """CMMD (Jayasumana et al. 2024, arXiv 2401.09603): `scale` times the biased squared MMD under exp(-|x - y|^2 / 2 sigma^2).

    The published numbers are of unit embeddings of CLIP ViT-L/14 at 336 pixels; rows (N, d) and (M, d) are used as they are.
    fp64, in blocks of rows. At least 0; two samples of one law of n rows are about scale / n * tr(cov) / sigma^2 apart.

    Raises:
        InputError: fewer than two rows, or features that are not finite.

    Example:
        >>> x = torch.eye(4)
        >>> cmmd(x, x)
        0.0
        >>> round(cmmd(x, -x), 2)
        9.9
    """
    check_features(x, y)
    x, y = x.double(), y.double()
    return max(0.0, scale * (mean_kernel(x, x, sigma) + mean_kernel(y, y, sigma) - 2 * mean_kernel(x, y, sigma)))


def mean_kernel(x: Tensor, y: Tensor, sigma: float) -> float:
    """Mean of the Gaussian kernel over all pairs of rows (N, d) and (M, d)."""
    total = sum(float(torch.exp(-squared_distances(part, y) / (2 * sigma**2)).sum()) for part in x.split(ROWS))
    return total / (len(x) * len(y))


__getattr__ = renamed(__name__, {"cubic": "polynomial_kernel", "mmd": "squared_mmd", "kernel_distance": "kid"})
