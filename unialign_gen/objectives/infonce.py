"""InfoNCE over pairs of modalities: all of them (eq 1 of UniAlign), each with one anchor, each with the mean of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import torch
from torch import Tensor

from ..errors import InputError
from .batch import Batch
from .centroid import of_unit as unit_centroid
from .kernel import pair_lse
from .objective import Objective, Temperature
from .options import Tau, Weight, typed


def dot_block(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """Cosines times a shared scale: the logits of InfoNCE, (r, c)."""
    return (rows[0] * parameters[0]) @ columns[0].T


def directions(x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """InfoNCE from x to y and from y to x, unit rows (b, d): mean_i [LSE_k l_ik - l_ii] over samples that have both.

    Zero, without gradient, where no sample has.
    """
    found = pair_lse(dot_block, [x], [y], [scale], keep)
    return found.rows - found.own, found.columns - found.own


def symmetric(x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None) -> Tensor:
    """The mean of both `directions`: CLIP's loss."""
    return torch.stack(directions(x, y, scale, keep)).mean()


def pair_of(name: tuple[str, str] | str) -> tuple[str, str]:
    """("image", "text") as it is; "image->text", which a YAML file can hold, as that; an `InputError` if it is neither."""
    parts = tuple(p.strip() for p in name.split("->")) if isinstance(name, str) else tuple(name)
    if len(parts) != 2 or not all(parts):
        raise InputError(f"a pair of modalities is written m->n, got {name!r}")
    return parts[0], parts[1]


class InfoNCE(Objective):
    """Eq 1: the weighted mean over ordered pairs of modalities m != n of the contrast of m's samples with n's.

    The paper sums over samples; here it is their mean, so that the loss does not grow with the batch. Parts are the contrasts
    of the ordered pairs, by the name `m->n`.

    Args:
        tau: temperature of the cosines.
        learnable: learn 1 / tau, at most 100 (a parameter of this module; give it to the optimiser).
        weights: ordered pair -> w_mn >= 0; a pair that is not named weighs 1. A pair is (m, n) or, as in `parts`, "m->n".

    Raises:
        InputError: an option out of its range; a pair that is not written m->n.

    >>> z = torch.eye(2)
    >>> InfoNCE(tau=1.0)({"image": z, "text": z})                                    # log(e + 1) - 1
    tensor(0.3133)
    """

    @typed
    def __init__(self, tau: Tau = 0.07, learnable: bool = False, weights: Mapping[tuple[str, str] | str, Weight] | None = None):
        super().__init__()
        self.temperature = Temperature(tau, learnable)
        self.weights = {pair_of(pair): w for pair, w in (weights or {}).items()}

    def problem(self, names: Sequence[str]) -> str | None:
        pairs = list(permutations(names, 2))
        if unknown := sorted(set(self.weights) - set(pairs)):
            return f"InfoNCE: weights for {unknown}, which are no pairs of {list(names)}"
        if pairs and not any(self.weights.get(pair, 1.0) for pair in pairs):
            return "InfoNCE: every pair of modalities has weight 0"
        return super().problem(names)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        scale = self.temperature(next(iter(batch.z.values())))
        for m, n in combinations(batch.names, 2):
            if self.weights.get((m, n), 1.0) or self.weights.get((n, m), 1.0):
                out[f"{m}->{n}"], out[f"{n}->{m}"] = directions(batch.z[m], batch.z[n], scale, batch.both(m, n))
        return out

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        weights = {name: self.weights.get(pair_of(name), 1.0) for name in parts}
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum() / sum(weights.values())


class AnchoredInfoNCE(Objective):
    """InfoNCE of every modality with one anchor, both ways: what ImageBind, VAST and LanguageBind train with.

    The mean over the other modalities of (a->n + n->a) / 2; with two modalities CLIP's loss. Parts are the other modalities'.

    Args:
        anchor: the modality that every other is contrasted with.
        tau, learnable: as in `InfoNCE`.

    >>> z = torch.eye(2)
    >>> AnchoredInfoNCE(tau=1.0).parts({"image": z, "text": z})
    {'text': tensor(0.3133)}
    """

    averaged = True

    @typed
    def __init__(self, anchor: str = "image", tau: Tau = 0.07, learnable: bool = False):
        super().__init__()
        self.anchor: str = anchor
        self.temperature = Temperature(tau, learnable)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        anchor = batch.z[self.anchor]
        scale, others = self.temperature(anchor), [n for n in batch.names if n != self.anchor]
        return {n: symmetric(anchor, batch.z[n], scale, batch.both(self.anchor, n)) for n in others}


class MeanOfOthers(Objective):
    """InfoNCE of each modality with the normalised mean of a sample's other modalities, both ways: a plain baseline.

    Parts are the modalities'; the loss is their mean. The mean is over what a sample has.

    Args:
        tau, learnable: as in `InfoNCE`.

    >>> z = torch.eye(2)
    >>> MeanOfOthers(tau=1.0)({"image": z, "text": z, "audio": z})
    tensor(0.3133)
    """

    averaged = True

    @typed
    def __init__(self, tau: Tau = 0.07, learnable: bool = False):
        super().__init__()
        self.temperature = Temperature(tau, learnable)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        out = {}
        scale = self.temperature(next(iter(batch.z.values())))
        for name in batch.names:
            others = [n for n in batch.names if n != name]
            keep = None
            if any(m is not None for m in batch.keep.values()):
                keep = batch.there([name])[:, 0] & batch.there(others).any(1)
            rest = unit_centroid(torch.stack([batch.z[n] for n in others], 1), None)
            out[name] = symmetric(batch.z[name], rest, scale, keep)
        return out
