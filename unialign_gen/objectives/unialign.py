"""UniAlign (arXiv 2602.09507): uniformity inside each modality, alignment to the anchor, and the volume complement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from . import ranks
from .alignment import of_chords
from .batch import Batch
from .centroid import check_weights
from .centroid import of_unit as unit_centroid
from .objective import Objective
from .options import Positive, Weight, typed
from .uniformity import of_unit as unit_uniformity
from .volume import gram_matrix, of_gram

Geometry = Literal["euclidean", "geodesic"]


class UniAlign(Objective):
    """Eq 13: l_uni sum_m U(Z^m) + l_align L_align + l_vol (U(C) + mean volume).

    The anchor feels its own uniformity only: it is detached from every other term. Give a frozen anchor without gradient,
    and its uniformity is a constant of the value. Settings of the paper: all three weights 1 for retrieval, volume_weight
    0.1 for generation.

    Eq 10 prints no temperature, but appendix F.1 uses tau for "the intra-modality uniformity and alignment terms": alignment is
    then -log k(z^a, z^n) = d^2 / 2 tau^2, which is the default here. As printed, uniformity pulls 1 / tau^2 = 204 times as hard
    as alignment, and fresh heads do not align at all.

    Parts are `uniformity/<modality>`, `alignment`, `centroid_uniformity` and `volume`. Terms that are switched off, or whose
    weight is 0, are not computed. A sample takes part in a term with the modalities it has: alignment counts the pairs that
    are there, centroid and volume are those of what is there, of samples with at least two.

    Args:
        anchor: the modality that the others are pulled towards.
        tau: width of the uniformity kernel.
        tau_centroid: that of the centroid's (table 5: 0.01, 0.03, 0.07).
        tau_alignment: alignment is d^2 / 2 tau_alignment^2; "tau", the default, is the uniformity kernel's own, None is d^2,
            eq 10 as printed.
        uniformity_weight, alignment_weight, volume_weight: the three lambdas.
        uniformity_geometry, alignment_geometry: `euclidean` (eq 9, 10) or `geodesic` (eq 14); with the two switches
            and the weights every cell of table 4 and table 2 can be set.
        centroid_uniformity, volume_alignment: the two parts of eq 12, on or off.
        centroid_weights: w_m of eq 11 by modality; equal by default.
        detach_anchor: false lets alignment and volume move the anchor too, which the paper does not do.

    Raises:
        InputError: an option out of its range; all terms switched off.

    >>> z = {"image": torch.eye(3), "text": torch.eye(3).roll(1, 0)}
    >>> UniAlign(tau=1.0, volume_weight=0).parts(z)                                  # all d^2 are 2
    {'uniformity/image': tensor(-1.), 'uniformity/text': tensor(-1.), 'alignment': tensor(1.)}
    """

    @typed
    def __init__(
        self,
        anchor: str = "image",
        tau: Positive = 0.07,
        tau_centroid: Positive = 0.07,
        uniformity_weight: Weight = 1.0,
        alignment_weight: Weight = 1.0,
        volume_weight: Weight = 0.1,
        uniformity_geometry: Geometry = "euclidean",
        alignment_geometry: Geometry = "euclidean",
        centroid_uniformity: bool = True,
        volume_alignment: bool = True,
        centroid_weights: Mapping[str, Weight] | None = None,
        detach_anchor: bool = True,
        tau_alignment: Literal["tau"] | Positive | None = "tau",
    ):
        super().__init__()
        if not (uniformity_weight or alignment_weight or (volume_weight and (centroid_uniformity or volume_alignment))):
            raise InputError("UniAlign: all terms are switched off: give one of its weights")
        if centroid_weights is not None:
            check_weights(list(centroid_weights.values()), len(centroid_weights))
        self.anchor: str = anchor
        self.tau, self.tau_centroid = tau, tau_centroid
        self.tau_alignment = tau if isinstance(tau_alignment, str) else tau_alignment
        self.uniformity_weight, self.alignment_weight, self.volume_weight = uniformity_weight, alignment_weight, volume_weight
        self.term_weights = {"uniformity": uniformity_weight, "alignment": alignment_weight}  # eq 13
        self.term_weights |= {"centroid_uniformity": volume_weight, "volume": volume_weight}
        self.uniformity_geodesic = uniformity_geometry == "geodesic"
        self.alignment_geodesic = alignment_geometry == "geodesic"
        self.centroid_uniformity, self.volume_alignment = centroid_uniformity, volume_alignment
        self.centroid_weights, self.detach_anchor = centroid_weights, detach_anchor

    def problem(self, names: Sequence[str]) -> str | None:
        if self.centroid_weights is not None and set(self.centroid_weights) != set(names):
            return f"UniAlign: centroid_weights are for {sorted(self.centroid_weights)}, the batch has {list(names)}"
        return super().problem(names)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        if self.uniformity_weight:
            for name, points in batch.z.items():
                out[f"uniformity/{name}"] = unit_uniformity(points, self.tau, self.uniformity_geodesic, batch.keep[name])
        if not (self.alignment_weight or self.volume_weight):
            return out
        held = {self.anchor} if self.detach_anchor else set()
        stack = torch.stack([z.detach() if name in held else z for name, z in batch.z.items()], 1)  # (b, M, d)
        gram = gram_matrix(stack)  # (b, M, M): alignment and volume need no more, so the rows are passed over once
        masks = [batch.keep[n] for n in batch.names]
        if self.alignment_weight:
            a = batch.names.index(self.anchor)
            others = [i for i in range(len(masks)) if i != a]
            pairs = [batch.both(self.anchor, batch.names[i]) for i in others]
            out["alignment"] = of_chords(
                [2 - 2 * gram[:, a, i] for i in others], self.alignment_geodesic, pairs, self.tau_alignment
            )
        # eq 12
        keep = batch.there(batch.names).sum(1) >= 2 if any(m is not None for m in masks) else None
        if self.volume_weight and self.centroid_uniformity:
            weights = None if self.centroid_weights is None else [self.centroid_weights[n] for n in batch.names]
            middle = unit_centroid(stack, weights)
            out["centroid_uniformity"] = unit_uniformity(middle, self.tau_centroid, self.uniformity_geodesic, keep)
        if self.volume_weight and self.volume_alignment:
            out["volume"] = ranks.mean(of_gram(gram), keep)
        return out
