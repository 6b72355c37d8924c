"""Volumes from Gram matrices: sqrt(det G) of a sample's modalities (eq 12 of UniAlign, after GRAM, arXiv 2412.11959).

Determinants come from polynomials of the dot products, never from a batched factorisation: a closed form up to three
vectors, Faddeev and LeVerrier's recursion above. Between one set of vectors and another set of tuples, Schur's complement
gives every det from a few matrix products: det G(t, rest) = det R - u^T adj(R) u, with R the rest's Gram matrix and
u the dot products of t with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batch import as_unit, full_precision

GUARD = 1e-6  # determinants below this follow a parabola instead of the root, whose slope at 0 is infinite


class _SafeRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        x = x.clamp(min=0)
        out, small = x.sqrt(), x < GUARD
        if bool(small.any()):  # seldom: the whole matrix is not passed over again for it
            t = x[small] / GUARD
            out[small] = GUARD**0.5 * t * (1.5 - 0.5 * t)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        x = ctx.saved_tensors[0].clamp(min=0)  # the input itself: a second derivative comes through here
        slope = torch.where(x < GUARD, (1.5 - x / GUARD) / GUARD**0.5, 0.5 * x.clamp(min=GUARD).rsqrt())
        return grad * slope


def safe_root(x: Tensor) -> Tensor:
    """sqrt(x) for x >= GUARD; below, the parabola through 0 that meets it there with the same slope. Negative counts as 0."""
    return _SafeRoot.apply(x)


def det_and_adjugate(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Determinant (...) and adjugate (..., K, K) of symmetric matrices, as polynomials (Faddeev and LeVerrier).

    In fp64 where the device has it: the matrices are small, and the recursion cancels digits from K = 4 on.
    """
    k, dtype = gram.shape[-1], gram.dtype
    gram = gram if gram.device.type == "mps" else gram.double()
    eye = torch.eye(k, dtype=gram.dtype, device=gram.device).expand_as(gram)
    step = eye
    for n in range(1, k):
        product = gram @ step
        trace = product.diagonal(dim1=-2, dim2=-1).sum(-1)
        step = product - (trace / n)[..., None, None] * eye
    sign = (-1) ** (k - 1)
    det = sign * (gram @ step).diagonal(dim1=-2, dim2=-1).sum(-1) / k
    return det.to(dtype), (sign * step).to(dtype)


class _Gram(torch.autograd.Function):
    """Z Z^T of (B, M, d), whose gradient (G + G^T) Z is one product, where autograd makes two and their sum."""

    @staticmethod
    def forward(ctx: Any, stack: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(stack)
        return stack @ stack.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return (grad + grad.mT) @ ctx.saved_tensors[0]


def gram_matrix(stack: Tensor) -> Tensor:
    """(B, M, M) of dot products of unit vectors (B, M, d), rows of zeros where a modality is missing.

    The row and column of a missing modality are the identity's, so that det is the others'.
    """
    eye = torch.eye(stack.shape[1], dtype=stack.dtype, device=stack.device)
    # unit vectors: the diagonal is exactly 1, which rounding would miss where det is small
    return _Gram.apply(stack) * (1 - eye) + eye


@full_precision
def gram_volume(embeddings: Sequence[Tensor], masks: Sequence[Tensor | None] | None = None) -> Tensor:
    """sqrt(det G_i), (B,), in [0, 1], of M embeddings (B, d) brought to unit length: 0 if collinear, 1 if orthogonal.

    Args:
        masks: for each modality, bool (B,) or None. A sample's volume is that of the modalities it has.

    Raises:
        InputError: a row that is zero, NaN or infinite.

    >>> x, y = torch.eye(2)
    >>> gram_volume([x[None], torch.stack([y + x])])                             # 45 degrees apart: sin
    tensor([0.7071])
    """
    masks = masks or [None] * len(embeddings)
    return of_gram(gram_matrix(torch.stack([as_unit(z, keep=m) for z, m in zip(embeddings, masks, strict=True)], 1)))


def of_gram(gram: Tensor) -> Tensor:
    """sqrt(det G), (B,), of Gram matrices (B, M, M) of unit vectors."""
    m = gram.shape[1]
    if m > 3:
        return safe_root(det_and_adjugate(gram)[0])
    dots = [gram[:, i, j] for i in range(m) for j in range(i + 1, m)]
    det = 1 - sum(d.square() for d in dots)
    return safe_root(torch.as_tensor(det + 2 * dots[0] * dots[1] * dots[2] if m == 3 else det))


def tuple_terms(rest: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """det R (B,) and adj R (B, K, K) of K unit vectors a sample: what `cross_dets` needs of them, once."""
    return det_and_adjugate(gram_matrix(torch.stack(list(rest), 1)))


def cross_dets(anchor: Tensor, rest: Sequence[Tensor], det: Tensor, adjugate: Tensor) -> Tensor:
    """det G of every anchor (A, d) with every tuple (B, d) x K: (A, B), at least 0 up to rounding."""
    if len(rest) == 2:  # det R = 1 - c^2; the second vector without the first's part leaves three passes over (A, B)
        along, across = anchor @ rest[0].T, anchor @ torch.addcmul(rest[1], adjugate[:, 0, 1:], rest[0]).T
        return torch.addcmul(torch.addcmul(det, across, across, value=-1), along * det, along, value=-1)
    dots = [anchor @ r.T for r in rest]
    out = det.expand(len(anchor), -1)
    for k, u in enumerate(dots):
        others = 2 * sum(adjugate[:, k, j] * dots[j] for j in range(k + 1, len(dots))) if k + 1 < len(dots) else 0
        out = out - u * (adjugate[:, k, k] * u + others)
    return out


@full_precision
def cross_volumes(anchor: Tensor, rest: Sequence[Tensor]) -> Tensor:
    """The volume of every anchor with every tuple: (A, d) and K times (B, d) -> (A, B), in [0, 1].

    For retrieval by volume, lower is better: rank 2,048 texts against 2,048 clips of vision and sound.

    Raises:
        InputError: a row that is zero, NaN or infinite.

    >>> texts, (vision, sound) = torch.eye(3)[:2], (torch.eye(3), torch.eye(3).roll(1, 0))
    >>> cross_volumes(texts, [vision, sound])
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    unit = [as_unit(r) for r in rest]
    return safe_root(cross_dets(as_unit(anchor), unit, *tuple_terms(unit)))
