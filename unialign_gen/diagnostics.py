"""What goes wrong in a shared space, in numbers: conflicts of InfoNCE, Hoelder divergence, uniformity, modality gap.

Every function takes modality -> embeddings (N, d) of any norm but zero, row i of each showing one sample, works through them in
chunks without gradient, and holds no N x N matrix: 200 thousand rows are fine. Equation numbers are those of UniAlign
(arXiv 2602.09507).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.objectives.batch import Embeddings, as_unit, full_precision, prepare
from unialign_gen.objectives.kernel import kernel_terms, slices

ROWS = 512


@dataclass
class Conflicts:
    """The two conflicts of multi-modal InfoNCE at an anchor.

    zeta, chi: eq 4, (rows,) each, in [-1, 1] and [0, 1]. mean_cosine: mu of corollary 2, over pairs of the pulling modalities.
    bound: its right side, which the mean of chi cannot fall below.
    """

    zeta: Tensor
    chi: Tensor
    mean_cosine: float
    bound: float

    def summary(self) -> dict[str, float]:
        return {
            "zeta": float(self.zeta.mean()),
            "chi": float(self.chi.mean()),
            "bound": self.bound,
            "mean_cosine": self.mean_cosine,
        }


@torch.no_grad()
@full_precision
def conflicts(
    embeddings: Embeddings,
    anchor: str = "image",
    tau: float = 0.07,
    weights: Mapping[str, float] | None = None,
    rows: int | None = None,
    seed: int = 0,
) -> Conflicts:
    """zeta_a = cos(V_a, Phi_a) and chi_a = 1 - |V_a| / sum_n (w_an / tau), eq 3 and 4.

    V_a = sum_n (w_an / tau) z^n pulls the anchor; Phi_a = sum_n (w_an / tau) sum_k p_k z_k^n, p the softmax of InfoNCE over all
    N samples, pushes it.

    Args:
        weights: modality -> w_an > 0; 1 by default.
        rows: measure this many of the samples, drawn with `seed`, against all; all by default.

    Raises:
        ValueError: as `objectives.prepare`; a weight that is not positive or of an unknown modality.
    """
    z = prepare(embeddings, None, anchor).z
    others = [n for n in z if n != anchor]
    weights = dict(weights or {})
    if set(weights) - set(others) or any(not w > 0 for w in weights.values()):
        raise ValueError(f"weights are positive numbers for some of {others}, got {weights}")
    w = {n: weights.get(n, 1.0) / tau for n in others}
    picked = torch.arange(len(z[anchor]))
    if rows is not None and rows < len(picked):
        picked = torch.randperm(len(picked), generator=torch.Generator().manual_seed(seed))[:rows].sort().values
    zeta, chi = [], []
    for part in slices(len(picked), ROWS):
        at = picked[part].to(z[anchor].device)
        query = z[anchor][at]
        pull, push = torch.zeros_like(query), torch.zeros_like(query)
        for n in others:
            pull += w[n] * z[n][at]
            push += w[n] * softmax_mean(query, z[n], 1 / tau)
        zeta.append(F.cosine_similarity(pull, push, dim=1))
        chi.append(1 - torch.linalg.vector_norm(pull, dim=1) / sum(w.values()))
    mu = mean_cosine({n: z[n] for n in others}) if len(others) > 1 else 1.0
    return Conflicts(torch.cat(zeta), torch.cat(chi), mu, corollary_2_bound(len(z), mu))


def softmax_mean(query: Tensor, z: Tensor, scale: float) -> Tensor:
    """sum_k softmax_k(scale <query_i, z_k>) z_k, (rows, d): attention of the queries to z, which is its own value."""
    return F.scaled_dot_product_attention(query[None, None], z[None, None], z[None, None], scale=scale)[0, 0]


def corollary_2_bound(modalities: int, mean_cosine: float) -> float:
    """Eq 7: E[chi_a] >= 1 - sqrt((1 + (M - 2) mu) / (M - 1)), for equal weights.

    mu is the mean cosine between the M - 1 modalities that pull; with it the bound is Jensen's inequality and holds in every
    sample. With two modalities nothing can cancel, and the bound is 0.

    Raises:
        ValueError: fewer than two modalities.
    """
    if modalities < 2:
        raise ValueError(f"at least 2 modalities are needed, got {modalities}")
    return 1 - math.sqrt(max(0.0, 1 + (modalities - 2) * mean_cosine) / (modalities - 1))


@torch.no_grad()
@full_precision
def mean_cosine(embeddings: Embeddings) -> float:
    """The mean over pairs of modalities and samples of <z_i^m, z_i^n>, in [-1, 1]."""
    z = prepare(embeddings).z
    return sum(float((z[m] * z[n]).sum(1).mean()) for m, n in combinations(z, 2)) / math.comb(len(z), 2)


def log_kernel_means(x: Tensor, y: Tensor, tau: float, same: bool = False) -> Tensor:
    """log mean_k exp(-|x_i - y_k|^2 / 2 tau^2), (N,), of unit rows; `same` leaves k = i out."""
    out = []
    for part in slices(len(x), ROWS):
        terms = kernel_terms(x[part] @ y.T, tau, geodesic=False)
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
) -> float:
    """The kernel estimate of the global Hoelder divergence between M modalities' distributions, eq 24. O(M N^2 d) time.

    Args:
        tau: bandwidth, or one a modality. The kernels' normalising constants are kept; with one bandwidth they cancel.
        anchor: the modality whose points the product of densities is averaged over (eq 23); the first by default.
        leave_one_out: a point does not count in its own density in eq 22, which takes away a bias of small samples.
        anchor_averaging: average the product over every modality as anchor, which lowers the variance.

    Returns:
        The divergence. Zero in the limit for equal distributions; the estimate itself can be negative.

    Raises:
        ValueError: as `objectives.prepare`; an anchor or a bandwidth that does not fit.
    """
    z = prepare(embeddings, None, anchor).z
    names, m, d = list(z), len(z), next(iter(z.values())).shape[1]
    widths = dict(tau) if isinstance(tau, Mapping) else dict.fromkeys(names, tau)
    if set(widths) != set(names) or any(not t > 0 for t in widths.values()):
        raise ValueError(f"a positive bandwidth is needed for each of {names}, got {widths}")
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
def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> float:
    """Wang and Isola 2020 (arXiv 2005.10242): mean |x_i - y_i|^alpha of pairs (N, d), in [0, 2^alpha]."""
    return float(torch.linalg.vector_norm(as_unit(x) - as_unit(y), dim=1).pow(alpha).mean())


@torch.no_grad()
@full_precision
def uniformity(x: Tensor, t: float = 2.0) -> float:
    """Wang and Isola 2020: log of the mean of exp(-t |x_i - x_j|^2) over pairs i != j of (N, d); at most 0.

    Not eq 9, which takes the mean over i of the logarithm.
    """
    z = as_unit(x)
    return log_mean(log_kernel_means(z, z, 1 / math.sqrt(2 * t), same=True))


@torch.no_grad()
@full_precision
def modality_gap(embeddings: Embeddings, ridge: float = 1e-3, seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each pair of modalities, by the name `m|n`: how far apart their distributions are.

    Returns:
        `distance`: between their means (Liang et al. 2022, arXiv 2203.02053), in [0, 2]; `separability`: the accuracy, on
        held-out samples, of a linear least-squares probe that tells the two apart: 0.5 where they mix, 1 where they do not.
        `cosine`: the mean of <z_i^m, z_i^n>. `n`: samples; half of them fit the probe, half test it.

    Raises:
        ValueError: as `objectives.prepare`; fewer than four samples.
    """
    z = prepare(embeddings).z
    count = len(next(iter(z.values())))
    if count < 4:
        raise ValueError(f"at least 4 samples are needed to fit and test a probe, got {count}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    fit, test = order[: count // 2], order[count // 2 :]
    out: dict[str, dict[str, Any]] = {}
    for m, n in combinations(z, 2):
        out[f"{m}|{n}"] = {
            "distance": float(torch.linalg.vector_norm(z[m].mean(0) - z[n].mean(0))),
            "separability": probe_accuracy(z[m], z[n], fit, test, ridge),
            "cosine": float((z[m] * z[n]).sum(1).mean()),
            "n": count,
        }
    return out


def probe_accuracy(x: Tensor, y: Tensor, fit: Tensor, test: Tensor, ridge: float) -> float:
    """Share of the rows `test` of x and y (N, d) on their side of the ridge regression fitted on the rows `fit`."""
    middle = (x[fit].mean(0) + y[fit].mean(0)) / 2
    scatter = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for z in (x, y):
        for part in slices(len(fit), 16 * ROWS):
            rows = (z[fit[part]] - middle).double()
            scatter += rows.T @ rows
    scatter /= 2 * len(fit)
    scatter.diagonal().add_(ridge * scatter.diagonal().mean())
    direction = torch.linalg.solve(scatter, (x[fit].mean(0) - y[fit].mean(0)).double()).to(x.dtype)
    sides = [((x[test] - middle) @ direction) > 0, ((y[test] - middle) @ direction) < 0]
    return float(torch.cat(sides).double().mean())
