"""PMRL (arXiv 2507.17343): alignment as a rank-one Gram matrix, without an anchor.

Its singular values and leading vectors come from the M x M Gram matrix of a sample, not from a decomposition of the
(d, M) matrix itself: s^2 are the Gram matrix's eigenvalues, and u_1 = Z v_1 / s_1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import ranks
from .batch import Batch
from .infonce import dot_block
from .kernel import first_order, pair_lse
from .objective import Objective
from .options import Positive, Weight, typed
from .volume import gram_matrix, safe_root

CLOSEST = 1e-6  # of two eigenvalues, below which the leading vector's direction is not well defined


class _Eigen(torch.autograd.Function):
    """Eigenvalues (B, M), falling, and the leading eigenvector (B, M), with finite gradients where eigenvalues meet."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        values, vectors = torch.linalg.eigh(gram)  # (B, M), (B, M, M)
        values, vectors = values.flip(1), vectors.flip(2)
        ctx.save_for_backward(gram, values, vectors)
        return values, vectors[..., 0].clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, g_values: Tensor, g_leading: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        _, values, vectors = ctx.saved_tensors
        out = vectors @ (g_values[..., None] * vectors.mT)
        gap = values[:, :1] - values
        towards = (vectors.mT @ g_leading[..., None])[..., 0] * gap / (gap.square() + CLOSEST**2)
        turn = (vectors @ towards[..., None]) @ vectors[:, None, :, 0]
        return (out + (turn + turn.mT) / 2,)


def singular_values(z: Sequence[Tensor], fix_signs: bool = True) -> tuple[Tensor, Tensor]:
    """Of each sample's matrix [z^1 .. z^M]: singular values (B, M), falling, and the leading left vector (B, d).

    The vector's sign is arbitrary. `fix_signs` chooses the one that points along the first modality; otherwise it is that of
    LAPACK's decomposition of the matrix itself, which takes longer.
    """
    values, leading = _Eigen.apply(gram_matrix(torch.stack(list(z), 1)))
    s = safe_root(values)  # (B, M)
    u = sum(w[:, None] * part for w, part in zip(leading.unbind(1), z, strict=True)) / s[:, :1]  # (B, d)
    towards = z[0] if fix_signs else torch.linalg.svd(torch.stack([x.detach() for x in z], 2), full_matrices=False)[0][..., 0]
    sign = torch.where((u.detach() * towards.detach()).sum(1, keepdim=True) < 0, -1.0, 1.0)  # (B, 1)
    return s, u * sign


class PMRL(Objective):
    """Softmax over singular values, the largest being the target, and contrast between samples' leading vectors.

    Intra: cross-entropy of s / tau1 with the first. Inter: InfoNCE of the leading left vectors u_i / tau2 against one another.
    Only samples that have every modality take part. Parts are `intra` and `inter`. The authors' code adds a matching loss of
    a fusion encoder, which is not here, and contrasts the samples of one process only.

    Args:
        tau1, tau2: temperatures of the singular values and of the leading vectors.
        inter_weight: of the second term.
        fix_signs: false leaves the vectors the arbitrary sign that LAPACK's decomposition gives them, as the authors' code
            does; the second term then jumps where a sign does.

    >>> z = torch.eye(2)
    >>> PMRL(tau1=1.0, tau2=1.0).parts({"image": z, "text": z})                      # s = (sqrt(2), 0)
    {'intra': tensor(0.2176), 'inter': tensor(0.3133)}
    """

    @typed
    def __init__(self, tau1: Positive = 0.05, tau2: Positive = 0.1, inter_weight: Weight = 1.0, fix_signs: bool = True):
        super().__init__()
        self.tau1, self.tau2, self.fix_signs, self.term_weights = tau1, tau2, fix_signs, {"inter": inter_weight}

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        z, keep = list(batch.z.values()), batch.both(*batch.names)
        if keep is not None:
            # rows of zeros have no leading direction: any unit vector stands for what does not count
            z = [torch.where(keep[:, None], part, torch.eye(1, part.shape[1]).to(part)) for part in z]
        s, u = singular_values(z, self.fix_signs)
        intra = ranks.mean((s / self.tau1).logsumexp(1) - s[:, 0] / self.tau1, keep)
        found = pair_lse(dot_block, [u], [u], [u.new_tensor(1 / self.tau2)], keep, kind="rows")
        return {"intra": intra, "inter": found.rows - found.own}
