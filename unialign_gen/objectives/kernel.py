"""The chunked log-sum-exp under every objective: memory O(tile x B), recomputed in the backward where it does not fit.

The matrix of `self_lse` is symmetric, so on one process only the tiles on and above the diagonal are computed. `pair_lse` and
`pair_softplus` give the mean logit of a sample with itself too, from the same block: dot products of rows apart would be passes
over them again. Up to `KEPT` logits wait for the backward; of a larger batch none do, and nothing of size B x B is held.

Across ranks each computes the rows of its own samples against all. Its backward needs the log-sum-exp of all rows, B
numbers that the forward gathered, and communicates nothing: see `ranks`. First derivatives only: a second is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, wraps
from threading import Condition
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from . import ranks
from .angles import angle_slope, squared_angle
from .batch import full_precision, nothing

TILE, SMALL = 512, 128  # rows of a tile, at most and at least: 1 MB, which a core's own cache holds from pass to pass
DEVICE_TILE = 4096  # on a GPU, where what counts is that there are few kernels
BLOCK = 2**21  # numbers in a block of logits of `pair_lse`
NEAR = 40.0  # nats between the largest terms of sums that share a shift; `exp_` reaches 67 below it
KEPT = 2**24  # logits that wait for the backward, at most: 64 MB in fp32

Block = Callable[..., Tensor]  # (row tensors, column tensors, parameters) -> logits (rows, columns)
Pair = tuple[int, int]
Kind = Literal["both", "rows", "softplus"]


class _Refuse(torch.autograd.Function):
    """A gradient that has no derivative of its own, and says so instead of giving a wrong one."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:  # type: ignore[override]
        raise InputError("the chunked objectives have first derivatives only: a second one needs the formula in plain torch")


def first_order(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """A backward in full precision whose results cannot be differentiated; inputs are among `ctx.saved_tensors`."""

    @wraps(backward)
    def run(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            out = full_precision(backward)(ctx, *grads)
        if not torch.is_grad_enabled():
            return out
        inputs = [t for t in (*ctx.saved_tensors, *grads) if t is not None and t.requires_grad]
        return tuple(None if g is None else _Refuse.apply(g, *inputs) for g in out)

    return run


def exp_(x: Tensor) -> Tensor:
    """exp in place, at least e^20 times the smallest normal number.

    Far pairs would give denormal numbers, on which a processor's arithmetic takes many times as long. What this adds to a
    sum that has a term near 1 is far beyond its last digit, and it stays normal when it is weighed or divided by a batch.
    """
    return x.clamp_(min=math.log(torch.finfo(x.dtype).tiny) + 20).exp_()


def near(tops: Tensor) -> bool:
    """Whether sums whose largest terms are these can share a shift: what `exp_` adds stays beyond the last digit of each."""
    return bool(tops.max() - tops.min() <= NEAR)


class RunningLse:
    """log sum exp of rows whose terms arrive tile by tile; -inf for a row that never gets any."""

    def __init__(self, rows: int, like: Tensor):
        self.top = like.new_full((rows,), -torch.inf)
        self.sum = like.new_zeros(rows)

    def add(self, at: slice, terms: Tensor) -> None:
        """Terms (rows of `at`, k)."""
        top = torch.maximum(self.top[at], terms.amax(1))  # (rows,)
        shift = torch.where(top == -torch.inf, 0, top)  # -inf - -inf has no value
        self.sum[at] = self.sum[at] * (self.top[at] - shift).exp() + exp_(terms - shift[:, None]).sum(1)
        self.top[at] = top

    def add_both_ways(self, rows: slice, columns: slice, terms: Tensor) -> None:
        """Terms (rows, columns) to the sums of the rows and of the columns: one exp for both where one shift does for all."""
        tops = torch.cat([terms.amax(1), terms.amax(0)])
        if terms.device.type != "cpu" or not near(tops):
            self.add(rows, terms)
            self.add(columns, terms.T)
            return
        shift = tops.max()
        powers = exp_(terms - shift)
        for at, sums in ((rows, powers.sum(1)), (columns, powers.sum(0))):
            top = torch.maximum(self.top[at], shift)
            self.sum[at] = self.sum[at] * (self.top[at] - top).exp() + sums * (shift - top).exp()
            self.top[at] = top

    def value(self) -> Tensor:
        return self.top + self.sum.log()


def kernel_terms(dots: Tensor, tau: float, geodesic: bool) -> Tensor:
    """-d^2 / 2 tau^2 of unit vectors from their dot products; overwrites its input."""
    if not geodesic:
        return dots.sub_(1).div_(tau**2)
    return squared_angle(2 - 2 * dots).div_(-2 * tau**2)


def slices(count: int, size: int) -> Iterator[slice]:
    for at in range(0, count, size):
        yield slice(at, min(at + size, count))


def tournament(count: int) -> list[Pair]:
    """All pairs i <= j of `count` blocks in the order of a round-robin tournament: few neighbours share a block."""
    found = [(i, i) for i in range(count)]
    seats = count + count % 2
    for k in range(seats - 1):
        ring = [seats - 1, *((k + i) % (seats - 1) for i in range(seats - 1))]
        pairs = [(min(p), max(p)) for p in zip(ring[: seats // 2], reversed(ring[seats // 2 :]), strict=True)]
        found += [p for p in pairs if p[1] < count]
    return found


@cache
def workers(threads: int) -> ThreadPoolExecutor:
    """Kept from call to call, with the buffers that the library of matrix products holds for each thread."""
    return ThreadPoolExecutor(threads, "objectives", torch.set_num_threads, (1,))


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not come along


def each(work: Callable[[int, int], None], pairs: Sequence[Pair], symmetric: bool, device: torch.device) -> None:
    """Calls work(i, j) for all pairs; on a processor side by side, each on one of torch's threads.

    Pairs that share a row block (`symmetric`: any block) go one after the other, in their order, so that sums come out the same
    to the bit. Nobody waits for anything else: an operation split over all threads waits at its end for the one that another
    process has just taken the core from, and so again and again, thousands of times a step.
    """
    threads = min(torch.get_num_threads(), len(pairs))
    if device.type != "cpu" or threads <= 1:
        for pair in pairs:
            work(*pair)
        return
    waiting, running, changed = list(pairs), list[Pair](), Condition()
    inference = torch.is_inference_mode_enabled()

    def blocks(pair: Pair) -> set[int]:
        return set(pair if symmetric else pair[:1])

    def free() -> Pair | None:
        taken = set[int]().union(*map(blocks, running))
        for at, pair in enumerate(waiting):
            if not taken & blocks(pair):
                return waiting.pop(at)
            taken |= blocks(pair)
        return None

    def worker() -> None:
        with torch.inference_mode(inference), torch.no_grad():  # both are a thread's own
            while True:
                with changed:
                    while (pair := free()) is None:
                        if not waiting:
                            return
                        changed.wait()
                    running.append(pair)
                try:
                    work(*pair)
                except BaseException:
                    with changed:
                        waiting.clear()  # the others stop too
                    raise
                finally:
                    with changed:
                        running.remove(pair)
                        changed.notify_all()

    try:
        started = wait([workers(threads).submit(worker) for _ in range(threads)]).done
        for one in started:
            one.result()
    finally:
        torch.set_num_threads(torch.get_num_threads())  # what new threads get; this one's own count never changed


class _SelfLse(torch.autograd.Function):
    """Of kept rows the mean of log sum_{j != i} exp(terms_ij), or (`pooled`) the log of the sum over all i != j.

    Euclidean terms are <z_i, z_j> / tau^2 inside, without the constant -1 / tau^2.
    """

    @staticmethod
    @full_precision
    def forward(ctx: Any, z: Tensor, tau: float, geodesic: bool, keep: Tensor | None, pooled: bool) -> Tensor:  # type: ignore[override]
        everything = ranks.gather(z)  # (B, d)
        mine = torch.arange(len(z), device=z.device) + ranks.rank() * len(z)  # (b,), this rank's rows among all
        local = None if keep is None else keep.nonzero()[:, 0]
        if keep is not None:
            kept = ranks.gather(keep)
            everything, position = everything[kept], kept.cumsum(0) - 1
            mine = position[mine[local]]
        symmetric = ranks.world() == 1
        rows = everything if symmetric else everything[mine]  # (b, d)
        lse = RunningLse(len(rows), everything)
        tiles = Tiles(rows, everything, mine, symmetric, tau, geodesic)

        def work(i: int, j: int) -> None:
            terms = tiles.terms(tiles.dots(i, j), i, j)  # (tile, tile)
            if symmetric and i != j:
                lse.add_both_ways(tiles.rows_of[i], tiles.columns_of[j], terms)
            else:
                lse.add(tiles.rows_of[i], terms)

        tiles.each(work)
        own = lse.value()  # (b,)
        count, constant = len(everything), 0.0 if geodesic else 1 / tau**2
        if symmetric:
            every = own
        else:  # positions without a sample stay unused: gathered in full width, then selected
            padded = own.new_zeros(len(z))
            padded[slice(None) if local is None else local] = own
            every = ranks.gather(padded)
            every = every if keep is None else every[kept]  # (B,)
        result = every.logsumexp(0) if pooled else ranks.total(own.sum()) / max(count, 1)
        if pooled:  # every term is weighed against the one sum of all
            own, every = result.expand_as(own), result.expand_as(every)
        ctx.save_for_backward(z, everything, rows, own, every, mine, local, *tiles.kept.values())
        ctx.settings = (symmetric, tau, geodesic, 1 if pooled else max(count, 1), list(tiles.kept))
        return result - constant

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, everything, rows, own, every, mine, local, *kept = ctx.saved_tensors
        symmetric, tau, geodesic, count, at_pairs = ctx.settings
        tiles = Tiles(rows, everything, mine, symmetric, tau, geodesic, dict(zip(at_pairs, kept, strict=True)))
        out = torch.zeros_like(rows)  # (b, d)

        def work(i: int, j: int) -> None:
            at, columns = tiles.rows_of[i], tiles.columns_of[j]
            dots = tiles.dots(i, j)
            terms = tiles.terms(dots, i, j)  # (tile, tile)
            tops = torch.cat([own[at], every[columns]])
            if terms.device.type == "cpu" and near(tops):
                top = tops.max()
                weight = exp_(terms - top)  # one exp for both: e^(t - own) = e^(t - top) e^(top - own)
                weight *= (top - own[at, None]).exp() + (top - every[columns]).exp()
            else:
                weight = exp_(terms - own[at, None])
                weight += exp_(terms - every[columns])
            if geodesic:
                weight *= angle_slope(2 - 2 * (dots * tau**2))  # of the terms by the dot products; the Euclidean one is 1
            tiles.without_self(weight, i, j, 0)
            out[at].addmm_(weight, everything[columns])
            if symmetric and i != j:
                out[columns].addmm_(weight.T, rows[at])

        tiles.each(work)
        out *= grad * ranks.world() / (count * tau**2)
        if local is not None:
            whole = torch.zeros_like(z)
            whole[local] = out
            out = whole
        return out, None, None, None, None


class Tiles:
    """The matrix of <x_i, y_j> / tau^2, rows (b, d) by columns (B, d), tile by tile.

    Args:
        mine: places of the rows among the columns (b,), where a row meets itself.
        symmetric: rows and columns are the same, and only tiles i <= j are visited.
        kept: tiles that were computed before; without it new ones are kept, if all of them are few enough.
    """

    def __init__(
        self,
        rows: Tensor,
        columns: Tensor,
        mine: Tensor,
        symmetric: bool,
        tau: float,
        geodesic: bool,
        kept: dict[Pair, Tensor] | None = None,
    ):
        self.rows, self.columns, self.mine = rows, columns, mine
        self.symmetric, self.tau, self.geodesic = symmetric, tau, geodesic
        threads = torch.get_num_threads()
        most = TILE if rows.device.type == "cpu" else DEVICE_TILE
        size = most
        if threads > 1 and len(rows) > most:  # fewer rows are one tile, whose operations torch shares among its threads itself
            size = min(most, max(SMALL, -(-len(rows) // (2 * threads))))
        self.rows_of = list(slices(len(rows), size))
        self.columns_of = self.rows_of if symmetric else list(slices(len(columns), most))
        every = [(i, j) for j in range(len(self.columns_of)) for i in range(len(self.rows_of))]
        self.pairs = tournament(len(self.rows_of)) if symmetric else every
        self.keep = kept is None and len(rows) * len(columns) <= KEPT
        self.kept = {} if kept is None else kept

    def each(self, work: Callable[[int, int], None]) -> None:
        each(work, self.pairs, self.symmetric, self.rows.device)

    def dots(self, i: int, j: int) -> Tensor:
        """<x, y> / tau^2 of a tile."""
        if (i, j) in self.kept:
            return self.kept[i, j]
        x, y = self.rows[self.rows_of[i]], self.columns[self.columns_of[j]]
        found = torch.addmm(x.new_zeros(1), x, y.T, beta=0, alpha=1 / self.tau**2)
        if not self.geodesic:
            self.without_self(found, i, j, -torch.inf)
        if self.keep:
            self.kept[i, j] = found
        return found

    def terms(self, dots: Tensor, i: int, j: int) -> Tensor:
        """The logarithm of the kernel, but for its constant; -inf where a row meets itself."""
        if not self.geodesic:
            return dots
        found = kernel_terms(dots * self.tau**2, self.tau, True)
        self.without_self(found, i, j, -torch.inf)
        return found

    def without_self(self, tile: Tensor, i: int, j: int, value: float) -> None:
        """Puts `value` where a tile's row meets itself among the columns."""
        if self.symmetric:
            if i == j:
                tile.fill_diagonal_(value)
            return
        mine, columns = self.mine[self.rows_of[i]], self.columns_of[j]
        at = ((mine >= columns.start) & (mine < columns.stop)).nonzero()[:, 0]
        tile[at, mine[at] - columns.start] = value


def self_lse(z: Tensor, tau: float, geodesic: bool = False, keep: Tensor | None = None, pooled: bool = False) -> Tensor:
    """mean_i log sum_{j != i} exp(-d(z_i, z_j)^2 / 2 tau^2) over unit rows (b, d) of all ranks. Scalar.

    The gradient has both halves, s_ij being in row i's sum and in row j's. `keep` (b,) leaves samples out; at least two
    have to remain. `pooled` gives the logarithm of the sum over all pairs i != j instead.
    """
    return _SelfLse.apply(z, tau, geodesic, keep, pooled)


class _PairLse(torch.autograd.Function):
    """The numbers of `Terms` of logits that only ever exist block by block.

    Of the kind `rows` the second is left out; of `softplus` the first is the mean over i of sum_j softplus(l_ij) instead.
    """

    @staticmethod
    @full_precision
    def forward(  # type: ignore[override]
        ctx: Any, block: Block, counts: Pair, keep: Tensor | None, kind: Kind, width: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        n_rows, n_columns = counts
        local = [t.detach() if keep is None else t.detach()[keep] for t in tensors[: n_rows + n_columns]]  # (b, ...)
        spread = [ranks.gather(t) for t in tensors[: n_rows + n_columns]]  # (B, ...)
        if keep is not None:
            kept = ranks.gather(keep)
            spread = [t[kept] for t in spread]
        # ranks follow each other, and so do their samples that are kept: this rank's rows meet themselves from here on
        first = ranks.rank() * len(tensors[0]) if keep is None else int(kept[: ranks.rank() * len(tensors[0])].sum())
        parameters = [t.detach() for t in tensors[n_rows + n_columns :]]
        size, mine, like = len(spread[0]), len(local[0]), spread[0]
        single = ranks.world() == 1
        by_row, by_column = RunningLse(mine, like), RunningLse(mine, like)
        entries, own = like.new_zeros(2).unbind()
        step, wanted = max(1, BLOCK // max(size * width, 1)), ctx.needs_input_grad[5:]
        ctx.made = None
        if single and any(wanted) and size * size * width <= KEPT:  # one block, whose graph waits for the backward
            step = max(1, mine)
            ctx.made = logits_of(block, local[:n_rows], spread[n_rows:], parameters, wanted)
        for r in slices(mine, step):
            made = ctx.made or (block([t[r] for t in local[:n_rows]], spread[n_rows:], parameters),)
            logits = made[0].detach()  # (step, B)
            own += logits.diagonal(first + r.start).sum()
            if kind == "softplus":
                entries += softplus(logits).sum()
                continue
            by_row.add(r, logits)
            entries += logits.sum()
            if single and kind == "both":
                by_column.add(slice(None), logits.T)
        if not single and kind == "both":
            for c in slices(mine, step):
                by_column.add(c, block(spread[:n_rows], [t[c] for t in local[n_rows:]], parameters).T)
        own_row, own_column = by_row.value(), by_column.value()  # (b,)
        sums = ranks.total(torch.stack([own_row.sum(), own_column.sum(), entries, own]))
        if single:
            all_row, all_column = own_row, own_column
        else:
            whole = own_row.new_zeros(2, len(tensors[0]))
            whole[:, slice(None) if keep is None else keep] = torch.stack([own_row, own_column])
            both = ranks.gather(whole.T)
            all_row, all_column = (both if keep is None else both[kept]).unbind(1)  # (B,)
        pooled = all_row.logsumexp(0)
        ctx.save_for_backward(*tensors, own_row, own_column, all_row, all_column, pooled, keep, *local, *spread, *parameters)
        ctx.settings = (block, n_rows, n_columns, step, len(tensors), kind, wanted, first)
        count = max(size, 1)
        rows = sums[2] if kind == "softplus" else sums[0]
        return rows / count, sums[1] / count, sums[2] / count**2, pooled, sums[3] / count

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        block, n_rows, n_columns, step, given, kind, wanted, first = ctx.settings
        length = len(ctx.saved_tensors[0])
        own_row, own_column, all_row, all_column, pooled, keep, *rest = ctx.saved_tensors[given:]
        sides = n_rows + n_columns
        local, spread, parameters = rest[:sides], rest[sides : 2 * sides], rest[2 * sides :]
        mine, size, single = len(local[0]), max(len(spread[0]), 1), ranks.world() == 1
        out: list[Tensor | None] = [None] * (sides + len(parameters))
        whole_block = single and step >= mine  # whose gradients are all there is
        share = ranks.world() / size

        def weights(logits: Tensor, row_lse: Tensor, column_lse: Tensor, diagonal: int) -> Tensor:
            """The derivative of the outputs, with their gradients, by each logit: (r, c)."""
            g_row, g_column, g_mean, g_pooled, g_own = grads
            parts = []
            if kind == "softplus" and g_row is not None:
                parts.append(logits.sigmoid().mul_(g_row * share))
            elif g_row is not None:
                parts.append(exp_(logits - row_lse[:, None]).mul_(g_row * share))
            if g_column is not None:
                parts.append(exp_(logits - column_lse).mul_(g_column * share))
            if g_pooled is not None:
                parts.append(exp_(logits - pooled).mul_(g_pooled * ranks.world()))
            weight = parts[0] if parts else torch.zeros_like(logits)
            for part in parts[1:]:
                weight += part
            if g_mean is not None:
                weight += g_mean * share / size
            if g_own is not None:
                weight.diagonal(diagonal).add_(g_own * share)
            return weight

        def pull(
            row: list[Tensor],
            column: list[Tensor],
            row_lse: Tensor,
            column_lse: Tensor,
            targets: list[tuple[int, slice]],
            diagonal: int,
        ) -> None:
            """Adds the gradient of one block to `out`; targets[k] is where the k-th of row + column + parameters goes."""
            asked_of = [at >= 0 and wanted[at] for at, _ in targets]
            if not any(asked_of):
                return
            logits, inputs = ctx.made or logits_of(block, row, column, parameters, asked_of)
            ctx.made = None  # a second backward computes it again
            asked = [(k, t) for k, t in enumerate(inputs) if t.requires_grad]
            weight = weights(logits.detach(), row_lse, column_lse, diagonal)
            found = torch.autograd.grad(logits, [t for _, t in asked], weight, allow_unused=True)
            for (k, _), g in zip(asked, found, strict=True):
                at, where = targets[k]
                if g is None or whole_block:
                    out[at] = g
                    continue
                target = out[at]
                if target is None:
                    target = out[at] = torch.zeros_like([*local, *parameters][at])
                if target.ndim:
                    target[where] += g
                else:
                    target += g

        everywhere, nowhere = slice(None), (-1, slice(None))
        of_parameters = [(sides + k, everywhere) for k in range(len(parameters))]
        for r in slices(mine, step):
            of_columns = [(n_rows + k, everywhere) if single else nowhere for k in range(n_columns)]
            targets = [*((k, r) for k in range(n_rows)), *of_columns, *of_parameters]
            pull([t[r] for t in local[:n_rows]], spread[n_rows:], own_row[r], all_column, targets, first + r.start)
        if not single:
            for c in slices(mine, step):
                targets = [
                    *(nowhere for _ in range(n_rows)),
                    *((n_rows + k, c) for k in range(n_columns)),
                    *(nowhere for _ in parameters),
                ]
                pull(spread[:n_rows], [t[c] for t in local[n_rows:]], all_row, own_column[c], targets, -first - c.start)
        for k, g in enumerate(out[:sides]):
            if g is not None and keep is not None:
                whole = g.new_zeros(length, *g.shape[1:])
                whole[keep] = g
                out[k] = whole
        return None, None, None, None, None, *out


def logits_of(
    block: Block, row: list[Tensor], column: list[Tensor], parameters: list[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor]]:
    """A block of logits (r, c) with its graph, and the tensors at the graph's ends, of which some want a gradient."""
    inputs = [t.detach().requires_grad_(w) for t, w in zip([*row, *column, *parameters], wanted, strict=True)]
    n, sides = len(row), len(row) + len(column)
    with torch.enable_grad():
        return block(inputs[:n], inputs[n:sides], inputs[sides:]), inputs


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) of a matrix; torch's own takes three times as long, since log1p is not vectorised on a processor."""
    small = x.abs().neg_().exp_()  # (r, c), in [0, 1]
    more = 1 + small
    # what rounding took from 1 + e is given back by e / (1 + e - 1) (Kahan)
    return torch.where(more == 1, small, more.log() * (small / (more - 1))) + x.clamp(min=0)


class Terms(NamedTuple):
    """What the B x B logits l_ij between two sides give, scalars: all zero where no sample takes part."""

    rows: Tensor  # mean_i log sum_j exp l_ij
    columns: Tensor  # mean_j log sum_i exp l_ij
    mean: Tensor  # mean_ij l_ij
    pooled: Tensor  # log sum_ij exp l_ij
    own: Tensor  # mean_i l_ii


def terms_of(
    block: Block,
    rows: Sequence[Tensor],
    columns: Sequence[Tensor],
    parameters: Sequence[Tensor],
    keep: Tensor | None,
    kind: Kind,
    width: int,
) -> Terms:
    if keep is not None and int(ranks.total(keep.sum())) == 0:
        return Terms(*[nothing([t for t in (*rows, *columns) if t.is_floating_point()])] * 5)
    return Terms(*_PairLse.apply(block, (len(rows), len(columns)), keep, kind, width, *rows, *columns, *parameters))


def pair_lse(
    block: Block,
    rows: Sequence[Tensor],
    columns: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
    keep: Tensor | None = None,
    width: int = 1,
    rows_only: bool = False,
) -> Terms:
    """Both log-sum-exps and the means of the B x B logits between two sides, over the samples of all ranks.

    Args:
        block: `block(row_tensors, column_tensors, parameters)` -> logits (r, c), differentiable, of r rows and c columns.
        rows, columns: tensors (b, ...) of this rank's samples, one or more a side.
        parameters: tensors that all blocks share, such as a learnable temperature.
        keep: bool (b,), the samples that take part.
        width: matrices (r, c) that `block` holds at once, for the size of its blocks.
        rows_only: `columns` of the result is not wanted, and is no number.
    """
    return terms_of(block, rows, columns, parameters, keep, "rows" if rows_only else "both", width)


def pair_softplus(
    block: Block, rows: Sequence[Tensor], columns: Sequence[Tensor], parameters: Sequence[Tensor], keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """mean_i sum_j log(1 + exp l_ij) and mean_i l_ii, arguments as in `pair_lse`. Scalars."""
    found = terms_of(block, rows, columns, parameters, keep, "softplus", 1)
    return found.rows, found.own
