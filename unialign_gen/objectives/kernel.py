"""The chunked log-sum-exp under every objective: memory O(tile x B), nothing of size B x B, recomputed in the backward.

`self_lse` is for one set of embeddings against itself (uniformity): the kernel matrix is symmetric, so on one process only the
tiles on and above the diagonal are computed. `pair_lse` is for logits between two sets (InfoNCE and its kin), in both
directions at once, for any function that makes a block of logits.

Across ranks each computes the rows of its own samples against all. Its backward needs the log-sum-exp of all rows, B
numbers that the forward gathered, and communicates nothing: see `ranks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import ranks
from .angles import angle_slope, squared_angle
from .batch import full_precision

TILE = 1024
BLOCK = 2**23  # numbers in a block of logits of `pair_lse`

Block = Callable[..., Tensor]  # (row tensors, column tensors, parameters) -> logits (rows, columns)


def exp_(x: Tensor) -> Tensor:
    """exp in place, at least e^20 times the smallest normal number.

    Far pairs would give denormal numbers, on which a processor's arithmetic takes many times as long. What this adds to a
    sum that has a term near 1 is far beyond its last digit, and it stays normal when it is weighed or divided by a batch.
    """
    return x.clamp_(min=math.log(torch.finfo(x.dtype).tiny) + 20).exp_()


class RunningLse:
    """log sum exp of rows whose terms arrive tile by tile; -inf for a row that never gets any."""

    def __init__(self, rows: int, like: Tensor):
        self.top = like.new_full((rows,), -torch.inf)
        self.sum = like.new_zeros(rows)

    def add(self, at: slice, terms: Tensor) -> None:
        """Terms (rows of `at`, k)."""
        top = torch.maximum(self.top[at], terms.amax(1))
        shift = torch.where(top == -torch.inf, 0, top)  # -inf - -inf has no value
        self.sum[at] = self.sum[at] * (self.top[at] - shift).exp() + exp_(terms - shift[:, None]).sum(1)
        self.top[at] = top

    def value(self) -> Tensor:
        return self.top + self.sum.log()


def kernel_terms(dots: Tensor, tau: float, geodesic: bool) -> Tensor:
    """-d^2 / 2 tau^2 of unit vectors from their dot products; overwrites its input."""
    if not geodesic:
        return dots.sub_(1).div_(tau**2)
    return squared_angle(2 - 2 * dots).div_(-2 * tau**2)


def kernel_slope(dots: Tensor, tau: float, geodesic: bool) -> Tensor | float:
    """The derivative of `kernel_terms` with respect to the dot products."""
    return angle_slope(2 - 2 * dots) / tau**2 if geodesic else 1 / tau**2


def slices(count: int, size: int) -> Iterator[slice]:
    for at in range(0, count, size):
        yield slice(at, min(at + size, count))


class _SelfLse(torch.autograd.Function):
    """Mean over kept rows of log sum_{j != i} exp(terms_ij)."""

    @staticmethod
    def tiles(rows: int, columns: int, offset: Tensor, symmetric: bool) -> Iterator[tuple[slice, slice, Tensor | None]]:
        """Row and column slices, and the mask of a tile's diagonal entries where it has any."""
        for r in slices(rows, TILE):
            for c in slices(columns, TILE):
                if symmetric and c.start < r.start:
                    continue
                same = offset[r, None] == torch.arange(c.start, c.stop, device=offset.device)
                yield r, c, same if bool(same.any()) else None

    @staticmethod
    @full_precision
    def forward(ctx: Any, z: Tensor, tau: float, geodesic: bool, keep: Tensor | None) -> Tensor:  # type: ignore[override]
        everything = ranks.gather(z)
        mine = torch.arange(len(z), device=z.device) + ranks.rank() * len(z)  # this rank's rows among all
        local = None if keep is None else keep.nonzero()[:, 0]
        if keep is not None:
            kept = ranks.gather(keep)
            everything, position = everything[kept], kept.cumsum(0) - 1
            mine = position[mine[local]]
        rows = everything[mine] if ranks.world() > 1 else everything
        symmetric = ranks.world() == 1
        lse = RunningLse(len(rows), everything)
        for r, c, same in _SelfLse.tiles(len(rows), len(everything), mine, symmetric):
            terms = kernel_terms(rows[r] @ everything[c].T, tau, geodesic)
            if same is not None:
                terms = terms.masked_fill_(same, -torch.inf)
            lse.add(r, terms)
            if symmetric and r != c:
                lse.add(c, terms.T)
        own = lse.value()
        count = len(everything)
        result = ranks.total(own.sum()) / max(count, 1)
        if symmetric:
            every = own
        else:  # positions without a sample stay unused: gathered in full width, then selected
            padded = own.new_zeros(len(z))
            padded[slice(None) if local is None else local] = own
            every = ranks.gather(padded)
            every = every if keep is None else every[kept]
        ctx.save_for_backward(everything, rows, own, every, mine, local)
        ctx.settings = (tau, geodesic, symmetric, len(z))
        return result

    @staticmethod
    @full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        everything, rows, own, every, mine, local = ctx.saved_tensors
        tau, geodesic, symmetric, length = ctx.settings
        out = torch.zeros_like(rows)
        for r, c, same in _SelfLse.tiles(len(rows), len(everything), mine, symmetric):
            dots = rows[r] @ everything[c].T
            slope = kernel_slope(dots, tau, geodesic)
            terms = kernel_terms(dots, tau, geodesic)
            weight = exp_(terms - own[r, None])
            weight += exp_(terms.sub_(every[c]))
            weight *= slope
            if same is not None:
                weight.masked_fill_(same, 0)
            out[r].addmm_(weight, everything[c])
            if symmetric and r != c:
                out[c].addmm_(weight.T, rows[r])
        out *= grad * ranks.world() / max(len(everything), 1)
        if local is not None:
            whole = out.new_zeros(length, out.shape[1])
            whole[local] = out
            out = whole
        return out, None, None, None


def self_lse(z: Tensor, tau: float, geodesic: bool = False, keep: Tensor | None = None) -> Tensor:
    """mean_i log sum_{j != i} exp(-d(z_i, z_j)^2 / 2 tau^2) over unit rows (b, d) of all ranks. Scalar.

    The gradient has both halves, s_ij being in row i's sum and in row j's. `keep` (b,) leaves samples out; at least two
    have to remain.
    """
    return _SelfLse.apply(z, tau, geodesic, keep)


class _PairLse(torch.autograd.Function):
    """(mean_i LSE_j, mean_j LSE_i, mean_ij) of a matrix of logits that only ever exists block by block."""

    @staticmethod
    @full_precision
    def forward(  # type: ignore[override]
        ctx: Any, block: Block, counts: tuple[int, int], keep: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_rows, n_columns = counts
        local = [t.detach() if keep is None else t.detach()[keep] for t in tensors[: n_rows + n_columns]]
        spread = [ranks.gather(t) for t in tensors[: n_rows + n_columns]]
        if keep is not None:
            kept = ranks.gather(keep)
            spread = [t[kept] for t in spread]
        parameters = [t.detach() for t in tensors[n_rows + n_columns :]]
        size, mine = len(spread[0]), len(local[0])
        single = ranks.world() == 1
        by_row, by_column = RunningLse(mine, spread[0]), RunningLse(mine, spread[0])
        entries = spread[0].new_zeros(())
        step = max(1, BLOCK // max(size, 1))
        for r in slices(mine, step):
            logits = block([t[r] for t in local[:n_rows]], spread[n_rows:], parameters)
            by_row.add(r, logits)
            entries += logits.sum()
            if single:
                by_column.add(slice(None), logits.T)
        if not single:
            for c in slices(mine, step):
                by_column.add(c, block(spread[:n_rows], [t[c] for t in local[n_rows:]], parameters).T)
        own_row, own_column = by_row.value(), by_column.value()
        sums = ranks.total(torch.stack([own_row.sum(), own_column.sum(), entries]))
        if single:
            all_row, all_column = own_row, own_column
        else:
            whole = own_row.new_zeros(2, len(tensors[0]))
            whole[:, slice(None) if keep is None else keep] = torch.stack([own_row, own_column])
            both = ranks.gather(whole.T)
            all_row, all_column = (both if keep is None else both[kept]).unbind(1)
        ctx.save_for_backward(own_row, own_column, all_row, all_column, keep, *local, *spread, *parameters)
        ctx.settings = (block, n_rows, n_columns, step, len(tensors[0]), ctx.needs_input_grad[3:])
        count = max(size, 1)
        return sums[0] / count, sums[1] / count, sums[2] / count**2

    @staticmethod
    @full_precision
    def backward(ctx: Any, g_row: Tensor, g_column: Tensor, g_mean: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        own_row, own_column, all_row, all_column, keep, *rest = ctx.saved_tensors
        block, n_rows, n_columns, step, length, wanted = ctx.settings
        sides = n_rows + n_columns
        local, spread, parameters = rest[:sides], rest[sides : 2 * sides], rest[2 * sides :]
        mine, size, single = len(local[0]), len(spread[0]), ranks.world() == 1
        scale = ranks.world() / max(size, 1)
        out: list[Tensor | None] = [
            torch.zeros_like(t) if w else None for t, w in zip([*local, *parameters], wanted, strict=True)
        ]

        def pull(
            row: list[Tensor], column: list[Tensor], row_lse: Tensor, column_lse: Tensor, targets: list[tuple[int, slice]]
        ) -> None:
            """Adds the gradient of one block to `out`; targets[k] is where the k-th of row + column + parameters goes."""
            inputs = [
                t.detach().requires_grad_(at >= 0 and wanted[at])
                for t, (at, _) in zip([*row, *column, *parameters], targets, strict=True)
            ]
            with torch.enable_grad():
                logits = block(inputs[: len(row)], inputs[len(row) : sides], inputs[sides:])
            free = logits.detach()
            weight = exp_(free - row_lse[:, None]).mul_(g_row)
            weight += exp_(free - column_lse).mul_(g_column)
            weight += g_mean / max(size, 1)
            asked = [(k, t) for k, t in enumerate(inputs) if t.requires_grad]
            grads = torch.autograd.grad(logits, [t for _, t in asked], weight * scale, allow_unused=True)
            for (k, _), g in zip(asked, grads, strict=True):
                at, where = targets[k]
                target = out[at]
                if g is not None and target is not None:
                    if target.ndim:
                        target[where] += g
                    else:
                        target += g

        everywhere, nowhere = slice(None), (-1, slice(None))
        of_parameters = [(sides + k, everywhere) for k in range(len(parameters))]
        for r in slices(mine, step):
            of_columns = [(n_rows + k, everywhere) if single else nowhere for k in range(n_columns)]
            targets = [*((k, r) for k in range(n_rows)), *of_columns, *of_parameters]
            pull([t[r] for t in local[:n_rows]], spread[n_rows:], own_row[r], all_column, targets)
        if not single:
            for c in slices(mine, step):
                targets = [
                    *(nowhere for _ in range(n_rows)),
                    *((n_rows + k, c) for k in range(n_columns)),
                    *(nowhere for _ in parameters),
                ]
                pull(spread[:n_rows], [t[c] for t in local[n_rows:]], all_row, own_column[c], targets)
        for k, g in enumerate(out[:sides]):
            if g is not None and keep is not None:
                whole = g.new_zeros(length, *g.shape[1:])
                whole[keep] = g
                out[k] = whole
        return None, None, None, *out


def pair_lse(
    block: Block,
    rows: Sequence[Tensor],
    columns: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Both log-sum-exps and the mean of the B x B logits between two sides, over the samples of all ranks.

    Args:
        block: `block(row_tensors, column_tensors, parameters)` -> logits (r, c), differentiable, of r rows and c columns.
        rows, columns: tensors (b, ...) of this rank's samples, one or more a side.
        parameters: tensors that all blocks share, such as a learnable temperature.
        keep: bool (b,), the samples that take part; at least one.

    Returns:
        mean_i log sum_j exp l_ij, mean_j log sum_i exp l_ij, mean_ij l_ij. Scalars.
    """
    counts = (len(rows), len(columns))
    return _PairLse.apply(block, counts, keep, *rows, *columns, *parameters)
