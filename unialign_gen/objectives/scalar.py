"""SCALAR (2026): a query against the centroid of the other modalities that the query itself weighs. A loss and a score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import ranks
from .batch import Batch, as_unit, full_precision
from .centroid import SHORTEST
from .kernel import pair_lse
from .objective import Objective, Temperature
from .options import Positive, Share, Tau, Weight, typed
from .tuples import smoothed
from .volume import gram_matrix


def weigh(dots: Tensor, there: Tensor, tau: float) -> Tensor:
    """softmax over k of dots (K, ...) / tau, over the modalities that are there (K, ...)."""
    return (dots / tau).masked_fill(~there, -torch.inf).softmax(0)


def cosine(dots: Tensor, gram: Tensor, weights: Tensor) -> Tensor:
    """<t, mu> (...) of mu = normalise(sum_k w_k z^k), from <t, z^k> (K, ...), <z^k, z^l> (K, K, ...) and w (K, ...)."""
    squared = sum(weights[k] * weights[j] * gram[k, j] for k in range(len(weights)) for j in range(len(weights)))
    return (weights * dots).sum(0) * torch.as_tensor(squared).clamp(min=SHORTEST**2).rsqrt()


def score_block(query: Tensor, rest: Sequence[Tensor], gram: Tensor, there: Tensor, tau: float) -> Tensor:
    """Cosines (r, c) of queries (r, d) with the centroids they make of tuples (c, d) x K; gram (c, K, K), there (c, K)."""
    dots = torch.stack([query @ z.T for z in rest])  # (K, r, c)
    return cosine(dots, gram.permute(1, 2, 0)[:, :, None], weigh(dots, there.T[:, None].bool(), tau))


@full_precision
def query_weighted_scores(
    query: Tensor, rest: Sequence[Tensor], tau: float = 0.1, masks: Sequence[Tensor | None] | None = None
) -> Tensor:
    """The cosine of every query (A, d) with the centroid that it makes of every tuple (B, d) x K: (A, B), for retrieval.

    mu_j(t) = normalise(sum_m w_m z_j^m), w = softmax_m(<t, z_j^m> / tau). A score for any trained embeddings: higher is nearer.

    Args:
        tau: of the weights; a large one gives the plain centroid, a small one the nearest modality.
        masks: for each of `rest`, bool (B,) or None. A tuple's centroid is over what it has; every tuple has something.

    Raises:
        InputError: a row that is zero, NaN or infinite.

    >>> query, vision, sound = torch.eye(2)[:1], torch.eye(2), torch.eye(2).flip(0)
    >>> query_weighted_scores(query, [vision, sound])                                # the nearer modality decides
    tensor([[1., 1.]])
    """
    masks = masks or [None] * len(rest)
    unit = [as_unit(z, keep=m) for z, m in zip(rest, masks, strict=True)]
    there = torch.stack(
        [torch.ones_like(z[:, 0], dtype=torch.bool) if m is None else m for z, m in zip(unit, masks, strict=True)], 1
    )
    return score_block(as_unit(query), unit, gram_matrix(torch.stack(unit, 1)), there, tau)


class SCALAR(Objective):
    """Symmetric InfoNCE of queries with the centroids that each query makes of each sample's other modalities.

    C_ij = <t_i, mu_j(t_i)> = sum_m w_m <t_i, z_j^m> / sqrt(sum_mn w_m w_n <z_j^m, z_j^n>), w = softmax_m(<t_i, z_j^m> / 0.1)
    over what sample j has, so that nothing of size (B, B, d) is needed. To it comes consistency with a masked view, in which a
    sample, with a probability that rises from 0 to `masked` over `steps` calls in training mode, lacks one of its modalities:
    1 - <mu_masked, mu_full> + (s_masked - sg[s_full])^2, s = <t_i, mu_i> and sg without gradient. No code is public; which of
    the two views is held still, and that the contrast sees the full one, is our reading.

    Parts are `query->tuple`, `tuple->query` and, in training mode, `masked view`. Samples take part that have the query and
    anything else.

    Args:
        query: the modality that asks.
        tau: temperature of the cosines. learnable: learn 1 / tau.
        tau_weights: that of the weights.
        smoothing: label smoothing in [0, 1).
        mask_weight: of the masked view; 0 leaves it out.
        masked, steps: the probability of a masked view, at the end, and the number of calls until then.
        seed: of the masked views; the count of calls is saved with the module.

    >>> z = torch.eye(2)
    >>> SCALAR(tau=1.0, smoothing=0).eval()({"text": z, "image": z, "audio": z})
    tensor(0.3133)
    """

    calls: Tensor

    @typed
    def __init__(
        self,
        query: str = "text",
        tau: Tau = 0.07,
        tau_weights: Positive = 0.1,
        smoothing: Share = 0.1,
        learnable: bool = False,
        mask_weight: Weight = 1.0,
        masked: Share = 0.5,
        steps: Positive = 2000,
        seed: int = 0,
    ):
        super().__init__()
        self.anchor: str = query
        self.temperature = Temperature(tau, learnable)
        self.tau_weights, self.smoothing, self.mask_weight = tau_weights, smoothing, mask_weight
        self.term_weights = {"query->tuple": 0.5, "tuple->query": 0.5, "masked view": mask_weight}
        self.masked, self.steps, self.seed = masked, steps, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        query, names = batch.z[self.anchor], [n for n in batch.names if n != self.anchor]
        rest, there = [batch.z[n] for n in names], batch.there(names)  # (b, d) x K, (b, K)
        keep = None
        if any(m is not None for m in batch.keep.values()):
            keep = batch.there([self.anchor])[:, 0] & there.any(1)
            there = there | ~keep[:, None]  # rows that do not count need some weights
        gram = gram_matrix(torch.stack(rest, 1))  # (b, K, K)

        def logits(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
            return score_block(rows[0], columns[2:], columns[0], columns[1], self.tau_weights) * parameters[0]

        scale = self.temperature(query)
        columns = [gram, there, *rest]
        found = pair_lse(logits, [query], columns, [scale], keep, width=2 * len(rest))
        out = dict(zip(("query->tuple", "tuple->query"), smoothed(found, self.smoothing), strict=True))
        if self.mask_weight and self.training:
            dots = torch.stack([(query * z).sum(1) for z in rest])  # (K, b)
            full = self.view(dots, gram, there)
            masked = self.view(dots, gram, self.some(there))
            overlap = self.overlap(full[1], masked[1], gram)
            out["masked view"] = ranks.mean(1 - overlap + (masked[0] - full[0].detach()).square(), keep)
        return out

    def view(self, dots: Tensor, gram: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """A sample's own score (b,) and weights (K, b) over the modalities that are there (b, K)."""
        weights = weigh(dots, there.T, self.tau_weights)
        return cosine(dots, gram.permute(1, 2, 0), weights), weights

    def overlap(self, v: Tensor, w: Tensor, gram: Tensor) -> Tensor:
        """<normalise(sum v_k z^k), normalise(sum w_k z^k)> (b,) from weights (K, b) and Gram matrices (b, K, K)."""
        vw, vv, ww = (torch.einsum("kb,bkl,lb->b", a, gram, b) for a, b in ((v, w), (v, v), (w, w)))
        return vw * (vv * ww).clamp(min=SHORTEST**4).rsqrt()

    def some(self, there: Tensor) -> Tensor:
        """(b, K): what is left in a masked view, one modality less in some of the samples that have two or more."""
        generator = torch.Generator().manual_seed(hash((self.seed, int(self.calls))))
        share = self.masked * min(1.0, int(self.calls) / self.steps)
        self.calls += 1
        rows = slice(ranks.rank() * len(there), (ranks.rank() + 1) * len(there))
        draws = torch.rand(len(there) * ranks.world(), 1 + there.shape[1], generator=generator)[rows].to(there.device)
        last = draws[:, 1:].masked_fill(~there, -1).argmax(1)  # one of those that are there, each as likely
        drop = (draws[:, 0] < share) & (there.sum(1) > 1)
        return there & ~(torch.nn.functional.one_hot(last, there.shape[1]).bool() & drop[:, None])
