"""PMRL (arXiv 2507.17343): alignment as a rank-one Gram matrix, without an anchor.

Its singular values and leading vectors come from the M x M Gram matrix of a sample, not from a decomposition of the
(d, M) matrix itself: s^2 are the Gram matrix's eigenvalues, and u_1 = Z v_1 / s_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import ranks
from .batch import Embeddings, Masks, full_precision, nothing, prepare
from .infonce import dot_block
from .kernel import pair_lse
from .volume import gram_matrix, safe_root

CLOSEST = 1e-6  # of two eigenvalues, below which the leading vector's direction is not well defined


class _Eigen(torch.autograd.Function):
    """Eigenvalues (B, M), falling, and the leading eigenvector (B, M), with finite gradients where eigenvalues meet."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        values, vectors = torch.linalg.eigh(gram)
        values, vectors = values.flip(1), vectors.flip(2)
        ctx.save_for_backward(values, vectors)
        return values, vectors[..., 0].clone()

    @staticmethod
    def backward(ctx: Any, g_values: Tensor, g_leading: Tensor) -> Tensor:  # type: ignore[override]
        values, vectors = ctx.saved_tensors
        out = vectors @ (g_values[..., None] * vectors.mT)
        gap = values[:, :1] - values
        towards = (vectors.mT @ g_leading[..., None])[..., 0] * gap / (gap.square() + CLOSEST**2)
        turn = (vectors @ towards[..., None]) @ vectors[:, None, :, 0]
        return out + (turn + turn.mT) / 2


def singular_values(z: Sequence[Tensor], anchor: int = 0) -> tuple[Tensor, Tensor]:
    """Of each sample's matrix [z^1 .. z^M]: singular values (B, M), falling, and the leading left vector (B, d).

    The vector's sign, which is arbitrary, is chosen so that it points along modality `anchor`.
    """
    values, leading = _Eigen.apply(gram_matrix(z))
    s = safe_root(values)
    u = sum(w[:, None] * part for w, part in zip(leading.unbind(1), z, strict=True)) / s[:, :1]
    sign = torch.where((u.detach() * z[anchor].detach()).sum(1, keepdim=True) < 0, -1.0, 1.0)
    return s, u * sign


class PMRL(nn.Module):
    """Softmax over singular values, the largest being the target, and contrast between samples' leading vectors.

    Intra: cross-entropy of s / tau1 with the first. Inter: InfoNCE of the leading left vectors u_i / tau2 against one another.
    Only samples that have every modality take part.

    Args:
        tau1, tau2: temperatures of the singular values and of the leading vectors.
        inter_weight: of the second term.
    """

    def __init__(self, tau1: float = 0.05, tau2: float = 0.1, inter_weight: float = 1.0):
        super().__init__()
        if not (tau1 > 0 and tau2 > 0):
            raise ValueError(f"temperatures must be positive, got {tau1} and {tau2}")
        self.tau1, self.tau2, self.inter_weight = tau1, tau2, inter_weight

    @full_precision
    def parts(self, embeddings: Embeddings, masks: Masks | None = None) -> dict[str, Tensor]:
        """`intra` and `inter`, before weights; zero, without gradient, where no sample is complete."""
        batch = prepare(embeddings, masks)
        z, keep = list(batch.z.values()), batch.both(*batch.names)
        if keep is not None:
            if int(ranks.total(keep.sum())) == 0:
                return {"intra": nothing(z), "inter": nothing(z)}
            z = [torch.where(keep[:, None], part, _filler(part)) for part in z]
        s, u = singular_values(z)
        intra = ranks.mean((s / self.tau1).logsumexp(1) - s[:, 0] / self.tau1, keep)
        lse, _, _ = pair_lse(dot_block, [u], [u], [u.new_tensor(1 / self.tau2)], keep)
        return {"intra": intra, "inter": lse - ranks.mean(u.square().sum(1), keep) / self.tau2}

    def forward(self, embeddings: Embeddings, masks: Masks | None = None) -> Tensor:
        """Scalar; arguments and errors as in `batch.prepare`."""
        parts = self.parts(embeddings, masks)
        return parts["intra"] + self.inter_weight * parts["inter"]


def _filler(z: Tensor) -> Tensor:
    """Any unit vector: stands for rows that do not count, whose zeros have no leading direction."""
    out = torch.zeros_like(z[:1])
    out[:, 0] = 1
    return out
