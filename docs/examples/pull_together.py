"""An objective of one's own, in one file: modalities of a sample are pulled to their mean, and nothing pushes.

Without a push everything collapses to one point: this is an example of the form, not of a good objective.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PullTogether(nn.Module):
    """Mean squared distance of unit embeddings to the normalised mean of their sample, times `weight`."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, embeddings: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """Modality to embeddings (B, d), and modality to bool (B,), which samples have it -> a scalar."""
        z = torch.stack([F.normalize(e.float(), dim=1) for e in embeddings.values()])  # (M, B, d)
        has = torch.stack([(masks or {}).get(m, e.new_ones(len(e)).bool()) for m, e in embeddings.items()])  # (M, B)
        centre = F.normalize((z * has[..., None]).sum(0), dim=1)  # (B, d)
        squared = (z - centre).square().sum(2)  # (M, B)
        return self.weight * squared[has].mean()
