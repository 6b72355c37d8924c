"""UniAlign (arXiv 2602.09507): uniformity inside each modality, alignment to the anchor, and the volume complement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from . import ranks
from .alignment import of_unit as unit_alignment
from .batch import Batch, Embeddings, Masks, full_precision, prepare
from .centroid import of_unit as unit_centroid
from .uniformity import of_unit as unit_uniformity
from .volume import of_unit as unit_volume

Geometry = Literal["euclidean", "geodesic"]


class UniAlign(nn.Module):
    """Eq 13: l_uni sum_m U(Z^m) + l_align L_align + l_vol (U(C) + mean volume).

    The anchor feels its own uniformity only: it is detached from every other term. Give a frozen anchor without gradient,
    and its uniformity is a constant of the value. Settings of the paper: all three weights 1 for retrieval, volume_weight
    0.1 for generation.

    Args:
        anchor: the modality that the others are pulled towards.
        tau: width of the uniformity kernel.
        tau_centroid: that of the centroid's (table 5: 0.01, 0.03, 0.07).
        uniformity_weight, alignment_weight, volume_weight: the three lambdas.
        uniformity_geometry, alignment_geometry: `euclidean` (eq 9, 10) or `geodesic` (eq 14); with the two switches
            and the weights every cell of table 4 and table 2 can be set.
        centroid_uniformity, volume_alignment: the two parts of eq 12, on or off.
        centroid_weights: w_m of eq 11 by modality; equal by default.
        detach_anchor: false lets alignment and volume move the anchor too, which the paper does not do.
    """

    def __init__(
        self,
        anchor: str = "image",
        tau: float = 0.07,
        tau_centroid: float = 0.07,
        uniformity_weight: float = 1.0,
        alignment_weight: float = 1.0,
        volume_weight: float = 0.1,
        uniformity_geometry: Geometry = "euclidean",
        alignment_geometry: Geometry = "euclidean",
        centroid_uniformity: bool = True,
        volume_alignment: bool = True,
        centroid_weights: Mapping[str, float] | None = None,
        detach_anchor: bool = True,
    ):
        super().__init__()
        for name, geometry in (("uniformity", uniformity_geometry), ("alignment", alignment_geometry)):
            if geometry not in ("euclidean", "geodesic"):
                raise ValueError(f"{name}_geometry is euclidean or geodesic, got {geometry!r}")
        if not (tau > 0 and tau_centroid > 0):
            raise ValueError(f"temperatures must be positive, got {tau} and {tau_centroid}")
        if min(uniformity_weight, alignment_weight, volume_weight) < 0:
            raise ValueError("the weights of the terms must not be negative")
        self.anchor, self.tau, self.tau_centroid = anchor, tau, tau_centroid
        self.uniformity_weight, self.alignment_weight, self.volume_weight = uniformity_weight, alignment_weight, volume_weight
        self.uniformity_geodesic = uniformity_geometry == "geodesic"
        self.alignment_geodesic = alignment_geometry == "geodesic"
        self.centroid_uniformity, self.volume_alignment = centroid_uniformity, volume_alignment
        self.centroid_weights, self.detach_anchor = centroid_weights, detach_anchor

    @full_precision
    def parts(self, embeddings: Embeddings, masks: Masks | None = None) -> dict[str, Tensor]:
        """The terms by name, before their weights: `uniformity/<modality>`, `alignment`, `centroid_uniformity`, `volume`.

        Terms that are switched off, or whose weight is 0, are not computed. Arguments and errors as in `batch.prepare`.
        A sample takes part in a term with the modalities it has: alignment counts the pairs that are there, centroid and
        volume are those of what is there, of samples with at least two.
        """
        batch = prepare(embeddings, masks, self.anchor)
        out: dict[str, Tensor] = {}
        if self.uniformity_weight:
            for name, points in batch.z.items():
                out[f"uniformity/{name}"] = unit_uniformity(points, self.tau, self.uniformity_geodesic, batch.keep[name])
        z = dict(batch.z)
        if self.detach_anchor:
            z[self.anchor] = z[self.anchor].detach()
        if self.alignment_weight:
            others = [n for n in batch.names if n != self.anchor]
            out["alignment"] = unit_alignment(
                z[self.anchor], [z[n] for n in others], self.alignment_geodesic, [batch.both(self.anchor, n) for n in others]
            )
        if self.volume_weight:
            out |= self._volume_parts(batch, z)
        return out

    def _volume_parts(self, batch: Batch, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Eq 12."""
        out: dict[str, Tensor] = {}
        masks = [batch.keep[n] for n in batch.names]
        keep = None
        if any(m is not None for m in masks):
            there = torch.ones(len(z[self.anchor]), dtype=torch.bool, device=z[self.anchor].device)
            keep = torch.stack([there if m is None else m for m in masks]).sum(0) >= 2
        if self.centroid_uniformity:
            weights = None
            if self.centroid_weights is not None:
                if set(self.centroid_weights) != set(batch.names):
                    raise ValueError(f"centroid_weights are for {sorted(self.centroid_weights)}, the batch has {batch.names}")
                weights = [self.centroid_weights[n] for n in batch.names]
            middle = unit_centroid(list(z.values()), weights, masks)
            out["centroid_uniformity"] = unit_uniformity(middle, self.tau_centroid, self.uniformity_geodesic, keep)
        if self.volume_alignment:
            out["volume"] = ranks.mean(unit_volume(list(z.values()), masks), keep)
        return out

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Eq 13: the weighted sum of the terms that `parts` returned."""
        weight = {"alignment": self.alignment_weight, "centroid_uniformity": self.volume_weight, "volume": self.volume_weight}
        return torch.stack([weight.get(name, self.uniformity_weight) * part for name, part in parts.items()]).sum()

    def forward(self, embeddings: Embeddings, masks: Masks | None = None) -> Tensor:
        """Scalar, from (B, d) embeddings a modality and bool (B,) masks for those that some samples lack."""
        return self.total(self.parts(embeddings, masks))
