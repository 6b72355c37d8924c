"""Several sound encoders as one: their features side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .base import Encoder


class Concatenated(Encoder):
    """The features of each part, one after the other, (B, sum of their widths).

    Args:
        parts: sound encoders by name, each with a `rate`, a number of `bands`, and batches (B, frames, bands) in which NaN
            frames follow the shorter sounds: `yamnet` and `aisfx`. Their weights lie in one file.

    Raises:
        InputError: no parts, or one that does not say its rate and bands.
    """

    def __init__(self, parts: Mapping[str, Encoder]):
        super().__init__()
        other = [name for name, part in parts.items() if not hasattr(part, "rate") or not hasattr(part, "bands")]
        if not parts or other:
            raise InputError(f"concatenated: {', '.join(other) or 'nothing'} cannot stand beside other sound encoders")
        self.parts = nn.ModuleDict(dict(parts))
        self.rates = [int(getattr(part, "rate")) for part in parts.values()]  # noqa: B009  a sound encoder's own attribute
        self.bands = [int(getattr(part, "bands")) for part in parts.values()]  # noqa: B009
        self.rate = max(self.rates)
        self.dim = sum(part.dim for part in parts.values())
        self.config = {"encoder": "concatenated", "parts": {name: part.config for name, part in parts.items()}}

    def prepare(self, sounds: list[Tensor]) -> Tensor:
        """Mono sounds (samples,) at `rate` -> (B, frames of the longest part, all bands), NaN where a part has no frame."""
        prepared = []
        for part, rate in zip(self.parts.values(), self.rates, strict=True):
            assert isinstance(part, Encoder)
            prepared.append(part.prepare([resample(s, self.rate, rate) for s in sounds]))
        longest = max(p.shape[1] for p in prepared)
        return torch.cat([F.pad(p, (0, 0, 0, longest - p.shape[1]), value=float("nan")) for p in prepared], dim=2)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """(B, frames, bands) -> (B, dim)."""
        shares = spectrograms.split(self.bands, dim=2)
        return torch.cat([part(share) for part, share in zip(self.parts.values(), shares, strict=True)], dim=1)


def resample(sound: Tensor, rate: int, lower: int) -> Tensor:
    """A sound (n,) at `rate` Hz at `lower` Hz: its spectrum without what the lower rate cannot hold."""
    if rate == lower:
        return sound
    length = max(1, round(len(sound) * lower / rate))
    spectrum = torch.fft.rfft(sound)[: length // 2 + 1]
    return torch.fft.irfft(spectrum, length) * (length / len(sound))


def build(folder: Path, config: dict[str, Any]) -> Concatenated:
    from .registry import module_of

    parts = config["parts"]
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise InputError("concatenated: parts must be encoders' configurations by name")
    return Concatenated({name: module_of(part["encoder"]).build(folder, part) for name, part in parts.items()})
