"""Retrieval between texts and clips by any score, in tiles, so that 100 thousand against 100 thousand fits.

A text has one right clip and a clip one or more right texts; where captions repeat, the clips of all equal captions may count
as right. Ties count by expectation over their orders (McSherry & Najork 2008): the right one of two equal scores is first half
the time, and a model that gives everything the same score is at chance. Volume is GRAM's (arXiv 2412.11959) and UniAlign's, the
query-weighted centroid SCALAR's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .objectives.kernel import slices
from .objectives.scalar import score_block
from .objectives.volume import cross_dets, gram_matrix, tuple_terms

__all__ = ["Cosine", "Volume", "QueryWeightedCentroid", "DualSoftmax", "Reranked", "ranks", "both_ways", "recalls"]

ROWS, COLUMNS = 256, 4096  # a tile of scores stays in a core's cache while it is compared
TIE = 1e-6  # fp32 products of unit vectors err by about 1e-7
AT = (1, 5, 10)
DEPTH = 10  # of nDCG
TOP = 50  # candidates that a reranker scores anew


class Score(Protocol):
    """Scores of texts against clips, higher is better."""

    texts: int
    clips: int
    tie: float  # scores no further apart are equal

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """(rows, columns): some texts with some clips."""
        ...


class Cosine:
    """Dot products of unit embeddings of texts (Q, d) and clips (N, d), such as of one modality or of a centroid.

    Example:
        >>> z = torch.eye(3)
        >>> recalls(ranks(Cosine(z, z), torch.arange(3)).to_clip)["R@1"]
        1.0
    """

    tie = TIE

    def __init__(self, text: Tensor, clip: Tensor):
        self.text, self.clip, self.texts, self.clips = text, clip, len(text), len(clip)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        return self.text[rows] @ self.clip[columns].T


class Volume:
    """Minus the Gram determinant of a text (Q, d) with a clip's modalities (N, d each): ranks by volume, its root.

    A modality that a clip does not have is a row of zeros: the volume is then that of the others.

    Example:
        >>> z = torch.eye(3)
        >>> ranks(Volume(z, [z]), torch.arange(3)).to_clip.rank
        array([1., 1., 1.])
    """

    tie = TIE

    def __init__(self, text: Tensor, rest: Sequence[Tensor]):
        self.text, self.rest, self.texts, self.clips = text, list(rest), len(text), len(rest[0])
        self.det, self.adjugate = tuple_terms(self.rest)  # (N,), (N, K, K)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        rest = [r[columns] for r in self.rest]
        return -cross_dets(self.text[rows], rest, self.det[columns], self.adjugate[columns])


class QueryWeightedCentroid:
    """Cosine of a text t with the centroid of a clip's modalities weighted by their own cosines with it (SCALAR, eq 1 to 3).

    w_m = softmax_m(<t, z^m> / tau) over the modalities that are there (rows that are not zero), and the score is
    sum_m w_m <t, z^m> / |sum_m w_m z^m|, from dot products alone.

    Example:
        >>> z, same = torch.eye(3), torch.full((3, 3), 3**-0.5)
        >>> ranks(QueryWeightedCentroid(z, [z, same]), torch.arange(3)).to_clip.rank
        array([1., 1., 1.])
    """

    tie = TIE

    def __init__(self, text: Tensor, rest: Sequence[Tensor], tau: float = 0.1):
        self.text, self.rest, self.tau, self.texts, self.clips = text, list(rest), tau, len(text), len(rest[0])
        stack = torch.stack(self.rest, 1)  # (N, K, d)
        self.has, self.gram = stack.any(2), gram_matrix(stack)  # (N, K), (N, K, K)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        has, rest = self.has[columns], [r[columns] for r in self.rest]
        found = score_block(self.text[rows], rest, self.gram[columns], has, self.tau)
        return torch.where(has.any(1), found, 0.0)  # where a clip has nothing


class DualSoftmax:
    """Scores times their softmax over the queries (Cheng et al. 2021, arXiv 2109.04290), "+DSL".

    It looks at all queries at once and knows that pairs are one to one, which a search engine does not. `over` names the
    queries: `text` when texts look for clips, `clip` when clips look for texts.

    Raises:
        InputError: texts and clips are not one to one.

    Example:
        >>> z = torch.eye(3)
        >>> ranks(DualSoftmax(Cosine(z, z), torch.arange(3), "text"), torch.arange(3)).to_clip.rank
        array([1., 1., 1.])
    """

    tie = 0.0  # most of these scores are tiny

    def __init__(self, score: Score, owner: Tensor, over: str, scale: float = 1.0):
        if score.texts != score.clips or len(torch.unique(owner)) != score.texts:
            raise InputError("DSL needs pairs one to one: these clips have several captions")
        self.score, self.over, self.scale, self.texts, self.clips = score, over, scale, score.texts, score.clips
        self.total = torch.full((score.clips,), -torch.inf)  # log of the sum over the queries
        for rows, columns in tiles(score):
            part, dim = (columns, 0) if over == "text" else (rows, 1)
            self.total[part] = torch.logaddexp(self.total[part], (scale * score.tile(rows, columns)).logsumexp(dim))

    def tile(self, rows: slice, columns: slice) -> Tensor:
        found = self.score.tile(rows, columns)
        return found * (self.scale * found - (self.total[columns] if self.over == "text" else self.total[rows, None])).exp()


class Reranked:
    """Scores of which each query's first 50 candidates are put in the order of another model's scores (Q, N), as VAST and GRAM
    do with their matching head; the other candidates stay behind them. `over` names the queries, as in `DualSoftmax`.

    Raises:
        InputError: the other scores are of another shape, or not finite.

    Example:
        >>> z = torch.eye(3)
        >>> ranks(Reranked(Cosine(z, z), z.flip(0), "text"), torch.arange(3)).to_clip.rank
        array([2.5, 1. , 2.5])
    """

    tie = TIE

    def __init__(self, score: Score, other: Tensor, over: str, top: int = TOP):
        if other.shape != (score.texts, score.clips) or not bool(other.isfinite().all()):
            raise InputError(f"a reranker's scores are finite, ({score.texts}, {score.clips}); got {tuple(other.shape)}")
        self.score, self.over, self.texts, self.clips = score, over, score.texts, score.clips
        self.other = other + (3 - other.min())  # above every cosine
        best = torch.full((score.texts if over == "text" else score.clips, top), -torch.inf)  # of each query, descending
        for rows, columns in tiles(score):
            part, tile = (rows, score.tile(rows, columns)) if over == "text" else (columns, score.tile(rows, columns).T)
            best[part] = torch.cat([best[part], tile], 1).topk(top, 1).values
        self.least = best[:, -1]

    def tile(self, rows: slice, columns: slice) -> Tensor:
        found = self.score.tile(rows, columns)
        least = self.least[rows, None] if self.over == "text" else self.least[columns]
        return torch.where(found >= least, self.other[rows, columns], found)


def tiles(score: Score) -> list[tuple[slice, slice]]:
    return [(rows, columns) for rows in slices(score.texts, ROWS) for columns in slices(score.clips, COLUMNS)]


def occurrence(values: Tensor) -> Tensor:
    """How often each value (B,) stands before its own place: [4, 2, 4, 4] -> [0, 0, 1, 2]."""
    order = values.argsort(stable=True)
    ordered = values[order]
    first = torch.searchsorted(ordered, ordered)
    out = torch.empty_like(order)
    out[order] = torch.arange(len(values)) - first
    return out


@dataclass(frozen=True)
class Ranking:
    """One direction, a number for each of n queries, expectations where scores tie.

    Attributes:
        rank: of the first right one, from 1.
        hits: k -> the chance that a right one is among the first k.
        ap: average precision over the right ones. ndcg: of the first 10.
    """

    rank: np.ndarray
    hits: dict[int, np.ndarray]
    ap: np.ndarray
    ndcg: np.ndarray

    def __len__(self) -> int:
        return len(self.rank)


@dataclass(frozen=True)
class Ranks:
    """Both directions: of each text (Q,), looking for clips, and of each clip (N,), looking for texts."""

    to_clip: Ranking
    to_text: Ranking


class Rights:
    """The right ones of n queries, padded to the most that one has: scores (n, r), -inf where there are fewer.

    They are made from pairs: the query of each (P,) and its score (P,). better, tied: how many wrong ones score higher, or
    the same.
    """

    def __init__(self, query: Tensor, scores: Tensor, count: int):
        most = int(torch.bincount(query).max())
        self.scores = torch.full((count, most), -torch.inf, dtype=scores.dtype)
        self.scores[query, occurrence(query)] = scores
        self.better, self.tied = torch.zeros(2, count, most, dtype=torch.int64)

    def count(self, part: slice, tile: Tensor, tie: float) -> None:
        """Counts a tile (queries of `part`, candidates) whose right ones are at -inf."""
        right = self.scores[part]
        above = counts_above(tile, right + tie, strictly=True)
        self.better[part] += above
        self.tied[part] += counts_above(tile, right - tie, strictly=False) - above


def counts_above(tile: Tensor, levels: Tensor, strictly: bool) -> Tensor:
    """How many of each row of a tile (n, c) lie above, or not below, each of the row's levels (n, r): (n, r)."""
    compare, out = (torch.gt if strictly else torch.ge), torch.empty_like(tile)
    return torch.stack([compare(tile, level[:, None], out=out).sum(1) for level in levels.unbind(1)], dim=1).long()


def ranks(score: Score, owner: Tensor, groups: Tensor | None = None) -> Ranks:
    """Both directions.

    Args:
        owner: of each text, the number of its clip (Q,). Every clip has a text.
        groups: of each text, a number that equal captions share (Q,): the clips of equal captions, and their texts, are then
            right as well. Without it only a text's own clip is, as published tables have it.

    Raises:
        InputError: a clip without a text, or scores that are not finite.

    Example:
        >>> clip = torch.eye(2)
        >>> text = clip[[0, 0]]  # both clips have the caption of the first
        >>> recalls(ranks(Cosine(text, clip), torch.arange(2)).to_clip)["R@1"]
        0.5
        >>> recalls(ranks(Cosine(text, clip), torch.arange(2), groups=torch.zeros(2, dtype=torch.int64)).to_clip)["R@1"]
        1.0
    """
    if len(owner) != score.texts or len(torch.unique(owner)) != score.clips or int(owner.max()) >= score.clips:
        raise InputError("every clip needs at least one text, and every text one clip")
    text, clip = right_pairs(owner, groups)
    first = torch.searchsorted(text, torch.arange(score.texts + 1))  # pairs are sorted by text
    places = []  # of each tile: which pairs lie in it, and where
    for rows, columns in tiles(score):
        at = torch.arange(int(first[rows.start]), int(first[rows.stop]))
        at = at[(clip[at] >= columns.start) & (clip[at] < columns.stop)]
        places.append((rows, columns, at, text[at] - rows.start, clip[at] - columns.start))
    own = torch.empty(len(text))  # (P,), entries of the very tiles that they are compared with
    for rows, columns, at, i, j in places:
        if len(at):
            own[at] = score.tile(rows, columns)[i, j]
    if not bool(own.isfinite().all()):
        raise InputError("scores hold NaN or infinite values")
    forth, back = Rights(text, own, score.texts), Rights(clip, own, score.clips)
    for rows, columns, _, i, j in places:
        tile = score.tile(rows, columns)
        tile[i, j] = -torch.inf  # right ones are no rivals
        forth.count(rows, tile, score.tie)
        back.count(columns, tile.T, score.tie)
    return Ranks(measured(forth, score.clips, score.tie), measured(back, score.texts, score.tie))


def right_pairs(owner: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    """(text, clip) of every right pair (P,) each, sorted by text."""
    if groups is None:
        return torch.arange(len(owner)), owner
    known = torch.unique(torch.stack([groups, owner], dim=1), dim=0)  # (G, 2): which clips a caption has
    first = torch.searchsorted(known[:, 0].contiguous(), groups)
    counts = torch.searchsorted(known[:, 0].contiguous(), groups, right=True) - first
    text = torch.repeat_interleave(torch.arange(len(owner)), counts)
    return text, known[first[text] + occurrence(text), 1]


def measured(rights: Rights, candidates: int, tie: float) -> Ranking:
    """Every figure of one direction, with expectations over the orders of ties."""
    scores, order = rights.scores.sort(dim=1, descending=True)  # (n, r)
    there = scores > -torch.inf
    ahead = torch.searchsorted(-scores, -(scores + tie))  # right ones that are better
    level = (torch.searchsorted(-scores, -(scores - tie), right=True) - ahead).clamp(min=1)  # and as good, with itself
    before = rights.better.gather(1, order) + ahead  # (n, r): all that come before the tie, and all in it
    size = rights.tied.gather(1, order) + level
    steps = torch.arange(1, candidates + 2, dtype=torch.float64)
    harmonic = F.pad((1 / steps).cumsum(0), (1, 0))
    gains = F.pad((torch.where(steps <= DEPTH, 1 / (1 + steps).log2(), 0.0)).cumsum(0), (1, 0))
    end = before + size
    inverse = (harmonic[end.clamp(max=candidates)] - harmonic[before.clamp(max=candidates)]) * there
    share = (level - 1) / (size - 1).clamp(min=1)  # of the others in the tie that are right
    precision = ((ahead + 1) * inverse + share * (size - (before + 1) * inverse)) / size * there
    gain = (gains[end.clamp(max=candidates)] - gains[before.clamp(max=candidates)]) / size * there
    total = there.sum(1)
    first, wrong, right = before[:, 0], rights.tied.gather(1, order)[:, 0], level[:, 0]
    hits = {}
    for k in AT:
        miss = torch.ones(len(first), dtype=torch.float64)  # chance that the places left to the tie hold wrong ones alone
        for i in range(k):
            drawn = i < k - first
            miss = torch.where(drawn, miss * (wrong - i).clamp(min=0) / (wrong + right - i).clamp(min=1), miss)
        hits[k] = (1 - miss).numpy()
    return Ranking(
        (first + (wrong + right + 1) / (right + 1)).double().numpy(),
        hits,
        (precision.sum(1) / total).numpy(),
        (gain.sum(1) / gains[total.clamp(max=DEPTH)]).numpy(),
    )


def recalls(ranking: Ranking) -> dict[str, float]:
    """R@1, R@5, R@10 as shares of n queries, mAP, nDCG@10 and the median rank.

    Example:
        >>> z = torch.eye(2)
        >>> recalls(ranks(Cosine(z, z), torch.arange(2)).to_text)
        {'R@1': 1.0, 'R@5': 1.0, 'R@10': 1.0, 'mAP': 1.0, 'nDCG@10': 1.0, 'median_rank': 1.0, 'n': 2}
    """
    shares = {f"R@{k}": float(hits.mean()) for k, hits in ranking.hits.items()}
    quality = {"mAP": float(ranking.ap.mean()), f"nDCG@{DEPTH}": float(ranking.ndcg.mean())}
    return {**shares, **quality, "median_rank": float(np.median(ranking.rank)), "n": len(ranking)}


def both_ways(make: Callable[[str], Score], owner: Tensor) -> Ranks:
    """Ranks under a score that depends on who asks, `text` or `clip`, each direction under its own.

    Example:
        >>> z = torch.eye(3)
        >>> both_ways(lambda over: DualSoftmax(Cosine(z, z), torch.arange(3), over), torch.arange(3)).to_text.rank
        array([1., 1., 1.])
    """
    return Ranks(ranks(make("text"), owner).to_clip, ranks(make("clip"), owner).to_text)


def equal_rows(x: Tensor, near: float = 1e-4, window: int = 8) -> Tensor:
    """A number (Q,) for each row of features (Q, d) that rows share which are equal but for rounding: those of equal captions.

    Rows are sorted along one direction; neighbours there whose difference is below `near` of their length are equal.
    """
    x = x.float()
    norms = x.norm(dim=1).clamp(min=1e-12)
    u = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(0))
    order = (x @ u / norms).argsort()
    found = torch.arange(len(x))  # each row's leader, an earlier one along the direction
    for step in range(window, 0, -1):
        one, other = order[:-step], order[step:]
        same = (x[one] - x[other]).norm(dim=1) < near * norms[one]
        found[other[same]] = one[same]
    while not torch.equal(found, found[found]):
        found = found[found]
    return torch.unique(found, return_inverse=True)[1]
