"""Intra-modality uniformity, eq 9 and 14 of UniAlign (arXiv 2602.09507)."""

from __future__ import annotations

import math

from torch import Tensor

from . import ranks
from .batch import as_unit, complaint, full_precision, nothing
from .kernel import self_lse


@full_precision
def uniformity(z: Tensor, tau: float = 0.07, geodesic: bool = False, mask: Tensor | None = None) -> Tensor:
    """Eq 9: mean_i log mean_{j != i} exp(-d(z_i, z_j)^2 / 2 tau^2). Scalar, at most 0, which is collapse.

    Args:
        z: embeddings (B, d), brought to unit length.
        tau: the kernel's width, in chords (Euclidean) or radians (geodesic, eq 14).
        mask: bool (B,), the samples that are there; with fewer than two of them the value is 0, without gradient.

    Raises:
        InputError: fewer than two rows; a row that is zero, NaN or infinite.

    >>> import torch
    >>> uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), tau=1.0)                  # d^2 = 2
    tensor(-1.)
    """
    wrong = complaint("embeddings", z, None, None)
    ranks.agree(len(z) if isinstance(z, Tensor) and z.ndim else 0, wrong, z.device)
    return of_unit(as_unit(z, keep=mask), tau, geodesic, mask)


def of_unit(z: Tensor, tau: float, geodesic: bool = False, keep: Tensor | None = None, pooled: bool = False) -> Tensor:
    """`uniformity` of rows that are unit vectors already; `pooled` has one mean over all pairs i != j inside the logarithm."""
    count = len(z) * ranks.world() if keep is None else int(ranks.total(keep.sum()))
    if count < 2:
        return nothing([z])
    return self_lse(z, tau, geodesic, keep, pooled) - math.log(count * (count - 1) if pooled else count - 1)
