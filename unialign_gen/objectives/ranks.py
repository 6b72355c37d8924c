"""What the objectives ask of torch.distributed: nothing when it is not initialised, next to nothing in a backward.

Every rank holds b rows of a batch of B = world x b. A forward gathers embeddings and sums numbers; a backward computes
the gradient of the local rows from what the forward gathered, times the world size, because DistributedDataParallel
averages gradients. After that average the parameters' gradients equal those of one process with the whole batch. Only two
backwards communicate: a learnt temperature's, one number, and that of `gather_with_grad`, which Symile's shuffles need.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError


def world() -> int:
    """The number of processes; 1 when torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """Rows (b, ...) of every rank as (B, ...), in order of rank, without gradient."""
    rows = rows.detach().contiguous()
    if world() == 1:
        return rows
    out = rows.new_empty((world() * len(rows), *rows.shape[1:]))
    dist.all_gather(list(out.chunk(world())), rows)
    return out


def total(values: Tensor) -> Tensor:
    """The sum over ranks, without gradient."""
    values = values.detach().clone()
    if world() > 1:
        dist.all_reduce(values)
    return values


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:  # type: ignore[override]
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return total(grad) / world()


def shared(parameter: Tensor) -> Tensor:
    """A parameter that every rank holds; its gradient is averaged over ranks, so that they stay equal without a wrapper."""
    return _Shared.apply(parameter) if world() > 1 else parameter


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # type: ignore[override]
        ctx.rows = len(rows)
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return total(grad)[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def gather_with_grad(rows: Tensor) -> Tensor:
    """As `gather`, with gradient: what any rank's loss asks of this rank's rows (b, ...) comes back to them."""
    return _Gather.apply(rows) if world() > 1 else rows


def agree(rows: int, complaint: str | None, device: torch.device) -> None:
    """Raises on every rank what is wrong on any of them, so that none is left waiting for the others.

    Raises:
        InputError: `complaint`, or that of another rank; ranks with different numbers of rows.
    """
    if world() == 1:
        if complaint:
            raise InputError(complaint)
        return
    seen = gather(torch.tensor([[rows, complaint is not None]], device=device)).tolist()
    if complaint:
        raise InputError(complaint)
    bad = [r for r, (_, failed) in enumerate(seen) if failed]
    if bad:
        raise InputError(f"the embeddings of rank {bad[0]} cannot be used; its own error says why")
    if len({n for n, _ in seen}) > 1:
        raise InputError(
            f"every rank needs the same number of rows, got {[n for n, _ in seen]}: drop the last, ragged batch (drop_last)"
        )


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, keep: Tensor | None) -> Tensor:  # type: ignore[override]
        kept = values if keep is None else torch.where(keep, values, 0)
        count = torch.as_tensor(len(values) if keep is None else keep.sum(), device=values.device).to(values.dtype)
        both = total(torch.stack([kept.sum(), count]))
        ctx.save_for_backward(keep)
        ctx.scale, ctx.rows = world() / max(float(both[1]), 1.0), len(values)
        return both[0] / both[1].clamp(min=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (keep,) = ctx.saved_tensors
        out = (grad * ctx.scale).expand(ctx.rows)
        return (out if keep is None else out * keep), None


def mean(values: Tensor, keep: Tensor | None = None) -> Tensor:
    """The mean of values (b,) over all ranks, of those that `keep` (b,) marks; zero where it marks none."""
    return _Mean.apply(values, keep)
