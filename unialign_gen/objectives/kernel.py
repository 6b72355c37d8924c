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
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache, wraps
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
    waiting, running = list(pairs), dict[Future[None], set[int]]()
    inference = torch.is_inference_mode_enabled()

    def run(pair: Pair) -> None:
        with torch.inference_mode(inference), torch.no_grad():  # both are a thread's own
            work(*pair)

    try:
        while waiting or running:
            taken = set[int]().union(*running.values())  # blocks of pairs that run, then also of those that wait
            at = 0
            while at < len(waiting) and len(running) < threads:
                blocks = set(waiting[at] if symmetric else waiting[at][:1])
                if taken & blocks:
                    at += 1
                else:
                    running[workers(threads).submit(run, waiting.pop(at))] = blocks
                taken |= blocks
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                del running[done]
                done.result()
    finally:
        wait(running)
        torch.set_num_threads(torch.get_num_threads())  # what new threads get; this one's own count never changed


def taking_part(keep: Tensor | None, count: int) -> tuple[Tensor | slice, int]:
    """Which of all ranks' rows take part, `count` a rank, and where this rank's begin among those.

    Ranks follow each other, and so do their samples that are kept.
    """
    before = ranks.rank() * count
    if keep is None:
        return slice(None), before
    kept = ranks.gather(keep)
    return kept, int(kept[:before].sum())


def in_place(values: Tensor, keep: Tensor | None) -> Tensor:
    """Values (k, ...) of the samples that `keep` (b,) marks at their places, (b, ...): zeros at the others."""
    if keep is None:
        return values
    whole = values.new_zeros(len(keep), *values.shape[1:])
    whole[keep] = values
    return whole


class _SelfLse(torch.autograd.Function):
    """Of kept rows the mean of log sum_{j != i} exp(terms_ij), or (`pooled`) the log of the sum over all i != j.

    Euclidean terms are <z_i, z_j> / tau^2 inside, without the constant -1 / tau^2.
    """

    @staticmethod
    @full_precision
    def forward(ctx: Any, z: Tensor, tau: float, geodesic: bool, keep: Tensor | None, pooled: bool) -> Tensor:  # type: ignore[override]
        kept, first = taking_part(keep, len(z))
        everything = ranks.gather(z)[kept]  # (B, d)
        rows = everything[first : first + (len(z) if keep is None else int(keep.sum()))]  # (b, d), this rank's
        lse = RunningLse(len(rows), everything)
        tiles = Tiles(rows, everything, first, tau, geodesic)

        def work(i: int, j: int) -> None:
            terms = tiles.terms(tiles.dots(i, j), i, j)  # (tile, tile)
            if tiles.symmetric and i != j:
                lse.add_both_ways(tiles.rows_of[i], tiles.columns_of[j], terms)
            else:
                lse.add(tiles.rows_of[i], terms)

        each(work, tiles.pairs, tiles.symmetric, z.device)
        own = lse.value()  # (b,)
        count, constant = len(everything), 0.0 if geodesic else 1 / tau**2
        every = ranks.gather(in_place(own, keep))[kept]  # (B,)
        result = every.logsumexp(0) if pooled else ranks.total(own.sum()) / max(count, 1)
        if pooled:  # every term is weighed against the one sum of all
            own, every = result.expand_as(own), result.expand_as(every)
        ctx.save_for_backward(z, everything, rows, own, every, keep, *tiles.kept.values())
        ctx.settings = (first, tau, geodesic, 1 if pooled else max(count, 1), list(tiles.kept))
        return result - constant

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, everything, rows, own, every, keep, *kept = ctx.saved_tensors
        first, tau, geodesic, count, at_pairs = ctx.settings
        tiles = Tiles(rows, everything, first, tau, geodesic, dict(zip(at_pairs, kept, strict=True)))
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
            if tiles.symmetric and i != j:
                out[columns].addmm_(weight.T, rows[at])

        each(work, tiles.pairs, tiles.symmetric, z.device)
        out *= grad * ranks.world() / (count * tau**2)
        return in_place(out, keep), None, None, None, None


class Tiles:
    """The matrix of <x_i, y_j> / tau^2, rows (b, d) by columns (B, d), tile by tile.

    On one process rows and columns are the same, and only tiles i <= j are visited.

    Args:
        first: where the rows begin among the columns: there a row meets itself.
        kept: tiles that were computed before; without it new ones are kept, if all of them are few enough.
    """

    def __init__(
        self, rows: Tensor, columns: Tensor, first: int, tau: float, geodesic: bool, kept: dict[Pair, Tensor] | None = None
    ):
        self.rows, self.columns, self.first = rows, columns, first
        self.symmetric, self.tau, self.geodesic = ranks.world() == 1, tau, geodesic
        threads = torch.get_num_threads()
        most = TILE if rows.device.type == "cpu" else DEVICE_TILE
        size = most
        if threads > 1 and len(rows) > most:  # fewer rows are one tile, whose operations torch shares among its threads itself
            size = min(most, max(SMALL, -(-len(rows) // (2 * threads))))
        self.rows_of = list(slices(len(rows), size))
        self.columns_of = self.rows_of if self.symmetric else list(slices(len(columns), most))
        every = [(i, j) for j in range(len(self.columns_of)) for i in range(len(self.rows_of))]
        self.pairs = tournament(len(self.rows_of)) if self.symmetric else every
        self.keep = kept is None and len(rows) * len(columns) <= KEPT
        self.kept = {} if kept is None else kept

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
        tile.diagonal(self.first + self.rows_of[i].start - self.columns_of[j].start).fill_(value)


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
        kept, first = taking_part(keep, len(tensors[0]))
        spread = [ranks.gather(t)[kept] for t in tensors[: n_rows + n_columns]]  # (B, ...)
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
        all_row, all_column = own_row, own_column  # (B,)
        if not single:
            all_row, all_column = ranks.gather(in_place(torch.stack([own_row, own_column], 1), keep))[kept].unbind(1)
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
        own_row, own_column, all_row, all_column, pooled, keep, *rest = ctx.saved_tensors[given:]
        sides = n_rows + n_columns
        local, spread, parameters = rest[:sides], rest[sides : 2 * sides], rest[2 * sides :]
        mine, size, single = len(local[0]), max(len(spread[0]), 1), ranks.world() == 1
        out = [torch.zeros_like(t) if w else None for t, w in zip([*local, *parameters], wanted, strict=True)]
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
            row: list[Tensor], column: list[Tensor], row_lse: Tensor, column_lse: Tensor, places: list[Any], diagonal: int
        ) -> None:
            """Adds the gradient of one block to `out`: of each of row + column + parameters at its place, None for nowhere."""
            asked_of = [place is not None and w for place, w in zip(places, wanted, strict=True)]
            if not any(asked_of):
                return
            logits, inputs = ctx.made or logits_of(block, row, column, parameters, asked_of)
            ctx.made = None  # a second backward computes it again
            asked = [k for k, w in enumerate(asked_of) if w]
            weight = weights(logits.detach(), row_lse, column_lse, diagonal)
            found = torch.autograd.grad(logits, [inputs[k] for k in asked], weight, allow_unused=True)
            for k, g in zip(asked, found, strict=True):
                target = out[k]
                if g is not None and target is not None:
                    target[places[k]] += g

        for r in slices(mine, step):
            places: list[Any] = [r] * n_rows + [... if single else None] * n_columns + [...] * len(parameters)
            pull([t[r] for t in local[:n_rows]], spread[n_rows:], own_row[r], all_column, places, first + r.start)
        if not single:
            for c in slices(mine, step):
                places = [None] * n_rows + [c] * n_columns + [None] * len(parameters)
                pull(spread[:n_rows], [t[c] for t in local[n_rows:]], all_row, own_column[c], places, -first - c.start)
        out[:sides] = [g if g is None else in_place(g, keep) for g in out[:sides]]
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


def pair_lse(
    block: Block,
    rows: Sequence[Tensor],
    columns: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
    keep: Tensor | None = None,
    width: int = 1,
    kind: Kind = "both",
) -> Terms:
    """Both log-sum-exps and the means of the B x B logits between two sides, over the samples of all ranks.

    Args:
        block: `block(row_tensors, column_tensors, parameters)` -> logits (r, c), differentiable, of r rows and c columns.
        rows, columns: tensors (b, ...) of this rank's samples, one or more a side.
        parameters: tensors that all blocks share, such as a learnable temperature.
        keep: bool (b,), the samples that take part.
        width: matrices (r, c) that `block` holds at once, for the size of its blocks.
        kind: of `rows` the result's `columns` is no number; of `softplus` its `rows` is mean_i sum_j log(1 + exp l_ij)
            instead, and `mean` and `own` are the only others that are numbers.
    """
    if keep is not None and int(ranks.total(keep.sum())) == 0:
        return Terms(*[nothing([t for t in (*rows, *columns) if t.is_floating_point()])] * 5)
    return Terms(*_PairLse.apply(block, (len(rows), len(columns)), keep, kind, width, *rows, *columns, *parameters))
