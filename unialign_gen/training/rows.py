"""Features of a batch as tensors: some samples have several rows, some none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate.utils import send_to_device
from torch import Tensor


@dataclass
class Rows:
    """Features of one modality for b samples.

    Attributes:
        values: (R, width); zeros stand for a sample that lacks the modality.
        owner: to which sample each row belongs (R,), or None where each sample has one row.
        present: bool (b,), or None where all have the modality.
        count: b.
    """

    values: Tensor
    owner: Tensor | None
    present: Tensor | None
    count: int

    def to(self, device: torch.device) -> Rows:
        return Rows(**send_to_device(vars(self), device))

    def part(self, start: int, stop: int) -> Rows:
        """Samples start to stop."""
        present = None if self.present is None else self.present[start:stop]
        count = min(stop, self.count) - start
        if self.owner is None:
            return Rows(self.values[start:stop], None, present, count)
        mine = (self.owner >= start) & (self.owner < stop)
        return Rows(self.values[mine], self.owner[mine] - start, present, count)


@dataclass
class StreamBatch:
    """A process's share of a stream's batch: rows of what is trained, and the anchor's points (b, d) where it is frozen."""

    rows: dict[str, Rows]
    anchor: Tensor | None

    def __len__(self) -> int:
        return next(iter(self.rows.values())).count

    def to(self, device: torch.device) -> StreamBatch:
        return StreamBatch(**send_to_device(vars(self), device))
