"""CS-Aligner (Yin et al., arXiv 2502.17028, ICLR 2026): InfoNCE with the Cauchy-Schwarz divergence of distributions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from . import ranks
from .batch import Batch, nothing
from .infonce import symmetric
from .kernel import pair_lse, self_lse
from .objective import Objective, Temperature
from .options import Positive, Tau, Weight, typed


def gaussian_block(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """-|x_i - y_j|^2 / 2 sigma^2 of unit vectors, (r, c)."""
    return (rows[0] @ columns[0].T - 1) * parameters[0]


def divergence(x: Tensor, y: Tensor, bandwidth: float, keep: Tensor | None = None) -> Tensor:
    """log mean k(x_i, x_j) + log mean k(y_i, y_j) - 2 log mean k(x_i, y_j) over all i and j, of unit rows (b, d). Scalar, >= 0.

    Zero where `keep` (b,) leaves fewer than two samples.
    """
    count = len(x) * ranks.world() if keep is None else int(ranks.total(keep.sum()))
    if count < 2:
        return nothing([x, y])
    scale = x.new_tensor(1 / bandwidth**2)
    itself = x.new_tensor(math.log(count))  # the diagonal, whose kernels are 1
    within = [torch.logaddexp(self_lse(z, bandwidth, keep=keep, pooled=True), itself) for z in (x, y)]
    return within[0] + within[1] - 2 * pair_lse(gaussian_block, [x], [y], [scale], keep, kind="rows").pooled


class CauchySchwarz(Objective):
    """Sum over the modalities n beside the anchor of InfoNCE(a, n) + weight D_CS(a; n), UniAlign's two-modality ancestor.

    D_CS is the estimate with Gaussian kernels: log mean k(x_i, x_j) + log mean k(y_i, y_j) - 2 log mean k(x_i, y_j), zero for
    equal sets. The paper is for two modalities and gives no code; it takes unpaired data into D_CS, here both terms are over
    samples that have the pair. Parts are `infonce/<modality>` and `divergence/<modality>`.

    Args:
        anchor: the modality that every other is paired with.
        tau, learnable: of InfoNCE.
        bandwidth: sigma of the kernels exp(-d^2 / 2 sigma^2).
        divergence_weight: lambda. 0 leaves InfoNCE alone.
        infonce_weight: of InfoNCE.

    Raises:
        InputError: an option out of its range; all terms switched off.

    >>> z = torch.eye(2)
    >>> CauchySchwarz(tau=1.0).parts({"image": z, "text": torch.ones(2, 2)})         # collapsed
    {'infonce/text': tensor(0.6931), 'divergence/text': tensor(0.2059)}
    """

    @typed
    def __init__(
        self,
        anchor: str = "image",
        tau: Tau = 0.07,
        learnable: bool = False,
        bandwidth: Positive = 1.0,
        divergence_weight: Weight = 1.0,
        infonce_weight: Weight = 1.0,
    ):
        super().__init__()
        if not (divergence_weight or infonce_weight):
            raise InputError("CauchySchwarz: all terms are switched off: give one of its weights")
        self.anchor: str = anchor
        self.temperature = Temperature(tau, learnable)
        self.bandwidth, self.term_weights = bandwidth, {"infonce": infonce_weight, "divergence": divergence_weight}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        anchor, out = batch.z[self.anchor], {}
        for name in batch.names:
            if name == self.anchor:
                continue
            keep = batch.both(self.anchor, name)
            if self.term_weights["infonce"]:
                out[f"infonce/{name}"] = symmetric(anchor, batch.z[name], self.temperature(anchor), keep)
            if self.term_weights["divergence"]:
                out[f"divergence/{name}"] = divergence(anchor, batch.z[name], self.bandwidth, keep)
        return out
