"""Kernel distance (Binkowski et al. 2018, arXiv 1801.01401): unbiased squared MMD under k(x, y) = (x.y / d + 1)^3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unialign_gen.errors import InputError


def cubic(dots: Tensor, width: int) -> Tensor:
    """The kernel from dot products of features `width` wide."""
    return (dots / width + 1) ** 3


def mmd(kxx: Tensor, kxy: Tensor, kyy: Tensor) -> float:
    """Unbiased squared MMD from kernel matrices (n, n), (n, m), (m, m); can be below 0."""
    n, m = kxy.shape
    own_x = (kxx.sum() - kxx.trace()) / (n * (n - 1))
    own_y = (kyy.sum() - kyy.trace()) / (m * (m - 1))
    return float(own_x + own_y - 2 * kxy.mean())


def kernel_distance(x: Tensor, y: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation over random subsets of features (N, d) and (M, d), fp64.

    The subsets are those that torch-fidelity draws with this seed.

    Raises:
        InputError: a subset is larger than a set, or smaller than 2.
    """
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise InputError(f"subsets of {subset_size} do not fit sets of {len(x)} and {len(y)}: give 2 to {min(len(x), len(y))}")
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        a = x[torch.from_numpy(rng.choice(len(x), subset_size, replace=False))].double()
        b = y[torch.from_numpy(rng.choice(len(y), subset_size, replace=False))].double()
        found.append(mmd(*(cubic(p @ q.T, x.shape[1]) for p, q in ((a, a), (a, b), (b, b)))))
    return float(np.mean(found)), float(np.std(found))
