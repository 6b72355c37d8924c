"""What every objective does first: checks a batch, brings it to unit length in full precision, outside autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from . import ranks

P = ParamSpec("P")
R = TypeVar("R")
Embeddings = Mapping[str, Tensor]
Masks = Mapping[str, Tensor]


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a function outside autocast: at tau = 0.07 half-precision inputs give errors of 0.1 in a logit."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return run


def complaint(name: str, z: Any, rows: int | None, dim: int | None) -> str | None:
    """One line on what keeps `z` from being a batch of embeddings, or None."""
    if not isinstance(z, Tensor) or z.ndim != 2 or not z.is_floating_point():
        what = f"shape {tuple(z.shape)}, {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
        return f"{name}: embeddings are a floating-point tensor (B, d), got {what}"
    if rows is not None and len(z) != rows:
        return f"{name}: {len(z)} rows where the others have {rows}; mark what is missing with a mask instead"
    if dim is not None and z.shape[1] != dim:
        return f"{name}: {z.shape[1]} dimensions where the others have {dim}"
    if len(z) * ranks.world() < 2:
        return f"{name}: at least 2 samples are needed to contrast, got {len(z)}"
    return None


def as_unit(z: Tensor, name: str = "embeddings", keep: Tensor | None = None) -> Tensor:
    """Rows of z (B, d) at unit length, in fp32 (fp64 stays). Rows outside `keep` may hold anything and become zeros.

    Raises:
        InputError: a row that is zero, NaN or infinite.
    """
    unit, wrong = _unit(z, name, keep)
    if wrong:
        raise InputError(wrong)
    return unit


def _unit(z: Tensor, name: str, keep: Tensor | None) -> tuple[Tensor, str | None]:
    z = z if z.dtype == torch.float64 else z.float()  # (B, d)
    if keep is not None:
        z = torch.where(keep[:, None], z, 0)
    norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)  # (B, 1)
    fine = (norm[:, 0] > 0) & norm[:, 0].isfinite()
    if keep is not None:
        fine = fine | ~keep
        norm = torch.where(keep[:, None], norm, 1)
    wrong = None
    if not bool(fine.all()):
        row = int((~fine).nonzero()[0, 0])
        wrong = f"{name}: row {row} is {'zero' if norm[row, 0] == 0 else 'NaN or infinite'}"
    return _Unit.apply(z, norm.detach()), wrong


class _Unit(torch.autograd.Function):
    """z / norm, row by row; its gradient in three passes over the rows, where autograd's takes ten."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, norm: Tensor) -> Tensor:  # type: ignore[override]
        unit = z / norm
        ctx.save_for_backward(z, norm, unit)
        return unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        z, norm, unit = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative: both depend on z
            length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
            norm = norm + length - length.detach()
            unit = z / norm
        along = torch.einsum("bd,bd->b", grad, unit)[:, None]
        return torch.addcmul(grad, unit, along, value=-1) / norm, None


def nothing(z: Iterable[Tensor]) -> Tensor:
    """A zero that still depends on its inputs, for a term that no sample takes part in: backward works, gradients are 0."""
    return torch.stack([part.sum() for part in z]).sum() * 0


@dataclass
class Batch:
    """Unit embeddings (b, d) by modality, and which of their rows are there: bool (b,), or None where all are.

    >>> Batch({"image": torch.eye(2)}, {"image": None}).names
    ['image']
    """

    z: dict[str, Tensor]
    keep: dict[str, Tensor | None]

    @property
    def names(self) -> list[str]:
        return list(self.z)

    def both(self, *names: str) -> Tensor | None:
        """Samples that have all the named modalities; None where every sample does."""
        masks = [m for m in (self.keep[n] for n in names) if m is not None]
        return torch.stack(masks).all(0) if masks else None

    def there(self, names: Iterable[str]) -> Tensor:
        """(b, K), true where a sample has the k-th of the named modalities."""
        everything = torch.ones_like(next(iter(self.z.values()))[:, 0], dtype=torch.bool)
        return torch.stack([everything if m is None else m for m in (self.keep[n] for n in names)], 1)


@full_precision
def prepare(embeddings: Embeddings, masks: Masks | None = None, wrong: str | None = None) -> Batch:
    """Checks and normalises a batch, on all ranks alike.

    Args:
        embeddings: two or more modalities, (B, d) each, of any norm but zero.
        masks: modality to bool (B,), true where the sample has it; a modality without a mask has all.
        wrong: what the caller found, if anything: raised on every rank.

    Raises:
        InputError: fewer than two samples or modalities, shapes that differ, a row that is zero, NaN or infinite, a mask of a
            wrong shape or of an unknown modality, ranks that disagree on the number of rows.

    >>> batch = prepare({"image": 5 * torch.eye(2), "text": torch.ones(2, 2)}, {"text": torch.tensor([True, False])})
    >>> batch.z["image"], batch.both("image", "text")
    (tensor([[1., 0.],
            [0., 1.]]), tensor([ True, False]))
    """
    names, masks = list(embeddings), dict(masks or {})
    if wrong is None and len(names) < 2:
        wrong = f"at least 2 modalities are needed, got {names}"
    if wrong is None and set(masks) - set(names):
        wrong = f"mask for {sorted(set(masks) - set(names))}, which is not among the modalities {names}"
    rows = dim = None
    z: dict[str, Tensor] = {}
    keep: dict[str, Tensor | None] = {}
    for name in names if wrong is None else []:
        wrong = wrong or complaint(name, embeddings[name], rows, dim)
        mask = masks.get(name)
        if wrong is None and mask is not None and (mask.dtype != torch.bool or mask.shape != embeddings[name].shape[:1]):
            wrong = f"{name}: its mask is a bool tensor ({len(embeddings[name])},), got {mask.dtype} {tuple(mask.shape)}"
        if wrong:
            break
        rows, dim = embeddings[name].shape
        z[name], wrong = _unit(embeddings[name], name, mask)
        keep[name] = mask
    first = next((t for t in embeddings.values() if isinstance(t, Tensor)), torch.zeros(0))
    ranks.agree(rows or 0, wrong, first.device)
    return Batch(z, keep)
