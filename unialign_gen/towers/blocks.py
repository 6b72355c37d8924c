"""Sounds longer than a network's input: cut into overlapping blocks, whose features are averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def block_starts(frames: int, length: int) -> list[int]:
    """First frames of the blocks of `length` frames: every half block, the last one flush with the end."""
    last = max(0, frames - length)
    return [*range(0, last, length // 2), last]


def padded(spectrograms: list[Tensor]) -> Tensor:
    """Spectrograms (frames, bands) as one batch (B, frames, bands), NaN frames after the shorter ones."""
    longest = max(len(s) for s in spectrograms)
    return torch.stack([F.pad(s, (0, 0, 0, longest - len(s)), value=float("nan")) for s in spectrograms])


def mean_over_blocks(spectrograms: Tensor, length: int, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """A batch that `padded` made -> (B, dim): the mean over each sound's blocks of what `embed` makes of them.

    Args:
        spectrograms: (B, frames, bands), each at least `length` frames long.
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
