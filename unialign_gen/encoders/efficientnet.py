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

        net = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False, num_classes=0)
        self.net = net.to(memory_format=torch.channels_last)  # on a processor more than twice as fast
        self.grid = grid
        self.config = {"encoder": "efficientnet", "variant": variant, "grid": grid}
        self.dim = 1280 + (384 if grid else 0)

    def prepare(self, pictures: list[Image.Image]) -> Tensor:
        """RGB pictures of any size and shape -> (B, 3, 224, 224) in [-1, 1]; what is not square is padded with white."""
        return torch.stack([to_square(p) for p in pictures])

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 224, 224) in [-1, 1] -> (B, dim)."""
        last, (early,) = self.net.forward_intermediates(pixels, indices=[1])  # stride 4, 24 channels
        x = self.net.forward_head(last)
        return torch.cat([x, F.adaptive_avg_pool2d(early, 4).flatten(1)], dim=1) if self.grid else x


def to_square(picture: Image.Image) -> Tensor:
    """One picture -> (3, 224, 224) in [-1, 1]."""
    from torchvision.transforms.functional import pil_to_tensor

    picture = picture.convert("RGB")
    side = max(picture.size)
    if picture.size != (side, side):
        page = Image.new("RGB", (side, side), "white")
        page.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        picture = page
    return pil_to_tensor(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).float() / 127.5 - 1


def build(folder: Path, config: dict[str, Any]) -> EfficientNetLite:
    return EfficientNetLite(config["variant"], config["grid"])
