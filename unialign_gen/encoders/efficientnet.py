"""EfficientNet-Lite (Tan & Le 2019; ImageNet weights, Apache-2.0) through timm: pooled features plus a coarse early grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .base import Encoder

SIDE = 224


class EfficientNetLite(Encoder):
    """Features of pictures: what is in them (pooled last layer) and, if asked, how they look (an early layer's 4 x 4 grid).

    Args:
        variant: `lite0`, `lite1` or `lite2`.
        grid: append the 24-channel stride-4 features averaged over a 4 x 4 grid. The pooled features of an ImageNet
            classifier know the class and little of colour and layout, which a decoder has to draw.

    Output width: 1280, with the grid 1280 + 384.
    """

    def __init__(self, variant: str = "lite0", grid: bool = True):
        super().__init__()
        import timm

        self.net = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False, num_classes=0)
        self.grid = grid
        self.config = {"encoder": "efficientnet", "variant": variant, "grid": grid}
        self.dim = 1280 + (384 if grid else 0)

    def prepare(self, pictures: list[Image.Image]) -> Tensor:
        """RGB pictures of any size and shape -> (B, 3, 224, 224) in [-1, 1]; what is not square is padded with white."""
        return torch.stack([to_square(p) for p in pictures])

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 224, 224) in [-1, 1] -> (B, dim)."""
        x = self.net.bn1(self.net.conv_stem(pixels))
        early = None
        for index, block in enumerate(self.net.blocks):
            x = block(x)
            if index == 1:
                early = x
        x = self.net.global_pool(self.net.bn2(self.net.conv_head(x)))
        if self.grid and early is not None:
            x = torch.cat([x, F.adaptive_avg_pool2d(early, 4).flatten(1)], dim=1)
        return x


def to_square(picture: Image.Image) -> Tensor:
    """One picture -> (3, 224, 224) in [-1, 1]."""
    picture = picture.convert("RGB")
    side = max(picture.size)
    if picture.size != (side, side):
        page = Image.new("RGB", (side, side), "white")
        page.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = page
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return raw.view(SIDE, SIDE, 3).permute(2, 0, 1).float() / 127.5 - 1


def build(folder: Path, config: dict[str, Any]) -> EfficientNetLite:
    return EfficientNetLite(config["variant"], config["grid"])
