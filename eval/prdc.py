"""How much of one set of features lies where another has its neighbours.

Precision and recall: Kynkaanniemi et al. 2019, arXiv 1904.06991. Density and coverage: Naeem et al. 2020, arXiv 2002.09797.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unialign_gen.errors import InputError

from .moments import check_features

ROWS = 4096


class PRDCScores(NamedTuple):
    """Shares in [0, 1]; density can pass 1.

    precision: of generated pictures inside some real picture's ball, which reaches to its k-th neighbour; recall: the other
    way round. density: balls of real pictures that a generated one lies in, over k. coverage: of real pictures with a
    generated one in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, M) of features (N, d) and (M, d)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)


def radii(x: Tensor, k: int) -> Tensor:
    """Squared distance (N,) of each row to its k-th nearest other row."""
    out = []
    for at in range(0, len(x), ROWS):
        block = squared_distances(x[at : at + ROWS], x)  # (rows, N)
        block[torch.arange(len(block)), torch.arange(at, at + len(block))] = -1  # itself comes first, also among duplicates
        out.append(block.kthvalue(k + 1, dim=1).values)
    return torch.cat(out)


def prdc(fake: Tensor, real: Tensor, k: int = 3, k_density: int = 5) -> PRDCScores:
    """Of features (N, d) of generated and (M, d) of real pictures; k for precision and recall, k_density for the others.

    fp64, in blocks of rows: no N x M matrix is held.

    Raises:
        InputError: a set has no more pictures than neighbours are asked for, or features are not finite.

    Example:
        >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> prdc(x, x).precision, prdc(x + 100, x).precision
        (1.0, 0.0)
    """
    check_features(fake, real)
    if min(len(fake), len(real)) <= max(k, k_density):
        raise InputError(f"{len(fake)} and {len(real)} pictures are too few for {max(k, k_density)} neighbours")
    middle = real.double().mean(0)  # smaller numbers, less rounding
    fake, real = fake.double() - middle, real.double() - middle
    around_real, around_fake, wide = radii(real, k), radii(fake, k), radii(real, k_density)  # (M,), (N,), (M,)
    inside = balls = 0
    reached, covered = (torch.zeros(len(real), dtype=torch.bool, device=real.device) for _ in range(2))
    for at in range(0, len(fake), ROWS):
        block = squared_distances(fake[at : at + ROWS], real)  # (rows, M)
        inside += int((block <= around_real).any(1).sum())
        reached |= (block <= around_fake[at : at + ROWS, None]).any(0)
        balls += int((block <= wide).sum())
        covered |= (block <= wide).any(0)
    return PRDCScores(
        inside / len(fake), float(reached.double().mean()), balls / (k_density * len(fake)), float(covered.double().mean())
    )
