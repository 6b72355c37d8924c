"""A sample's centroid over its modalities, eq 11 of UniAlign (arXiv 2602.09507)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .batch import as_unit, full_precision

SHORTEST = 1e-6  # of the weighted sum; antipodal modalities cancel and have no direction


@full_precision
def centroid(
    embeddings: Sequence[Tensor], weights: Sequence[float] | None = None, masks: Sequence[Tensor | None] | None = None
) -> Tensor:
    """Eq 11: normalise(sum_m w_m z^m), (B, d), of embeddings (B, d) brought to unit length.

    Args:
        weights: one a modality, none negative, not all zero; equal by default. Only their ratios matter.
        masks: for each modality, bool (B,) of the samples that have it, or None. A sample's centroid is over what it has.

    Raises:
        InputError: weights that do not fit; a row that is zero, NaN or infinite.

    >>> centroid([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])], weights=[3, 4])
    tensor([[0.6000, 0.8000]])
    """
    masks = masks or [None] * len(embeddings)
    return of_unit(torch.stack([as_unit(z, keep=m) for z, m in zip(embeddings, masks, strict=True)], 1), weights)


def check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """The weights to use; an `InputError` if they are not one a modality, one is negative, or all are zero."""
    if weights is None:
        return [1.0] * count
    if len(weights) != count or not min(weights) >= 0 or not 0 < sum(weights) < math.inf:
        raise InputError(f"the centroid of {count} modalities needs {count} weights >= 0, not all 0, got {list(weights)}")
    return list(weights)


def of_unit(stack: Tensor, weights: Sequence[float] | None) -> Tensor:
    """`centroid` of unit vectors (B, M, d), rows of zeros where a modality is missing.

    Vectors that cancel give their short sum divided by `SHORTEST`: finite, not of unit length, as is its gradient.
    """
    factors = stack.new_tensor(check_weights(weights, stack.shape[1]))  # (M,)
    mean = ((factors / factors.sum()).expand(len(stack), 1, -1) @ stack)[:, 0]  # (B, d)
    return mean / torch.linalg.vector_norm(mean, dim=1, keepdim=True).clamp(min=SHORTEST)
