"""CMMD (Jayasumana et al. 2024, arXiv 2401.09603): squared MMD of CLIP embeddings under a Gaussian kernel, times 1000."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import check_features
from .prdc import squared_distances

SIGMA, SCALE, ROWS = 10.0, 1000.0, 2048


def cmmd(x: Tensor, y: Tensor, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """`scale` times the biased squared MMD of embeddings (N, d) and (M, d), with k(x, y) = exp(-|x - y|^2 / 2 sigma^2).

    The published numbers are of unit embeddings of CLIP ViT-L/14 at 336 pixels; rows are used as they are. fp64, in blocks of
    rows. At least 0; two samples of one law of n rows each are about scale / n * tr(cov) / sigma^2 apart.

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
    """Mean of the kernel over all pairs of rows (N, d) and (M, d)."""
    total = 0.0
    for part in x.split(ROWS):
        total += float(torch.exp(-squared_distances(part, y) / (2 * sigma**2)).sum())  # (rows, M)
    return total / (len(x) * len(y))
