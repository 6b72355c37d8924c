"""The baseline that needs no training: move every modality's mean onto the anchor's.

Liang et al. 2022 ("Mind the Gap", arXiv 2203.02053) describe the gap between modalities as a nearly constant vector; this
takes it away.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ranks
from .batch import Embeddings, Masks, prepare


class GapShift(nn.Module):
    """z -> normalise(z + strength (mean of the anchor - mean of z's modality)).

    Args:
        anchor: the modality that stays.
        strength: 0 leaves everything, 1 makes the means meet before they are normalised.
    """

    def __init__(self, anchor: str = "image", strength: float = 1.0):
        super().__init__()
        self.anchor, self.strength = anchor, strength
        self.shifts: dict[str, Tensor] = {}

    @torch.no_grad()
    def fit(self, embeddings: Embeddings, masks: Masks | None = None) -> GapShift:
        """Measures the means of the modalities, (N, d) each; arguments and errors as in `batch.prepare`."""
        batch = prepare(embeddings, masks, self.anchor)
        means = {}
        for name, z in batch.z.items():
            keep = batch.keep[name]
            count = len(z) if keep is None else keep.sum()
            sums = ranks.total(torch.cat([z.sum(0), z.new_tensor([float(count)])]))
            means[name] = sums[:-1] / sums[-1].clamp(min=1)
        self.shifts = {name: means[self.anchor] - mean for name, mean in means.items()}
        return self

    def forward(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The modalities moved, unit vectors (N, d).

        Raises:
            ValueError: a modality that `fit` has not seen.
        """
        missing = [n for n in embeddings if n not in self.shifts]
        if missing:
            raise ValueError(f"no shift for {missing}: fit() has seen {list(self.shifts)}")
        return {
            n: F.normalize(F.normalize(z, dim=1) + self.strength * self.shifts[n].to(z), dim=1) for n, z in embeddings.items()
        }
