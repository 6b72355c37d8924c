"""Batches of a training run, as row numbers: which batch comes at a step follows from the seed and the step alone.

So a resumed run draws what an uninterrupted one would, and every process draws the whole batch and keeps its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from .config import StreamConfig
from .features import Source


@dataclass
class Draw:
    """A batch by row numbers.

    Attributes:
        caches, samples: of each row the anchor's cache (an index into `Stream.names`) and sample (B,).
        labels: the label by which it was drawn (B,), an index into `Stream.labels`; -1 for none.
        lent: for each paired modality the lending cache and sample (B,) each.
    """

    caches: Tensor
    samples: Tensor
    labels: Tensor
    lent: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass
class Shelf:
    """A cache's samples sorted by label: entries starts[l] : starts[l + 1] of `samples` have label l."""

    samples: Tensor
    starts: Tensor

    @property
    def counts(self) -> Tensor:
        return self.starts.diff()

    def pick(self, labels: Tensor, chance: Tensor) -> Tensor:
        """A sample (B,) of each label (B,), by a number in [0, 1)."""
        count = self.counts[labels]
        return self.samples[self.starts[labels] + (chance * count).long().clamp(max=count - 1)]


def shelve(source: Source, usable: Tensor, index: Mapping[str, int]) -> Shelf:
    """The usable samples (bool, N) of a source, by label."""
    pairs = [(index[label], i) for i in usable.nonzero()[:, 0].tolist() for label in source.labels[i] if label in index]
    pairs.sort()
    counts = torch.bincount(torch.tensor([p[0] for p in pairs], dtype=torch.int64), minlength=len(index))
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return Shelf(torch.tensor([p[1] for p in pairs], dtype=torch.int64), starts)


def systematic(cumulative: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices drawn with the odds whose running sum (N,) is given, as evenly as that goes (systematic sampling)."""
    at = (torch.arange(count, dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)) / count
    return torch.searchsorted(cumulative, at * cumulative[-1], right=True).clamp(max=len(cumulative) - 1)


class Stream:
    """Draws the batches of one `StreamConfig`.

    Raises:
        InputError: no sample has what the stream asks for, or it is drawn by label and there are none.
    """

    def __init__(self, where: str, config: StreamConfig, sources: Mapping[str, Source], anchor: str, seed: int):
        self.config, self.seed, self.where = config, seed, where
        self.names = sorted(config.draw)  # the order of entries in a file changes nothing
        paired = set(config.pairs)
        own = [m for m in config.modalities if m not in paired]
        self.labels = sorted({label for n in sources.values() for labels in n.labels for label in labels})
        index = {label: i for i, label in enumerate(self.labels)}
        self.shelves: dict[str, list[Shelf]] = {}
        self.odds: dict[str, Tensor] = {}
        for modality, lenders in sorted(config.pairs.items()):
            shelves = [shelve(sources[n], sources[n].has(modality) & ~sources[n].held_out, index) for n in sorted(lenders)]
            odds = torch.tensor([lenders[n] for n in sorted(lenders)]) * torch.stack([s.counts > 0 for s in shelves], 1)
            self.shelves[modality], self.odds[modality] = shelves, odds.cumsum(1)
        lendable = torch.ones(len(self.labels), dtype=torch.bool)
        for odds in self.odds.values():
            lendable &= odds[:, -1] > 0
        self._collect(sources, own, anchor, index, lendable)

    def _collect(
        self, sources: Mapping[str, Source], own: list[str], anchor: str, index: Mapping[str, int], lendable: Tensor
    ) -> None:
        """Lists what can be drawn, one entry for each sample and label, with its odds."""
        config = self.config
        caches, samples, labels, odds = [], [], [], []
        for number, name in enumerate(self.names):
            source = sources[name]
            # of what is not paired a sample needs the anchor and one more; the rest may be missing
            others = [source.has(m) for m in own if m != anchor]
            usable = source.has(anchor) & ~source.held_out
            if others:
                usable &= torch.stack(others).any(0)
            entries: list[tuple[int, int]] = []
            for i in usable.nonzero()[:, 0].tolist():
                known = [index[label] for label in source.labels[i]]
                fitting = [k for k in known if bool(lendable[k])] if config.pairs else known
                # without pairs and balance a sample is one entry, or several labels would draw it more often
                if fitting and (config.pairs or config.balance != 1):
                    entries += [(i, k) for k in fitting]
                elif not config.pairs:
                    entries.append((i, fitting[0] if fitting else -1))
            if not entries:
                continue
            label = torch.tensor([k for _, k in entries])
            count = torch.bincount(label[label >= 0], minlength=max(1, len(index))).clamp(min=1).double()
            weight = torch.where(label >= 0, count[label.clamp(min=0)] ** (config.balance - 1), 1.0)
            caches.append(torch.full((len(entries),), number))
            samples.append(torch.tensor([i for i, _ in entries]))
            labels.append(label)
            odds.append(weight / weight.sum() * config.draw[name])
        if not caches:
            wanted = " and ".join(sorted({*own, *config.pairs}))
            raise InputError(f"{self.where}: no sample of {', '.join(self.names)} has {wanted} to train from")
        self.caches, self.samples, self.labels_of = torch.cat(caches), torch.cat(samples), torch.cat(labels)
        self.cumulative = torch.cat(odds).cumsum(0)
        self.in_epochs = len(self.names) == 1 and config.balance == 1 and not config.pairs
        self.orders: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Entries: those of an epoch."""
        return len(self.samples)

    def draw(self, step: int) -> Draw:
        """The batch of a step, the same in every process."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
        batch = self.config.batch
        entry = self._epoch(step) if self.in_epochs else systematic(self.cumulative, batch, generator)
        drawn = Draw(self.caches[entry], self.samples[entry], self.labels_of[entry])
        for modality, shelves in self.shelves.items():
            cumulative = self.odds[modality][drawn.labels]
            chance = torch.rand(batch, 2, generator=generator)
            lender = (chance[:, :1] * cumulative[:, -1:] >= cumulative).sum(1)
            sample = torch.empty(batch, dtype=torch.int64)
            for number, shelf in enumerate(shelves):
                mine = lender == number
                sample[mine] = shelf.pick(drawn.labels[mine], chance[mine, 1])
            drawn.lent[modality] = (lender, sample)
        return drawn

    def _epoch(self, step: int) -> Tensor:
        """Entries (B,) of a step, each once an epoch; a batch may reach over the end of one."""
        n, start, stop = len(self), step * self.config.batch, (step + 1) * self.config.batch
        epochs = range(start // n, (stop - 1) // n + 1)
        return torch.cat([self._order(e)[max(start - e * n, 0) : min(stop - e * n, n)] for e in epochs])

    def _order(self, epoch: int) -> Tensor:
        if self.orders is None or self.orders[0] != epoch:
            generator = torch.Generator().manual_seed((self.seed * 7_368_787 + epoch) % 2**63)
            self.orders = (epoch, torch.randperm(len(self), generator=generator))
        return self.orders[1]
