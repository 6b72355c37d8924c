"""MIND (Berthet et al. 2026, arXiv 2605.06797): sliced Wasserstein, informative from about a thousand pictures on."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import check_features

BLOCK = 256  # directions at a time


def mind(x: Tensor, y: Tensor, directions: int = 1000, seed: int = 2020) -> float:
    """3 d / (n K) sum_k |sort(X u_k) - sort(Y u_k)|^2 of features (N, d) and (M, d) over K random unit directions u_k.

    Directions, and the n = min(N, M) rows of the larger set, are those that torch-fidelity draws with this seed. The factor 3 d
    brings it near to FID's numbers.

    Raises:
        InputError: fewer than two rows, or features that are not finite.

    Example:
        >>> x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> round(mind(x, x[torch.randperm(50)]), 9)
        0.0
        >>> 20 < mind(x, x + 1) < 30  # 3 |shift|^2 = 24
        True
    """
    check_features(x, y)
    generator = torch.Generator().manual_seed(seed)
    n, width = min(len(x), len(y)), x.shape[1]
    x, y = (s[torch.randperm(len(s), generator=generator)[:n]] if len(s) > n else s for s in (x, y))
    u = random_directions(width, directions, generator).to(x.device)
    total = sum(sliced(x.double() @ part.T, y.double() @ part.T, width) * len(part) for part in u.split(BLOCK))
    return total / directions


def random_directions(width: int, count: int, generator: torch.Generator) -> Tensor:
    """Unit vectors (K, d), fp64."""
    u = torch.randn(count, width, generator=generator)
    return (u / u.norm(dim=1, keepdim=True)).double()


def sliced(a: Tensor, b: Tensor, width: int) -> float:
    """The distance from projections (n, K) of as many rows of features `width` wide on each side."""
    return 3 * width * float((a.sort(dim=0).values - b.sort(dim=0).values).square().mean())
