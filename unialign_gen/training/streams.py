"""Batches of a training run, as row numbers: which batch comes at a step follows from the seed and the step alone.

So a resumed run draws what an uninterrupted one would, and every process draws the whole batch and keeps its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.cache import Ragged, counted
from ..errors import InputError
from ..notes import note
from ..retrieval import occurrence
from .config import StreamConfig
from .features import Source
from .seeds import derived


@dataclass
class Draw:
    """A batch by row numbers.

    Attributes:
        caches, samples: of each row the anchor's cache (an index into `Stream.names`) and sample (B,).
        labels: the label by which it was drawn (B,), an index into `Stream.labels`; -1 for none.
        paired: for each paired modality the cache and sample (B,) it comes from; cache -1 where the label has fewer samples
            than rows, since none is in a batch twice.
    """

    caches: Tensor
    samples: Tensor
    labels: Tensor
    paired: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def by_label(source: Source, usable: Tensor, numbers: Tensor, count: int) -> Ragged:
    """The usable samples (bool, N) of a source as rows of their labels, of which there are `count`.

    Args:
        numbers: of the source's own labels among those.
    """
    samples = usable.nonzero()[:, 0]
    mine = source.labels.numbers.some(samples)
    label = numbers[mine.values]
    order = label.argsort(stable=True)
    return Ragged(torch.repeat_interleave(samples, mine.counts)[order], counted(torch.bincount(label, minlength=count)))


def by_id(sources: Mapping[str, Source]) -> dict[str, Tensor]:
    """A number of each sample (N,) by source: samples of one id, in whichever source, have the same."""
    if len(sources) == 1:  # whose ids differ
        return {name: torch.arange(len(source)) for name, source in sources.items()}
    known: dict[str, int] = {}
    return {
        name: torch.tensor([known.setdefault(i, len(known)) for about in source.cache.abouts() for i in about["ids"]])
        for name, source in sources.items()
    }


def pick(index: Ragged, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A sample (B,) of each label (B,), none twice: -1 where a label has no more. In a random order of each label's."""
    turn = torch.rand(len(index), generator=generator)
    count = index.counts[labels]
    nth = occurrence(labels)
    place = index.offsets[labels] + ((turn[labels] * count).long() + nth) % count.clamp(min=1)
    return torch.where(nth < count, index.values[place.clamp(max=max(0, len(index.values) - 1))], -1)


def systematic(cumulative: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices drawn with the odds whose running sum (N,) is given, as evenly as that goes (systematic sampling)."""
    at = (torch.arange(count, dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)) / count
    return torch.searchsorted(cumulative, at * cumulative[-1], right=True).clamp(max=len(cumulative) - 1)


def without_replacement(odds: Tensor, owner: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices (count,) of odds (N,), no two of one owner (N,).

    Systematic sampling; what it draws of an owner a second time is drawn anew among the others, with their odds (the
    largest of the logarithms plus Gumbel noise, Efraimidis and Spirakis 2006).
    """
    drawn = systematic(odds.cumsum(0), count, generator)
    again = occurrence(owner[drawn]) > 0
    if not bool(again.any()):
        return drawn
    noise = -torch.log(-torch.log(torch.rand(len(odds), generator=generator, dtype=torch.float64).clamp(1e-300, 1 - 1e-16)))
    order = (odds.log() + noise).argsort(descending=True)
    left = order[~torch.isin(owner[order], owner[drawn])]
    drawn[again] = left[occurrence(owner[left]) == 0][: int(again.sum())]
    return drawn


class Stream:
    """Draws the batches of one `StreamConfig`.

    Raises:
        InputError: no sample has what the stream asks for, fewer have it than a batch holds, or it is drawn by label and
            there are none.
    """

    def __init__(self, where: str, config: StreamConfig, sources: Mapping[str, Source], anchor: str, seed: int):
        self.config, self.seed, self.where = config, seed, where
        self.names = sorted(config.draw)  # the order of entries in a file changes nothing
        own = [m for m in config.modalities if m not in config.pairs]
        self.labels = sorted({label for source in sources.values() for label in source.labels.names})
        places = {label: i for i, label in enumerate(self.labels)}
        numbers = {n: torch.tensor([places[x] for x in s.labels.names], dtype=torch.int64) for n, s in sources.items()}
        used = {*self.names, *(name for shares in config.pairs.values() for name in shares)}
        self.same = by_id({name: sources[name] for name in used})
        # with their odds (labels, paired caches) as running sums
        self.paired: dict[str, tuple[list[Ragged], Tensor, list[Tensor]]] = {}
        pairable = torch.ones(len(self.labels), dtype=torch.bool)
        for modality, shares in sorted(config.pairs.items()):
            names = sorted(shares)
            usable = [sources[n].has(modality) & ~sources[n].held_out for n in names]
            found = [by_label(sources[n], u, numbers[n], len(self.labels)) for n, u in zip(names, usable, strict=True)]
            odds = torch.tensor([shares[n] for n in names]) * torch.stack([index.counts > 0 for index in found], 1)
            self.paired[modality] = found, odds.cumsum(1), [self.same[n] for n in names]
            pairable &= odds.any(1)
        self._collect(sources, own, anchor, numbers, pairable)

    def _collect(
        self, sources: Mapping[str, Source], own: list[str], anchor: str, numbers: Mapping[str, Tensor], pairable: Tensor
    ) -> None:
        """Lists what can be drawn, one entry for each sample and label, with its odds."""
        config = self.config
        caches, samples, labels, odds, owners = [], [], [], [], []
        for number, name in enumerate(self.names):
            source = sources[name]
            # of what is not paired a sample needs the anchor and one more; the rest may be missing
            others = [m for m in own if m != anchor]
            usable = source.has(anchor) & ~source.held_out
            if others:
                usable &= torch.stack([source.has(m) for m in others]).any(0)
            there = usable.nonzero()[:, 0]
            if lacking := int((~source.held_out).sum()) - len(there):
                what = f"{anchor} or {' and '.join(others)}" if others else anchor
                note(
                    "not trained on",
                    f"{lacking} of {len(source.held_out)} samples of {name} are not trained on: they lack {what}",
                )
            mine = source.labels.numbers.some(there)
            label, sample = numbers[name][mine.values], torch.repeat_interleave(there, mine.counts)
            if config.pairs:
                label, sample = label[pairable[label]], sample[pairable[label]]
            elif config.balance == 1:  # one entry a sample, or several labels would draw it more often
                has = mine.counts > 0
                first = torch.full((len(there),), -1).masked_scatter(has, label[mine.offsets[:-1][has]])
                label, sample = first, there
            else:
                bare = there[mine.counts == 0]
                label, sample = torch.cat([label, torch.full((len(bare),), -1)]), torch.cat([sample, bare])
                order = sample.argsort(stable=True)
                label, sample = label[order], sample[order]
            if not len(sample):
                continue
            count = torch.bincount(label[label >= 0], minlength=max(1, len(self.labels))).clamp(min=1).double()
            weight = torch.where(label >= 0, count[label.clamp(min=0)] ** (config.balance - 1), 1.0)
            caches.append(torch.full((len(sample),), number))
            samples.append(sample)
            owners.append(self.same[name][sample])
            labels.append(label)
            odds.append(weight / weight.sum() * config.draw[name])
        if not caches:
            wanted = " and ".join(sorted({*own, *config.pairs}))
            raise InputError(f"{self.where}: no sample of {', '.join(self.names)} has {wanted} to train from")
        self.caches, self.samples, self.labels_of = torch.cat(caches), torch.cat(samples), torch.cat(labels)
        if config.balance != 1 and not bool((self.labels_of >= 0).any()):
            raise InputError(f"{self.where}.balance: {config.balance:g} draws by label, and no sample of its caches has one")
        self.odds = torch.cat(odds)
        self.owner = torch.cat(owners)
        different = len(self.owner.unique())
        if again := sum(len(part.unique()) for part in owners) - different:
            several = f"{again} samples of {', '.join(self.names)} have the id of one in another of these caches"
            note("same samples", f"{several}: a batch holds one of each id")
        if different < config.batch:
            raise InputError(
                f"{self.where}: a batch of {config.batch} is larger than its set of {different} samples: lower batch"
            )
        self.in_epochs = len(self.names) == 1 and config.balance == 1 and not config.pairs
        if self.in_epochs:
            self.odds = self.owner = self.odds[:0]  # which nothing is drawn by
        self.order = (-1, torch.zeros(0, dtype=torch.int64))  # an epoch and its entries

    def __len__(self) -> int:
        """Entries: those of an epoch."""
        return len(self.samples)

    def draw(self, step: int) -> Draw:
        """The batch of a step, the same in every process."""
        generator = torch.Generator().manual_seed(derived(self.seed, 0, step))
        batch = self.config.batch
        entry = self._epoch(step) if self.in_epochs else without_replacement(self.odds, self.owner, batch, generator)
        drawn = Draw(self.caches[entry], self.samples[entry], self.labels_of[entry])
        for modality, (indices, odds, same) in self.paired.items():
            cumulative = odds[drawn.labels]
            chance = torch.rand(batch, 1, generator=generator)
            cache = (chance * cumulative[:, -1:] >= cumulative).sum(1)
            sample, owner = torch.empty(2, batch, dtype=torch.int64)
            for number, index in enumerate(indices):
                mine = cache == number
                sample[mine] = pick(index, drawn.labels[mine], generator)
                owner[mine] = torch.where(sample[mine] < 0, -1, same[number][sample[mine]])
            sample = torch.where(occurrence(owner) > 0, -1, sample)  # by two of its labels, or of two caches
            drawn.paired[modality] = (torch.where(sample < 0, -1, cache), sample.clamp(min=0))
        return drawn

    def _epoch(self, step: int) -> Tensor:
        """Entries (B,) of a step, each once an epoch. A batch may reach over the end of one, and holds none twice even then."""
        n, start, stop = len(self), step * self.config.batch, (step + 1) * self.config.batch
        epochs = range(start // n, (stop - 1) // n + 1)
        return torch.cat([self._order(e)[max(start - e * n, 0) : min(stop - e * n, n)] for e in epochs])

    def _order(self, epoch: int) -> Tensor:
        """The entries in the order of an epoch, which begins with none of those at the last one's end, of the same batch."""
        at, order = self.order if self.order[0] <= epoch else (-1, self.order[1])
        while at < epoch:
            at, last = at + 1, order
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(derived(self.seed, 1, at)))
            begun = at * len(self) % self.config.batch  # of the batch that the epoch begins in
            if begun:
                fresh = ~torch.isin(order, last[-begun:])
                first = fresh & (fresh.cumsum(0) <= self.config.batch - begun)
                order = torch.cat([order[first], order[~first]])
        self.order = (at, order)
        return order
