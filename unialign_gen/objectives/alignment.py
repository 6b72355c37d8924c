"""Alignment to the anchor, eq 10 of UniAlign (arXiv 2602.09507), and its geodesic form (table 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import ranks
from .angles import geodesic2
from .batch import as_unit, full_precision


@full_precision
def anchor_alignment(
    anchor: Tensor, others: Sequence[Tensor], geodesic: bool = False, masks: Sequence[Tensor | None] | None = None
) -> Tensor:
    """Eq 10: the mean over samples and other modalities of d(z^a, z^n)^2. Scalar in [0, 4], geodesic in [0, pi^2].

    Args:
        anchor, others: embeddings (B, d), brought to unit length.
        masks: for each of `others`, bool (B,): the samples that have it and the anchor. Every pair that is there counts once.

    Raises:
        ValueError: no others; a row that is zero, NaN or infinite.
    """
    if not others:
        raise ValueError("alignment needs a modality beside the anchor")
    masks = masks or [None] * len(others)
    unit = [as_unit(z, keep=m) for z, m in zip(others, masks, strict=True)]
    present = None if any(m is None for m in masks) else torch.stack([m for m in masks if m is not None]).any(0)
    return of_unit(as_unit(anchor, keep=present), unit, geodesic, masks)


def of_unit(anchor: Tensor, others: Sequence[Tensor], geodesic: bool, masks: Sequence[Tensor | None]) -> Tensor:
    """`anchor_alignment` of rows that are unit vectors already."""
    distances = torch.cat([geodesic2(anchor, z) if geodesic else (anchor - z).square().sum(1) for z in others])
    keep = None
    if any(m is not None for m in masks):
        everything = torch.ones(len(anchor), dtype=torch.bool, device=anchor.device)
        keep = torch.cat([everything if m is None else m for m in masks])
    return ranks.mean(distances, keep)
