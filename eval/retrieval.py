"""Retrieval between texts and clips: ranks by any score, in blocks, so that 100 thousand against 100 thousand fits.

A text has one right clip; a clip has one or more right texts, and the best of them counts. Ties count half: a model that gives
everything the same score gets the rank of chance, not the first. T-VA by volume is GRAM's (arXiv 2412.11959) and UniAlign's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.objectives.volume import cross_dets, tuple_terms

ROWS, COLUMNS = 256, 4096  # a tile of scores stays in a core's cache while it is compared four times
TIE = 1e-6  # fp32 products of unit vectors err by about 1e-7
AT = (1, 5, 10)


class Score(Protocol):
    """Scores of texts against clips, higher is better."""

    texts: int
    clips: int
    tie: float  # scores no further apart are equal

    def block(self, rows: slice) -> Tensor:
        """(rows, clips)."""
        ...

    def own(self, rows: slice, owner: Tensor) -> Tensor:
        """Of each row's own clip (rows,)."""
        ...


class Cosine:
    """Dot products of unit embeddings of texts (Q, d) and clips (N, d)."""

    tie = TIE

    def __init__(self, text: Tensor, clip: Tensor):
        self.text, self.clip, self.texts, self.clips = text, clip, len(text), len(clip)

    def block(self, rows: slice) -> Tensor:
        return self.text[rows] @ self.clip.T

    def own(self, rows: slice, owner: Tensor) -> Tensor:
        return (self.text[rows] * self.clip[owner]).sum(1)


class Volume:
    """Minus the Gram determinant of a text (Q, d) with a clip's modalities (N, d each): ranks by volume, its root."""

    tie = TIE

    def __init__(self, text: Tensor, rest: Sequence[Tensor]):
        self.text, self.rest, self.texts, self.clips = text, list(rest), len(text), len(rest[0])
        self.terms = tuple_terms(self.rest)

    def block(self, rows: slice) -> Tensor:
        return -cross_dets(self.text[rows], self.rest, *self.terms)

    def own(self, rows: slice, owner: Tensor) -> Tensor:
        det, adjugate = (t[owner] for t in self.terms)
        dots = torch.stack([(self.text[rows] * r[owner]).sum(1) for r in self.rest], dim=1)
        return (dots[:, None] @ adjugate @ dots[:, :, None])[:, 0, 0] - det


@dataclass(frozen=True)
class Ranks:
    """Rank of the right one, from 1, halves for ties: of each text's clip (Q,), and of each clip's best text (N,)."""

    to_clip: np.ndarray
    to_text: np.ndarray


def blocks(count: int) -> list[slice]:
    return [slice(at, min(at + ROWS, count)) for at in range(0, count, ROWS)]


def ranks(score: Score, owner: Tensor) -> Ranks:
    """Both directions.

    Args:
        owner: of each text, the number of its clip (Q,). Every clip has a text.

    Raises:
        InputError: a clip without a text, or scores that are not finite.
    """
    check_owner(score, owner)
    own = torch.cat([score.own(part, owner[part]) for part in blocks(score.texts)])
    if not bool(own.isfinite().all()):
        raise InputError("scores hold NaN or infinite values")
    best = torch.full((score.clips,), -torch.inf).scatter_reduce(0, owner, own, "amax")
    ahead, level = torch.zeros(score.texts), torch.zeros(score.texts)
    better, as_good = torch.zeros(score.clips), torch.zeros(score.clips)
    for part in blocks(score.texts):
        found = score.block(part)
        mine, right = owner[part], own[part, None]
        for at in range(0, score.clips, COLUMNS):
            tile, top = found[:, at : at + COLUMNS], best[at : at + COLUMNS]
            ones = torch.empty_like(tile)
            ahead[part] += torch.gt(tile, right + score.tie, out=ones).sum(1)
            level[part] += torch.ge(tile, right - score.tie, out=ones).sum(1)
            better[at : at + COLUMNS] += torch.gt(tile, top + score.tie, out=ones).sum(0)
            as_good[at : at + COLUMNS] += torch.ge(tile, top - score.tie, out=ones).sum(0)
        level_too = found.gather(1, mine[:, None])[:, 0] >= best[mine] - score.tie  # own texts are no rivals of each other
        as_good.index_add_(0, mine, -level_too.float())
    to_clip, to_text = 1 + ahead + (level - ahead - 1) / 2, 1 + better + (as_good - better) / 2
    return Ranks(to_clip.double().numpy(), to_text.double().numpy())


def check_owner(score: Score, owner: Tensor) -> None:
    if len(owner) != score.texts or len(torch.unique(owner)) != score.clips or int(owner.max()) >= score.clips:
        raise InputError("every clip needs at least one text, and every text one clip")


def recalls(ranks: np.ndarray) -> dict[str, float]:
    """R@1, R@5, R@10 as shares, median rank, and how many queries."""
    shares = {f"R@{k}": float((ranks <= k).mean()) for k in AT}
    return {**shares, "median_rank": float(np.median(ranks)), "n": len(ranks)}


class DualSoftmax:
    """Scores times their softmax over the queries (Cheng et al. 2021, arXiv 2109.04290), "+DSL".

    It looks at all queries at once and knows that pairs are one to one, which a search engine does not. `over` names the
    queries: `text` when texts look for clips, `clip` when clips look for texts.

    Raises:
        InputError: texts and clips are not one to one.
    """

    tie = 0.0  # most of these scores are tiny

    def __init__(self, score: Score, owner: Tensor, over: str, scale: float = 1.0):
        if score.texts != score.clips or len(torch.unique(owner)) != score.texts:
            raise InputError("DSL needs pairs one to one: these clips have several captions")
        self.score, self.over, self.scale, self.texts, self.clips = score, over, scale, score.texts, score.clips
        self.total = torch.full((score.clips,), -torch.inf)
        if over == "text":
            for part in blocks(score.texts):
                self.total = torch.logaddexp(self.total, (scale * score.block(part)).logsumexp(0))

    def block(self, rows: slice) -> Tensor:
        found = self.score.block(rows)
        logits = self.scale * found
        total = self.total if self.over == "text" else logits.logsumexp(1, keepdim=True)
        return found * (logits - total).exp()

    def own(self, rows: slice, owner: Tensor) -> Tensor:
        return self.block(rows).gather(1, owner[:, None])[:, 0]


def dual_softmax_ranks(score: Score, owner: Tensor, scale: float = 1.0) -> Ranks:
    """Ranks of both directions, each under the softmax over its own queries."""
    forth = ranks(DualSoftmax(score, owner, "text", scale), owner).to_clip
    return Ranks(forth, ranks(DualSoftmax(score, owner, "clip", scale), owner).to_text)


Scorer = Callable[[int, list[int]], Sequence[float]]


def rescored_ranks(score: Score, owner: Tensor, by_text: Scorer, by_clip: Scorer, top: int = 50) -> Ranks:
    """Ranks after a matching model, "+ITM", has put each query's `top` candidates in a new order.

    Args:
        by_text: (text, its candidate clips) -> a score for each, higher is better; by_clip: (clip, its candidate texts).

    A right one that was not among the candidates keeps its rank.
    """
    plain = ranks(score, owner)
    count, reverse = min(top, score.clips), min(top, score.texts)
    to_clip, to_text = plain.to_clip.copy(), plain.to_text.copy()
    values, texts = torch.empty(0, score.clips), torch.empty(0, score.clips, dtype=torch.int64)
    for part in blocks(score.texts):
        found = score.block(part)
        for i, row in enumerate(found.topk(count, dim=1).indices.tolist(), part.start):
            to_clip[i] = reordered(to_clip[i], by_text(i, row), [c == int(owner[i]) for c in row])
        values = torch.cat([values, found])
        texts = torch.cat([texts, torch.arange(part.start, part.stop)[:, None].expand_as(found)])
        values, picked = values.topk(min(reverse, len(values)), dim=0)
        texts = texts.gather(0, picked)
    for j, column in enumerate(texts.T.tolist()):
        to_text[j] = reordered(to_text[j], by_clip(j, column), [int(owner[t]) == j for t in column])
    return Ranks(to_clip, to_text)


def reordered(before: float, scores: Sequence[float], right: Sequence[bool]) -> float:
    """The rank of the best right candidate by the new scores; as before if none is right."""
    given, mine = np.asarray(scores, dtype=np.float64), np.asarray(right)
    if not mine.any():
        return before
    best, others = given[mine].max(), given[~mine]
    return 1 + int((others > best).sum()) + int((others == best).sum()) / 2
