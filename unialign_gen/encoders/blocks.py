"""Sounds longer than a network's input: cut into overlapping blocks, whose features are averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def block_starts(frames: int, length: int) -> list[int]:
    """First frames of the blocks of `length` frames: every half block, the last one flush with the end."""
    last = max(0, frames - length)
    return [*range(0, last, length // 2), last]


def mean_over_blocks(spectrograms: Tensor, length: int, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """Spectrograms, as `Encoder.collate` leaves them -> (B, dim): the mean over each sound's blocks of what `embed` makes.

    Args:
        spectrograms: (B, frames, bands), NaN frames after the shorter sounds, each at least `length` frames long.
        length: of a block, in frames.
        embed: (N, length, bands) -> (N, dim).
    """
    pieces, owner = [], []
    for row, spectrogram in enumerate(spectrograms):
        frames = int((~spectrogram[:, 0].isnan()).sum())
        for at in block_starts(frames, length):
            pieces.append(spectrogram[at : at + length])
            owner.append(row)
    x = torch.cat([embed(part) for part in torch.stack(pieces).split(32)])
    index = torch.tensor(owner, device=x.device)
    total = torch.zeros(len(spectrograms), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, index, x)
    return total / torch.bincount(index, minlength=len(spectrograms)).to(x.dtype).unsqueeze(1)
