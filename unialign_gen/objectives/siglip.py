"""SigLIP's sigmoid loss (Zhai et al., arXiv 2303.15343) over all pairs of modalities."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from . import ranks
from .batch import Batch
from .kernel import pair_lse
from .objective import Objective, Temperature
from .options import Tau, typed


def biased_block(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """scale <x_i, y_j> + bias, (r, c)."""
    return (rows[0] * parameters[0]) @ columns[0].T + parameters[1]


class SigLIP(Objective):
    """Sum over pairs of modalities of -1/B sum_ij log sigmoid(l_ij (s <x_i, y_j> + b)), l = 1 for i = j and -1 else.

    For two modalities open_clip's `SigLipLoss`, whose trainer also holds s at 100 at most. Parts are the pairs, `m|n`, over
    samples that have both.

    Args:
        tau: 1 / s at the start; the paper starts with s = 10.
        bias: b at the start.
        learnable: learn s and b (parameters of this module; give them to the optimiser).

    >>> z = torch.eye(2)
    >>> SigLIP(tau=1.0, bias=0.0)({"image": z, "text": z})                           # log(1 + 1/e) + log 2
    tensor(1.0064, grad_fn=<SumBackward0>)
    """

    @typed
    def __init__(self, tau: Tau = 0.1, bias: float | Tensor = -10.0, learnable: bool = True):
        super().__init__()
        self.temperature = Temperature(tau, learnable)
        self.bias = nn.Parameter(torch.tensor(float(bias))) if learnable else bias

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        like = next(iter(batch.z.values()))
        scale = self.temperature(like)
        bias = like.new_tensor(self.bias) if isinstance(self.bias, float) else self.bias.to(like)
        if self.options["learnable"]:
            bias = ranks.shared(bias)
        out = {}
        for m, n in combinations(batch.names, 2):
            # -log sigmoid(l) = log(1 + e^l) - l on the diagonal, log(1 + e^l) off it
            keep = batch.both(m, n)
            found = pair_lse(biased_block, [batch.z[m]], [batch.z[n]], [scale, bias], keep, kind="softplus")
            out[f"{m}|{n}"] = found.rows - found.own
        return out
