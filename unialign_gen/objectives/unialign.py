"""UniAlign (arXiv 2602.09507): uniformity inside each modality, alignment to the anchor, and the volume complement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uniformity(z: Tensor, tau: float = 0.07) -> Tensor:
    """Eq 9 of unit vectors (B, d): mean_i log mean_{j != i} exp(-||z_i - z_j||^2 / 2 tau^2). Scalar, at most 0.

    For unit vectors the exponent is (z_i . z_j - 1) / tau^2, so a log-sum-exp over one product.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(z) < 2:
        raise ValueError(f"uniformity needs at least 2 samples, got {len(z)}")
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        logits = (z @ z.T - 1) / tau**2
        logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
        return torch.logsumexp(logits, 1).mean() - math.log(len(z) - 1)


def anchor_alignment(anchor: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Eq 10: mean squared distance (B, d) to the anchor over samples and the M - 1 other modalities. Scalar in [0, 4]."""
    return torch.stack([(anchor - other).square().sum(-1).mean() for other in others]).mean()


def centroid(z: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Eq 11: the normalised weighted sum of M modalities' unit vectors, (B, d); equal weights by default."""
    weights = weights or [1 / len(z)] * len(z)
    return F.normalize(torch.stack([w * part for w, part in zip(weights, z, strict=True)]).sum(0), dim=-1)


def gram_volume(z: Sequence[Tensor], guard: float = 1e-6) -> Tensor:
    """Volume (B,) of the parallelotope of M unit vectors: sqrt(det G), the second part of eq 12; in [0, 1].

    The square root has infinite slope at perfect alignment, so sqrt(det + guard) - sqrt(guard) stands for it.
    Closed forms for M = 2 and 3, a batched determinant above.
    """
    m = len(z)
    if m <= 3:
        dots = [(z[i] * z[j]).sum(-1) for i in range(m) for j in range(i + 1, m)]
        det = 1 - sum(d.square() for d in dots)
        if m == 3:
            det = det + 2 * dots[0] * dots[1] * dots[2]
    else:
        stack = torch.stack(list(z), dim=1)
        det = torch.linalg.det(stack @ stack.mT)
    return torch.sqrt(torch.as_tensor(det).clamp(min=0) + guard) - math.sqrt(guard)


class UniAlign(nn.Module):
    """Eq 13: l_uni sum_m U(Z^m) + l_align L_align + l_vol (U(C) + mean volume), over (B, d) unit vectors a modality.

    Args:
        anchor: the modality that the others are pulled towards; it is detached from the alignment term.
        tau: temperature of the modalities' uniformity.
        tau_centroid: temperature of the centroid's.
        uniformity_weight, alignment_weight, volume_weight: the three lambdas; 1, 1 and 0.1 for generation.

    Input without gradient (a frozen anchor) is left out of the uniformity sum: it would add a constant.
    """

    def __init__(
        self,
        anchor: str = "image",
        tau: float = 0.07,
        tau_centroid: float = 0.07,
        uniformity_weight: float = 1.0,
        alignment_weight: float = 1.0,
        volume_weight: float = 0.1,
    ):
        super().__init__()
        self.anchor, self.tau, self.tau_centroid = anchor, tau, tau_centroid
        self.uniformity_weight, self.alignment_weight, self.volume_weight = uniformity_weight, alignment_weight, volume_weight

    def parts(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The three terms by name, before their weights."""
        if self.anchor not in embeddings or len(embeddings) < 2:
            raise ValueError(f"UniAlign needs the anchor {self.anchor!r} and another modality, got {list(embeddings)}")
        anchor = embeddings[self.anchor].detach()
        others = [z for name, z in embeddings.items() if name != self.anchor]
        everything = list(embeddings.values())
        return {
            "uniformity": torch.stack([uniformity(z, self.tau) for z in everything if z.requires_grad]).sum(),
            "alignment": anchor_alignment(anchor, others),
            "volume": uniformity(centroid(everything), self.tau_centroid) + gram_volume([anchor, *others]).mean(),
        }

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms that `parts` returned."""
        return (
            self.uniformity_weight * parts["uniformity"]
            + self.alignment_weight * parts["alignment"]
            + self.volume_weight * parts["volume"]
        )

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        return self.total(self.parts(embeddings))
