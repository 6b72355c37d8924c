"""What goes wrong in a shared space, in numbers: conflicts of InfoNCE, Hoelder divergence, uniformity, modality gap.

Every function takes modality -> embeddings (N, d) of any norm but zero, row i of each showing one sample, and optionally
modality -> bool (N,), which samples have it. All work in chunks without gradient and hold no N x N matrix: 200 thousand rows
are fine. Equation numbers are those of UniAlign (arXiv 2602.09507).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.objectives.batch import Batch, Embeddings, Masks, as_unit, full_precision, prepare
from unialign_gen.objectives.kernel import kernel_terms, slices

__all__ = [
    "Conflicts",
    "alignment",
    "conflicts",
    "corollary_2_bound",
    "hoelder_divergence",
    "mean_cosine",
    "modality_gap",
    "uniformity",
]

ROWS = 512


@dataclass
class Conflicts:
    """The two conflicts of multi-modal InfoNCE at an anchor.

    zeta, chi: eq 4, (rows,) each, in [-1, 1] and [0, 1]. mean_cosine: mu of corollary 2, over pairs of the pulling modalities.
    bound: its right side, which the mean of chi cannot fall below; None where eq 7 says nothing, with unequal weights or
    with samples that lack a modality.

    >>> import torch
    >>> Conflicts(torch.tensor([0.5]), torch.tensor([0.25]), mean_cosine=0.0, bound=None).summary()
    {'zeta': 0.5, 'chi': 0.25, 'mean_cosine': 0.0}
    """

    zeta: Tensor
    chi: Tensor
    mean_cosine: float
    bound: float | None

    def summary(self) -> dict[str, float]:
        """The means, and the bound where there is one."""
        bound = {} if self.bound is None else {"bound": self.bound}
        return {"zeta": float(self.zeta.mean()), "chi": float(self.chi.mean()), **bound, "mean_cosine": self.mean_cosine}


@torch.no_grad()
@full_precision
def conflicts(
    embeddings: Embeddings,
    anchor: str = "image",
    tau: float = 0.07,
    weights: Mapping[str, float] | None = None,
    rows: int | None = None,
    seed: int = 0,
    masks: Masks | None = None,
) -> Conflicts:
    """zeta_a = cos(V_a, Phi_a) and chi_a = 1 - |V_a| / sum_n (w_an / tau), eq 3 and 4.

    V_a = sum_n (w_an / tau) z^n pulls the anchor; Phi_a = sum_n (w_an / tau) sum_k p_k z_k^n, p the softmax of InfoNCE over all
    samples that have n, pushes it. Sums over n are over what a sample has; samples count that have the anchor and another.

    Args:
        tau: temperature of InfoNCE, above 0.
        weights: modality -> w_an > 0; 1 by default.
        rows: measure this many of the samples, drawn with `seed`, against all; all by default.
        masks: modality -> bool (N,), the samples that have it.

    Raises:
        InputError: as `objectives.prepare`; no such anchor; a weight that is not positive or of an unknown modality; masks that
            leave no sample.

    >>> import torch
    >>> z = {"image": torch.eye(3), "text": torch.eye(3), "audio": torch.eye(3).roll(1, 0)}
    >>> conflicts(z, "image").chi                                                    # two pulls at right angles: 1 - 1/sqrt(2)
    tensor([0.2929, 0.2929, 0.2929])
    """
    if anchor not in embeddings:
        raise InputError(f"the anchor {anchor!r} is not among the modalities {list(embeddings)}")
    if not 0 < tau < math.inf:
        raise InputError(f"tau must be a number above 0, got {tau}")
    batch = prepare(embeddings, masks)
    z, others = batch.z, [n for n in batch.names if n != anchor]
    weights = dict(weights or {})
    if set(weights) - set(others) or any(not 0 < w < math.inf for w in weights.values()):
        raise InputError(f"weights are positive numbers for some of {others}, got {weights}")
    w = {n: weights.get(n, 1.0) / tau for n in others}
    there = batch.there(others)  # (N, M - 1)
    picked = (batch.there([anchor])[:, 0] & there.any(1)).nonzero()[:, 0].cpu()
    if len(picked) == 0:
        raise InputError(f"no sample has {anchor!r} and another modality")
    if rows is not None and rows < len(picked):
        picked = picked[torch.randperm(len(picked), generator=torch.Generator().manual_seed(seed))[:rows].sort().values]
    candidates = {n: z[n] if batch.keep[n] is None else z[n][batch.keep[n]] for n in others}
    zeta, chi = [], []
    for part in slices(len(picked), ROWS):
        at = picked[part].to(z[anchor].device)
        query = z[anchor][at]  # (rows, d)
        pull, push, whole = torch.zeros_like(query), torch.zeros_like(query), torch.zeros_like(query[:, 0])
        for k, n in enumerate(others):
            has = there[at, k].to(query.dtype)  # (rows,)
            pull += w[n] * has[:, None] * z[n][at]
            if len(candidates[n]):  # attention of the queries to the candidates, which are their own values
                keys = candidates[n][None, None]
                mean = F.scaled_dot_product_attention(query[None, None], keys, keys, scale=1 / tau)[0, 0]  # (rows, d)
                push += w[n] * has[:, None] * mean
            whole += w[n] * has
        zeta.append(F.cosine_similarity(pull, push, dim=1))
        chi.append((1 - torch.linalg.vector_norm(pull, dim=1) / whole).clamp(min=0))
    mu = cosine_of_pairs(batch, others, picked.to(z[anchor].device)) if len(others) > 1 else 1.0
    holds = len(set(w.values())) == 1 and bool(there[picked].all()) and mu is not None
    return Conflicts(
        torch.cat(zeta), torch.cat(chi), math.nan if mu is None else mu, corollary_2_bound(len(z), mu or 0.0) if holds else None
    )


def corollary_2_bound(modalities: int, mean_cosine: float) -> float:
    """Eq 7: E[chi_a] >= 1 - sqrt((1 + (M - 2) mu) / (M - 1)), for equal weights.

    mu is the mean cosine between the M - 1 modalities that pull; with it the bound is Jensen's inequality and holds in every
    sample. With two modalities nothing can cancel, and the bound is 0.

    Raises:
        InputError: fewer than two modalities.

    >>> corollary_2_bound(5, mean_cosine=0.0)
    0.5
    """
    if modalities < 2:
        raise InputError(f"at least 2 modalities are needed, got {modalities}")
    return 1 - math.sqrt(max(0.0, 1 + (modalities - 2) * mean_cosine) / (modalities - 1))


def cosine_of_pairs(batch: Batch, names: Sequence[str], rows: Tensor | None = None) -> float | None:
    """The mean of <z_i^m, z_i^n> over pairs m, n of the named modalities and samples that have both; None if none has."""
    total, count, some = 0.0, 0, slice(None) if rows is None else rows
    for m, n in combinations(names, 2):
        both = batch.there([m, n]).all(1)[some]
        cosines = (batch.z[m] * batch.z[n]).sum(1)[some]
        total, count = total + float(cosines[both].sum()), count + int(both.sum())
    return total / count if count else None


@torch.no_grad()
@full_precision
def mean_cosine(embeddings: Embeddings, masks: Masks | None = None) -> float:
    """The mean over pairs of modalities and the samples that have both of <z_i^m, z_i^n>, in [-1, 1].

    Raises:
        InputError: as `objectives.prepare`; no sample has two modalities.

    >>> import torch
    >>> mean_cosine({"image": torch.eye(2), "text": torch.ones(2, 2)})
    0.7071067690849304
    """
    batch = prepare(embeddings, masks)
    found = cosine_of_pairs(batch, batch.names)
    if found is None:
        raise InputError("no sample has two modalities")
    return found


def log_kernel_means(x: Tensor, y: Tensor, tau: float, same: bool = False) -> Tensor:
    """log mean_k exp(-|x_i - y_k|^2 / 2 tau^2), (N,), of unit rows; `same` leaves k = i out."""
    out = []
    for part in slices(len(x), ROWS):
        terms = kernel_terms(x[part] @ y.T, tau, geodesic=False)  # (rows, N)
        if same:
            terms[torch.arange(len(terms)), torch.arange(part.start, part.stop)] = -torch.inf
        out.append(terms.logsumexp(1))
    return torch.cat(out) - math.log(len(y) - same)


def log_mean(logs: Tensor) -> float:
    """log mean exp."""
    return float(logs.double().logsumexp(0)) - math.log(len(logs))


@torch.no_grad()
@full_precision
def hoelder_divergence(
    embeddings: Embeddings,
    tau: float | Mapping[str, float] = 0.07,
    anchor: str | None = None,
    leave_one_out: bool = False,
    anchor_averaging: bool = False,
    masks: Masks | None = None,
) -> float:
    """The kernel estimate of the global Hoelder divergence between M modalities' distributions, eq 24. O(M N^2 d) time.

    Args:
        tau: bandwidth, or one a modality. The kernels' normalising constants are kept; with one bandwidth they cancel.
        anchor: the modality whose points the product of densities is averaged over (eq 23); the first by default.
        leave_one_out: a point does not count in its own density in eq 22, which takes away a bias of small samples.
        anchor_averaging: average the product over every modality as anchor, which lowers the variance.
        masks: modality -> bool (N,): each modality's distribution is that of the samples that have it.

    Returns:
        The divergence. Zero in the limit for equal distributions; the estimate itself can be negative.

    Raises:
        InputError: as `objectives.prepare`; an anchor or a bandwidth that does not fit; a modality that no two samples have.

    >>> import torch
    >>> same = {"image": torch.eye(4), "text": torch.eye(4)}
    >>> abs(hoelder_divergence(same, tau=0.5)) < 1e-6
    True
    """
    if anchor is not None and anchor not in embeddings:
        raise InputError(f"the anchor {anchor!r} is not among the modalities {list(embeddings)}")
    batch = prepare(embeddings, masks)
    z = {n: rows if batch.keep[n] is None else rows[batch.keep[n]] for n, rows in batch.z.items()}
    names, m, d = list(z), len(z), next(iter(z.values())).shape[1]
    if few := [n for n in names if len(z[n]) < 2]:
        raise InputError(f"at least 2 samples of each modality are needed, {few[0]} has {len(z[few[0]])}")
    widths = dict(tau) if isinstance(tau, Mapping) else dict.fromkeys(names, tau)
    if set(widths) != set(names) or any(not 0 < t < math.inf for t in widths.values()):
        raise InputError(f"a positive bandwidth is needed for each of {names}, got {widths}")
    constant = {n: -d / 2 * math.log(2 * math.pi * t**2) for n, t in widths.items()}
    own = 0.0
    for n in names:
        own += log_mean((m - 1) * (log_kernel_means(z[n], z[n], widths[n], same=leave_one_out).double() + constant[n])) / m
    joint = []
    for a in names if anchor_averaging else [anchor or names[0]]:
        logs = [log_kernel_means(z[a], z[n], widths[n]).double() + constant[n] for n in names if n != a]
        joint.append(log_mean(torch.stack(logs).sum(0)))
    return own - log_mean(torch.tensor(joint, dtype=torch.float64))


@torch.no_grad()
@full_precision
def alignment(x: Tensor, y: Tensor, alpha: float = 2.0, mask: Tensor | None = None) -> float:
    """Wang and Isola 2020 (arXiv 2005.10242): mean |x_i - y_i|^alpha of pairs (N, d) that are there (N,), in [0, 2^alpha].

    Raises:
        InputError: a row that is zero, NaN or infinite; no pair.

    >>> import torch
    >>> round(alignment(torch.eye(2), torch.eye(2).flip(0)), 4)
    2.0
    """
    distances = torch.linalg.vector_norm(as_unit(x, keep=mask) - as_unit(y, keep=mask), dim=1).pow(alpha)  # (N,)
    distances = distances if mask is None else distances[mask]
    if len(distances) == 0:
        raise InputError("no sample has both modalities")
    return float(distances.mean())


@torch.no_grad()
@full_precision
def uniformity(x: Tensor, t: float = 2.0, mask: Tensor | None = None) -> float:
    """Wang and Isola 2020: log of the mean of exp(-t |x_i - x_j|^2) over pairs i != j of (N, d) that are there; at most 0.

    Not eq 9, which takes the mean over i of the logarithm.

    Raises:
        InputError: a row that is zero, NaN or infinite; fewer than two rows.

    >>> import torch
    >>> round(uniformity(torch.eye(3)), 4)                                           # all |x_i - x_j|^2 are 2
    -4.0
    """
    z = as_unit(x, keep=mask)
    z = z if mask is None else z[mask]
    if len(z) < 2:
        raise InputError(f"at least 2 samples are needed, got {len(z)}")
    return log_mean(log_kernel_means(z, z, 1 / math.sqrt(2 * t), same=True))


@torch.no_grad()
@full_precision
def modality_gap(
    embeddings: Embeddings, ridge: float = 1e-3, seed: int = 0, masks: Masks | None = None
) -> dict[str, dict[str, Any]]:
    """For each pair of modalities, by the name `m|n`: how far apart their distributions are, over samples that have both.

    Returns:
        `distance`: between their means (Liang et al. 2022, arXiv 2203.02053), in [0, 2]; `separability`: the accuracy, on
        held-out samples, of a linear least-squares probe that tells the two apart, a point on the border counting half: 0.5
        where they mix, 1 where they do not; `interval`: its 95 % interval (Wilson 1927), within [0, 1]. `cosine`: the mean of
        <z_i^m, z_i^n>. `n`: samples; half of them fit the probe, half test it.

    Raises:
        InputError: as `objectives.prepare`; fewer than four samples.

    >>> import torch
    >>> z = torch.eye(8)
    >>> gap = modality_gap({"image": z, "text": z})["image|text"]
    >>> gap["distance"], gap["separability"], gap["n"]
    (0.0, 0.5, 8)
    """
    batch = prepare(embeddings, masks)
    out: dict[str, dict[str, Any]] = {}
    for m, n in combinations(batch.names, 2):
        both = batch.both(m, n)
        x, y = (batch.z[k] if both is None else batch.z[k][both] for k in (m, n))
        count = len(x)
        if count < 4:
            raise InputError(f"{m}, {n}: at least 4 samples with both are needed to fit and test a probe, got {count}")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        fit, test = order[: count // 2], order[count // 2 :]
        accuracy = probe_accuracy(x, y, fit, test, ridge)
        out[f"{m}|{n}"] = {
            "distance": float(torch.linalg.vector_norm(x.mean(0) - y.mean(0))),
            "separability": accuracy,
            "interval": wilson(2 * len(test) * accuracy, 2 * len(test)),
            "cosine": float((x * y).sum(1).mean()),
            "n": count,
        }
    return out


def wilson(hits: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share `hits / count`, 95 %, within [0, 1]; all of that for no trial."""
    if not count:
        return 0.0, 1.0
    share = hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def probe_accuracy(x: Tensor, y: Tensor, fit: Tensor, test: Tensor, ridge: float) -> float:
    """Share of the rows `test` of x and y (N, d) on their side of the ridge regression fitted on the rows `fit`."""
    middle = (x[fit].mean(0) + y[fit].mean(0)) / 2  # (d,)
    scatter = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for z in (x, y):
        for part in slices(len(fit), 16 * ROWS):
            rows = (z[fit[part]] - middle).double()
            scatter += rows.T @ rows
    scatter /= 2 * len(fit)
    scatter.diagonal().add_(ridge * scatter.diagonal().mean())
    direction = torch.linalg.solve(scatter, (x[fit].mean(0) - y[fit].mean(0)).double()).to(x.dtype)
    sides = torch.cat([(x[test] - middle) @ direction, (middle - y[test]) @ direction])  # above 0: on its own side
    return float(((sides.sign() + 1) / 2).double().mean())
