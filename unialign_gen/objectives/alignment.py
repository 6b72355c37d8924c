"""Alignment to the anchor, eq 10 of UniAlign (arXiv 2602.09507), and its geodesic form (table 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from . import ranks
from .angles import squared_geodesic
from .batch import as_unit, full_precision


@full_precision
def anchor_alignment(
    anchor: Tensor,
    others: Sequence[Tensor],
    geodesic: bool = False,
    masks: Sequence[Tensor | None] | None = None,
    tau: float | None = None,
) -> Tensor:
    """Eq 10: the mean over samples and other modalities of d(z^a, z^n)^2. Scalar in [0, 4], geodesic in [0, pi^2].

    Args:
        anchor, others: embeddings (B, d), brought to unit length.
        masks: for each of `others`, bool (B,): the samples that have it and the anchor. Every pair that is there counts once.
        tau: divides the squared distance by 2 tau^2, the negative logarithm of uniformity's kernel; None is eq 10 as printed.

    Raises:
        InputError: no others; a row that is zero, NaN or infinite.

    >>> image, text = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])        # at right angles: d^2 = 2
    >>> anchor_alignment(image, [text]), anchor_alignment(image, [text], tau=0.5)
    (tensor(2.), tensor(4.))
    """
    if not others:
        raise InputError("alignment needs a modality beside the anchor")
    masks = masks or [None] * len(others)
    unit = [as_unit(z, keep=m) for z, m in zip(others, masks, strict=True)]
    present = None if any(m is None for m in masks) else torch.stack([m for m in masks if m is not None]).any(0)
    fixed = as_unit(anchor, keep=present)
    return of_chords([(fixed - z).square().sum(1) for z in unit], geodesic, masks, tau)


def of_chords(chords: Sequence[Tensor], geodesic: bool, masks: Sequence[Tensor | None], tau: float | None) -> Tensor:
    """`anchor_alignment` from the squared distances (B,) between the anchor and each other modality."""
    distances = torch.cat([squared_geodesic(c) if geodesic else c for c in chords])  # ((M - 1) b,)
    everything = torch.ones_like(chords[0], dtype=torch.bool)
    keep = torch.cat([everything if m is None else m for m in masks])
    return ranks.mean(distances, keep) * (1.0 if tau is None else 1 / (2 * tau**2))
