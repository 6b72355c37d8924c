"""YAMNet (Google; weights Apache-2.0): a MobileNet v1 (Howard et al. 2017) that learned AudioSet's 521 sound events."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kaldi
from .base import Encoder
from .blocks import mean_over_blocks
from .published import shipped
from .quantised import stored_weights, unpack

RATE = 16000
WINDOW, HOP, FFT, MELS, FRAMES = 400, 160, 512, 64, 96
LOW, HIGH, OFFSET = 125.0, 7500.0, 1e-3
SHORTEST = WINDOW + (FRAMES - 1) * HOP  # samples of a block
LEVEL = 0.1  # root mean square that sounds are brought to
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
MIDDLE = 5  # the separable convolution that the middle features come from


@cache
def mel_filters() -> Tensor:
    """Triangles of height 1, evenly spaced in mel from 125 to 7,500 Hz, computed in fp64 as by TensorFlow: (257, 64)."""
    return kaldi.mel_filters(RATE, FFT, MELS, LOW, HIGH, torch.float64).float()


class Separable(nn.Module):
    """A convolution of each channel by itself, then one of 1 x 1 over all, their batch norms folded in."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(before, before, 3, stride, groups=before)
        self.pointwise = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.depthwise(same(x, self.stride)))
        return F.relu6(self.pointwise(x))


def same(x: Tensor, stride: int) -> Tensor:
    """Zeros around x (..., even, even) for a 3 x 3 kernel where TensorFlow's padding "SAME" has them."""
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


class YAMNet(Encoder):
    """Features of sounds: of blocks of 0.975 s, the last layer's mean; mean over the blocks.

    Args:
        middle: put the sixth separable convolution's 512 channels, mean over mel and maximum over a block's time, behind the
            last one's 1,024. What tells words and instruments apart is lost in the last.

    Output width: 1,024, with the middle layer 1,536.
    """

    rate = RATE
    bands = MELS

    def __init__(self, middle: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, 2)
        widths = (32, *CHANNELS)
        self.layers = nn.ModuleList(
            Separable(before, after, stride) for before, after, stride in zip(widths[:-1], CHANNELS, STRIDES, strict=True)
        )
        self.middle = middle
        self.dim = CHANNELS[-1] + (CHANNELS[MIDDLE] if middle else 0)
        self.config = {"encoder": "yamnet", "middle": middle}

    def prepare(self, sounds: list[Tensor]) -> Tensor:
        """Mono sounds (samples,) at 16 kHz -> (B, frames, 64), padded with NaN frames to the longest.

        Brought to one loudness; a sound shorter than a block is padded with silence. Silence stays silence.
        """
        return self.collate([self.log_mel(s).unsqueeze(0) for s in sounds])

    def log_mel(self, sound: Tensor) -> Tensor:
        """ln(mel + 0.001) of magnitudes, windows of 25 ms every 10 ms: (samples,) -> (frames, 64)."""
        sound = sound * (LEVEL / sound.square().mean().sqrt().clamp(min=1e-5))
        sound = F.pad(sound, (0, max(0, SHORTEST - len(sound))))
        magnitude = torch.fft.rfft(sound.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW), FFT).abs()
        return torch.log(magnitude @ mel_filters() + OFFSET)

    def forward(self, log_mels: Tensor) -> Tensor:
        """(B, frames, 64) -> (B, dim)."""
        return mean_over_blocks(log_mels, FRAMES, self.embed)

    def embed(self, blocks: Tensor) -> Tensor:
        """(N, 96, 64) -> (N, dim)."""
        x = F.relu6(self.first(same(blocks.unsqueeze(1), 2)))
        middle = []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if self.middle and number == MIDDLE:
                middle.append(x.mean(3).amax(2))
        return torch.cat([x.mean((2, 3)), *middle], dim=1)


def build(folder: Path, config: dict[str, Any]) -> YAMNet:
    return YAMNet(config.get("middle", False))


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """Those that come with the package, inside the starter's sound encoder."""
    whole = stored_weights(shipped("starter", "aligner", "audio"), config)
    own = "parts.yamnet."
    return {name.removeprefix(own): value for name, value in whole.items() if name.startswith(own)}


def events() -> tuple[nn.Linear, list[str]]:
    """YAMNet's own last layer, from its 1,024 features to the logits of AudioSet's 521 events, and their names.

    >>> layer, names = events()
    >>> layer.weight.shape, names[:2]
    (torch.Size([521, 1024]), ['speech', 'child speech, kid speaking'])
    """
    from safetensors.torch import load_file

    names = shipped("yamnet", "events.txt").read_text("utf-8").splitlines()
    state = unpack(load_file(shipped("yamnet", "events.safetensors")))
    layer = nn.Linear(state["weight"].shape[1], len(names))
    layer.load_state_dict(state)
    return layer.eval().requires_grad_(False), names
