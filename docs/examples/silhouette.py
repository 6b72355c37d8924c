"""A modality of one's own, in one file: the outline of a thing, given as a small black and white picture.

An encoder turns files into features. This one has no weights: its features are 16 x 16 of the darkness and of how it changes.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unialign_gen.encoders.base import Encoder

SIDE = 16


class Silhouette(Encoder):
    """Pictures of outlines, dark on light, to features (B, 768)."""

    dim = 3 * SIDE * SIDE

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config

    def prepare(self, inputs: list[Path]) -> Tensor:
        """Files -> (B, 1, 64, 64) in [0, 1], 1 where it is dark."""
        pictures = [Image.open(path).convert("L").resize((64, 64)) for path in inputs]
        raw = [torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(1, 64, 64) for p in pictures]
        return 1 - torch.stack(raw).float() / 255

    def forward(self, dark: Tensor) -> Tensor:
        """(B, 1, 64, 64) -> (B, 768)."""
        steps = [dark, F.pad(dark.diff(dim=2), (0, 0, 0, 1)), F.pad(dark.diff(dim=3), (0, 1))]
        return F.adaptive_avg_pool2d(torch.cat(steps, 1), SIDE).flatten(1)


def build(folder: Path, config: dict[str, Any]) -> Silhouette:
    return Silhouette(config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """None to load."""
    return {}
