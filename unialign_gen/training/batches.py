"""Row numbers to tensors: what one process feeds its heads at a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import TrainConfig
from .features import Source
from .raw_inputs import RawInputs
from .rows import Rows, StreamBatch
from .seeds import derived
from .streams import Draw, Stream


class Batches:
    """Makes a stream's batches.

    Args:
        points: unit embeddings (N, d) of a frozen anchor by cache; empty where the anchor is trained.
        means: unit means (d,) of the labels, for `label_share`.
        spread: standard deviation of each feature (width,) by modality, for noise.
        raw_inputs: inputs of encoders that are trained too.
    """

    def __init__(
        self,
        config: TrainConfig,
        stream: Stream,
        sources: Mapping[str, Source],
        points: Mapping[str, Tensor],
        means: Mapping[str, Tensor],
        spread: Mapping[str, Tensor],
        raw_inputs: RawInputs | None = None,
    ):
        self.config, self.stream, self.sources, self.points, self.spread = config, stream, sources, points, spread
        self.raw_inputs = raw_inputs
        self.share = stream.config.label_share
        if points and self.share:
            dim = next(iter(points.values())).shape[1]
            self.means = torch.stack([means.get(label, torch.zeros(dim)) for label in stream.labels] + [torch.zeros(dim)])

    def batch(self, step: int, rank: int, world: int) -> StreamBatch:
        """The rows rank, rank + world, ... of the step's batch. Chance is drawn for the whole batch in every process."""
        drawn = self.stream.draw(step)
        generator = torch.Generator().manual_seed(derived(self.stream.seed, 2, step))
        mine = slice(rank, None, world)
        rows = {}
        for modality in self.stream.config.modalities:
            if modality in self.config.heads:
                rows[modality] = self._rows(modality, drawn, mine, generator)
        return StreamBatch(rows, self._anchor(drawn, mine) if self.points else None)

    def _anchor(self, drawn: Draw, mine: slice) -> Tensor:
        caches, samples, labels = drawn.caches[mine], drawn.samples[mine], drawn.labels[mine]
        parts = []
        for number, name in enumerate(self.stream.names):
            here = (caches == number).nonzero()[:, 0]
            parts.append((here, self.points[name].index_select(0, samples[here])))
        out = placed(parts, len(samples), parts[0][1].shape[1])
        if self.share:
            mean = self.means[labels]  # -1 is the row of zeros at the end
            known = (labels >= 0)[:, None]
            out = torch.where(known, F.normalize((1 - self.share) * out + self.share * mean, dim=1), out)
        return out

    def _rows(self, modality: str, drawn: Draw, mine: slice, generator: torch.Generator) -> Rows:
        if modality in drawn.paired:
            names, (caches, samples) = sorted(self.stream.config.pairs[modality]), drawn.paired[modality]
        else:
            names, caches, samples = self.stream.names, drawn.caches, drawn.samples
        head, whole = self.config.heads[modality], len(samples)
        chance = torch.rand(whole, generator=generator)
        caches, samples, chance = caches[mine], samples[mine], chance[mine]
        if self.raw_inputs is not None and modality in self.raw_inputs.encoders:
            return self.raw_inputs.rows(modality, names, caches, samples, chance)
        width = next(s.width(modality) for s in self.sources.values() if modality in s.rows)
        noise = torch.randn(whole, width, generator=generator)[mine] if head.noise else None
        having = [self.sources[name].rows.get(modality) for name in names]
        owner: Tensor | None = None
        if head.rows == "mean":
            found = []
            for cache, sample in zip(caches.tolist(), samples.tolist(), strict=True):
                ragged = having[cache] if cache >= 0 else None
                found.append(torch.zeros(0, width) if ragged is None else ragged[sample].float())
            counts = torch.tensor([len(rows) for rows in found])
            values, owner, present = torch.cat(found), torch.repeat_interleave(counts), counts > 0
        else:
            parts, present = [], torch.zeros(len(samples), dtype=torch.bool)
            for number, ragged in enumerate(having):
                if ragged is None:
                    continue
                here = (caches == number).nonzero()[:, 0]
                count = ragged.counts[samples[here]]
                here, count = here[count > 0], count[count > 0]
                row = ragged.offsets[samples[here]] + (chance[here] * count).long().clamp(max=count - 1)
                parts.append((here, ragged.values[row].float()))
                present[here] = True
            values = placed(parts, len(samples), width)
        if noise is not None:
            values += head.noise * self.spread[modality] * (noise if owner is None else noise[owner])
        return Rows(values, owner, None if bool(present.all()) else present, len(samples))


def placed(parts: Sequence[tuple[Tensor, Tensor]], count: int, width: int) -> Tensor:
    """Rows (count, width) from pairs of places (n) and rows (n, width), zeros where there are none.

    Rows that fill all places in their order are used as they are: a batch is drawn between two steps, and a copy is a delay.
    """
    parts = [(here, rows) for here, rows in parts if len(here)]
    if len(parts) == 1 and len(parts[0][0]) == count:
        return parts[0][1]
    out = torch.zeros(count, width)
    for here, rows in parts:
        out.index_copy_(0, here, rows)
    return out
