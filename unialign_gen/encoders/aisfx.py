"""aiSFX, X-Sequential-CE (Ma & Lerch 2022; weights CC-BY-4.0): a VGG-like CNN over mel spectrograms of sound effects."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kaldi
from .base import Encoder
from .blocks import mean_over_blocks

RATE = 44100
WINDOW, HOP, MELS, FRAMES = 2048, 1024, 96, 100
LOG_MAX = 9.457798957824707


@cache
def mel_filters() -> Tensor:
    """Triangles on the mel scale, straight in Hz, 0 to 22,050 Hz, each with weights that sum to 1: (1025, 96)."""
    weights = kaldi.mel_filters(RATE, WINDOW, MELS, 0.0, dtype=torch.float64, straight_in_mel=False)
    return (weights / weights.sum(0).clamp(min=1e-8)).float()


class Block(nn.Module):
    def __init__(self, before: int, after: int, pool: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.max_pool2d(x, self.pool) if self.pool > 1 else x


class AiSFX(Encoder):
    """Features of sounds: mean over mel, max over time of each 2.3 s block, mean over the blocks.

    Args:
        middle: put the third convolution block's 256 channels, pooled the same way, before the last one's 512. The last
            layer of a sound effects classifier knows the kind of effect and little of pitch and timbre.
        top: in Hz; what lies above is cut off. Many recordings end at 8 kHz or so, and how far one reaches
            tells who made it, not what it is of. None leaves a sound as it is, as the network was trained.

    Output width: 512, with the middle layer 768.
    """

    rate = RATE
    bands = MELS

    def __init__(self, middle: bool = False, top: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(1, 64, 2), Block(64, 128, 2), Block(128, 256, 2), Block(256, 512, 1))
        self.middle, self.top = middle, top
        self.dim = 512 + (256 if middle else 0)
        self.config = {"encoder": "aisfx", "middle": middle, "top": top}

    def prepare(self, sounds: list[Tensor]) -> Tensor:
        """Mono sounds (samples,) at 44.1 kHz -> (B, frames, 96), padded with NaN frames to the longest.

        Cut off at `top`, then peak-normalised; a sound shorter than a block is padded with silence; more than a block is
        covered by blocks at a hop of half a block. Silence stays silence.
        """
        return self.collate([self.mel(s).unsqueeze(0) for s in sounds])

    def mel(self, sound: Tensor) -> Tensor:
        if self.top is not None:
            sound = low_pass(sound, self.top)
        sound = sound / sound.abs().max().clamp(min=1e-5)
        sound = F.pad(sound, (0, max(0, FRAMES * HOP - len(sound))))
        power = torch.stft(
            sound, WINDOW, HOP, window=torch.hann_window(WINDOW), center=True, pad_mode="constant", return_complex=True
        )
        power = power.abs().square().T
        return torch.log10(1e4 * (power @ mel_filters()) + 1) / LOG_MAX

    def forward(self, mels: Tensor) -> Tensor:
        """(B, frames, 96) -> (B, dim)."""
        return mean_over_blocks(mels, FRAMES, self.embed)

    def embed(self, blocks: Tensor) -> Tensor:
        """(N, 100, 96) -> (N, dim)."""
        third = self.blocks[:3](blocks.unsqueeze(1))
        last = self.blocks[3](third)
        kept = [third, last] if self.middle else [last]
        return torch.cat([x.mean(3).amax(2) for x in kept], dim=1)


def low_pass(sound: Tensor, top: int) -> Tensor:
    """A sound (n,) at 44.1 kHz without what lies above `top` Hz."""
    spectrum = torch.fft.rfft(sound)
    spectrum[math.ceil(len(sound) * top / RATE) :] = 0
    return torch.fft.irfft(spectrum, len(sound))


def build(folder: Path, config: dict[str, Any]) -> AiSFX:
    return AiSFX(config.get("middle", False), config.get("top"))
