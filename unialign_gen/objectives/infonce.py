"""InfoNCE over pairs of modalities: all of them (eq 1 of UniAlign), or each with one anchor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor, nn

from . import ranks
from .batch import Batch, Embeddings, Masks, full_precision, nothing, prepare
from .kernel import pair_lse


def dot_block(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """Cosines times a shared scale: the logits of InfoNCE."""
    return (rows[0] * parameters[0]) @ columns[0].T


def directions(x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """InfoNCE from x to y and from y to x, unit rows (b, d): mean_i [LSE_k l_ik - l_ii] over samples that have both.

    Zero, without gradient, where no sample has.
    """
    if keep is not None and int(ranks.total(keep.sum())) == 0:
        return nothing([x, y]), nothing([x, y])
    forward, backward, _ = pair_lse(dot_block, [x], [y], [scale], keep)
    positive = scale * ranks.mean((x * y).sum(1), keep)
    return forward - positive, backward - positive


class Temperature(nn.Module):
    """The factor 1 / tau of the logits: fixed, or learnt as its logarithm, as in CLIP (at most 100)."""

    MOST = math.log(100)

    def __init__(self, tau: float, learnable: bool):
        super().__init__()
        if not tau > 0:
            raise ValueError(f"tau must be positive, got {tau}")
        log_scale = torch.tensor(-math.log(tau))
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)
        self.learnable = learnable

    def forward(self, like: Tensor) -> Tensor:
        log_scale = self.log_scale.clamp(max=self.MOST) if self.learnable else self.log_scale
        return log_scale.to(like.device, like.dtype).exp()


def pair_of(name: tuple[str, str] | str) -> tuple[str, str]:
    """("image", "text") as it is; "image->text", which a YAML file can hold, as that.

    Raises:
        ValueError: neither.
    """
    parts = tuple(p.strip() for p in name.split("->")) if isinstance(name, str) else tuple(name)
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"a pair of modalities is written m->n, got {name!r}")
    return parts[0], parts[1]


class InfoNCE(nn.Module):
    """Eq 1: the weighted mean over ordered pairs of modalities m != n of the contrast of m's samples with n's.

    The paper sums over samples; here it is their mean, so that the loss does not grow with the batch.

    Args:
        tau: temperature of the cosines.
        learnable: learn 1 / tau (a parameter of this module; give it to the optimiser).
        weights: ordered pair -> w_mn >= 0; a pair that is not named weighs 1. A pair is (m, n) or, as in `parts`, "m->n".
    """

    def __init__(
        self, tau: float = 0.07, learnable: bool = False, weights: Mapping[tuple[str, str] | str, float] | None = None
    ):
        super().__init__()
        self.temperature = Temperature(tau, learnable)
        self.weights = {pair_of(pair): w for pair, w in (weights or {}).items()}
        if any(w < 0 for w in self.weights.values()):
            raise ValueError(f"pair weights must not be negative, got {self.weights}")

    def pair_weights(self, names: list[str]) -> dict[tuple[str, str], float]:
        """w_mn for every ordered pair of these modalities.

        Raises:
            ValueError: a weight for a pair that is not there; weights that are all 0.
        """
        pairs = list(permutations(names, 2))
        if set(self.weights) - set(pairs):
            raise ValueError(f"weights for {sorted(set(self.weights) - set(pairs))}, which are no pairs of {names}")
        weights = {pair: self.weights.get(pair, 1.0) for pair in pairs}
        if sum(weights.values()) == 0:
            raise ValueError("every pair of modalities has weight 0")
        return weights

    @full_precision
    def parts(self, embeddings: Embeddings, masks: Masks | None = None) -> dict[str, Tensor]:
        """The contrast of each ordered pair, by the name `m->n`, before weights."""
        return self._parts(prepare(embeddings, masks))

    def _parts(self, batch: Batch) -> dict[str, Tensor]:
        weights, out = self.pair_weights(batch.names), {}
        scale = self.temperature(next(iter(batch.z.values())))
        for i, m in enumerate(batch.names):
            for n in batch.names[i + 1 :]:
                if weights[m, n] or weights[n, m]:
                    out[f"{m}->{n}"], out[f"{n}->{m}"] = directions(batch.z[m], batch.z[n], scale, batch.both(m, n))
        return out

    @full_precision
    def forward(self, embeddings: Embeddings, masks: Masks | None = None) -> Tensor:
        """Scalar; arguments and errors as in `batch.prepare`."""
        batch = prepare(embeddings, masks)
        weights, parts = self.pair_weights(batch.names), self._parts(batch)
        summed = [w * parts[f"{m}->{n}"] for (m, n), w in weights.items() if w]
        return torch.stack(summed).sum() / sum(weights.values())


class AnchoredInfoNCE(nn.Module):
    """InfoNCE of every modality with one anchor, both ways: what ImageBind, VAST and LanguageBind train with.

    The mean over the other modalities of (a->n + n->a) / 2; with two modalities CLIP's loss.

    Args:
        anchor: the modality that every other is contrasted with.
        tau, learnable: as in `InfoNCE`.
    """

    def __init__(self, anchor: str = "image", tau: float = 0.07, learnable: bool = False):
        super().__init__()
        self.anchor = anchor
        self.temperature = Temperature(tau, learnable)

    @full_precision
    def parts(self, embeddings: Embeddings, masks: Masks | None = None) -> dict[str, Tensor]:
        """Each modality's symmetric contrast with the anchor, by its name."""
        batch = prepare(embeddings, masks, self.anchor)
        anchor = batch.z[self.anchor]
        scale, out = self.temperature(anchor), {}
        for name in batch.names:
            if name != self.anchor:
                out[name] = torch.stack(directions(anchor, batch.z[name], scale, batch.both(self.anchor, name))).mean()
        return out

    def forward(self, embeddings: Embeddings, masks: Masks | None = None) -> Tensor:
        """Scalar; arguments and errors as in `batch.prepare`."""
        return torch.stack(list(self.parts(embeddings, masks).values())).mean()
