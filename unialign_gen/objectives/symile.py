"""Symile (Saporta et al., arXiv 2411.01053): contrast by the multilinear inner product of all modalities."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from . import ranks
from .batch import Batch, nothing
from .kernel import pair_lse
from .objective import Objective, Temperature
from .options import Tau, typed


def shuffled_block(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """scale <x_i, product_j> (r, c), and a sample's own logit where it meets itself."""
    anchor, own, at = rows
    shuffled, place = columns
    logits = (anchor * parameters[0]) @ shuffled.T
    return torch.where(at[:, None] == place, (own * parameters[0])[:, None], logits)


class Symile(Objective):
    """Mean over modalities a of the cross-entropy of scale MIP(z_i^a, the others), MIP = sum_d of the product over modalities.

    The negatives of a row are B - 1 products of the other modalities, each shuffled on its own (negative sampling `n` of the
    authors' code, which also offers all B^(M-1) tuples, left out here); the true tuple is on the diagonal. The shuffles are
    drawn anew at every call in training mode, from `seed` and a count of calls that is saved with the module; without
    training mode they stay the same. Only samples that have every modality take part. Parts are the anchors'.

    Args:
        tau: 1 / scale at the start. The authors start at exp(0.3). Products of unit vectors shrink with their dimension:
            where d is large start at about 0.07 / d^((M-2)/2).
        learnable: learn 1 / tau (a parameter of this module; give it to the optimiser), without a bound, as the authors do.
        seed: of the shuffles.

    >>> z = torch.eye(4)
    >>> sorted(Symile(tau=1.0, learnable=False).parts({"image": z, "text": z, "audio": z}))
    ['audio', 'image', 'text']
    """

    averaged = True
    calls: Tensor

    @typed
    def __init__(self, tau: Tau = 1.35, learnable: bool = True, seed: int = 0):
        super().__init__()
        self.temperature = Temperature(tau, learnable, most=torch.inf)
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        keep = batch.both(*batch.names)
        like = next(iter(batch.z.values()))
        mine = torch.arange(len(like), device=like.device) + ranks.rank() * len(like)  # (b,), this rank's places among all
        kept = torch.arange(len(like) * ranks.world(), device=like.device)  # places of the samples that take part
        if keep is not None:
            kept = kept[ranks.gather(keep)]
            if len(kept) == 0:
                return dict.fromkeys(batch.names, nothing(batch.z.values()))
        generator = torch.Generator().manual_seed(hash((self.seed, int(self.calls))))
        if self.training:
            self.calls += 1
        everything = {n: ranks.gather_with_grad(z) for n, z in batch.z.items()}  # (B, d)
        own = reduce(torch.mul, batch.z.values()).sum(1)  # (b,)
        scale, out = self.temperature(like), {}
        for a in batch.names:
            shuffled = []
            for n in batch.names:
                if n != a:
                    source = torch.arange(len(everything[n]), device=like.device)
                    source[kept] = kept[torch.randperm(len(kept), generator=generator).to(kept.device)]
                    shuffled.append(everything[n].index_select(0, source[mine]))
            rows, columns = [batch.z[a], own, mine], [reduce(torch.mul, shuffled), mine]
            found = pair_lse(shuffled_block, rows, columns, [scale], keep, kind="rows")
            out[a] = found.rows - found.own
        return out
