"""Kernel distances between two sets of features: KID, and the squared MMD it is an estimate of.

KID (Binkowski et al. 2018, arXiv 1801.01401) is the unbiased squared MMD under k(x, y) = (x.y / d + 1)^3. Kernels are functions
of dot products, so that resampling needs no second pass over the features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unialign_gen.deprecated import renamed
from unialign_gen.errors import InputError

from .moments import check_features


def polynomial_kernel(dots: Tensor, width: int) -> Tensor:
    """(n, m) values of the kernel from dot products (n, m) of features `width` wide."""
    return (dots / width + 1) ** 3


def squared_mmd(kxx: Tensor, kxy: Tensor, kyy: Tensor) -> float:
    """Unbiased squared MMD (Gretton et al. 2012, eq 3) from kernel matrices (n, n), (n, m), (m, m); can be below 0."""
    n, m = kxy.shape
    within_x = (kxx.sum() - kxx.trace()) / (n * (n - 1))
    within_y = (kyy.sum() - kyy.trace()) / (m * (m - 1))
    return float(within_x + within_y - 2 * kxy.mean())


def kid(x: Tensor, y: Tensor, subsets: int = 100, subset_size: int | None = 1000, seed: int = 2020) -> tuple[float, float]:
    """KID of features (N, d) and (M, d): mean and standard deviation over random subsets, fp64.

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
    if subset_size is None:
        rows_x, rows_y = [np.arange(len(x))], [np.arange(len(y))]
    elif not 2 <= subset_size <= min(len(x), len(y)):
        raise InputError(f"subsets of {subset_size} do not fit sets of {len(x)} and {len(y)}: give 2 to {min(len(x), len(y))}")
    else:
        rng = np.random.RandomState(seed)
        rows_x, rows_y = [], []
        for _ in range(subsets):
            rows_x.append(rng.choice(len(x), subset_size, replace=False))
            rows_y.append(rng.choice(len(y), subset_size, replace=False))
    found = []
    for i, j in zip(rows_x, rows_y, strict=True):
        a, b = x[torch.from_numpy(i)].double(), y[torch.from_numpy(j)].double()  # (n, d), (m, d)
        found.append(squared_mmd(*(polynomial_kernel(p @ q.T, x.shape[1]) for p, q in ((a, a), (a, b), (b, b)))))
    return float(np.mean(found)), float(np.std(found))


__getattr__ = renamed(__name__, {"cubic": "polynomial_kernel", "mmd": "squared_mmd", "kernel_distance": "kid"})
