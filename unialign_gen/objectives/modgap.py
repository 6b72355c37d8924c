"""ModGap (Grassucci et al., "Closing the Modality Gap Aligns Group-Wise Semantics", arXiv 2601.18525, ICLR 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..errors import InputError
from . import ranks
from .batch import Batch
from .centroid import of_unit as unit_centroid
from .infonce import symmetric
from .objective import Objective, Temperature
from .options import Tau, Weight, typed
from .uniformity import of_unit as unit_uniformity


class ModGap(Objective):
    """Symmetric InfoNCE of all pairs, their squared distance, and uniformity of the samples' centroids.

    mean over pairs of InfoNCE + l1 mean |x_i - y_i|^2 + l2 log mean_{i != j} exp(-2 |c_i - c_j|^2), c_i the normalised mean of
    what sample i has. The authors' code is for two modalities, where this equals it with its lambda1 and lambda2; its
    configuration has temperature 0.1, and can ramp alignment up, uniformity down, and begin with the uniformity of single
    modalities alone: schedules that are not here.

    Parts are `infonce/m|n`, `alignment` (every pair that is there counts once) and `centroid_uniformity` (of samples with two
    modalities or more).

    Args:
        tau, learnable: of InfoNCE.
        infonce_weight, alignment_weight, uniformity_weight: of the three terms.

    Raises:
        InputError: an option out of its range; all terms switched off.

    >>> z = torch.eye(2)
    >>> ModGap(tau=1.0).parts({"image": z, "text": z})
    {'infonce/image|text': tensor(0.3133), 'alignment': tensor(0.), 'centroid_uniformity': tensor(-4.)}
    """

    @typed
    def __init__(
        self,
        tau: Tau = 0.07,
        learnable: bool = False,
        infonce_weight: Weight = 1.0,
        alignment_weight: Weight = 1.0,
        uniformity_weight: Weight = 1.0,
    ):
        super().__init__()
        if not (infonce_weight or alignment_weight or uniformity_weight):
            raise InputError("ModGap: all terms are switched off: give one of its weights")
        self.temperature = Temperature(tau, learnable)
        self.infonce_weight, self.alignment_weight, self.uniformity_weight = infonce_weight, alignment_weight, uniformity_weight

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        pairs = [(m, n, batch.both(m, n)) for m, n in combinations(batch.names, 2)]
        if self.infonce_weight:
            scale = self.temperature(next(iter(batch.z.values())))
            out |= {f"infonce/{m}|{n}": symmetric(batch.z[m], batch.z[n], scale, keep) for m, n, keep in pairs}
        if self.alignment_weight:
            distances = torch.cat([(batch.z[m] - batch.z[n]).square().sum(1) for m, n, _ in pairs])  # (pairs b,)
            present = torch.cat([batch.there([m, n]).all(1) for m, n, _ in pairs])
            out["alignment"] = ranks.mean(distances, present)
        if self.uniformity_weight:
            all_there = all(m is None for m in batch.keep.values())
            keep = None if all_there else batch.there(batch.names).sum(1) >= 2  # (b,)
            middle = unit_centroid(torch.stack(list(batch.z.values()), 1), None)  # (b, d)
            # exp(-2 d^2) is the kernel of width 1/2
            out["centroid_uniformity"] = unit_uniformity(middle, 0.5, keep=keep, pooled=True)
        return out

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        contrasts = [p for name, p in parts.items() if name.startswith("infonce/")]
        weighted = [self.infonce_weight * torch.stack(contrasts).mean()] if contrasts else []
        weights = {"alignment": self.alignment_weight, "centroid_uniformity": self.uniformity_weight}
        return torch.stack([*weighted, *(w * parts[name] for name, w in weights.items() if name in parts)]).sum()
