"""How pictures become the FID network's input: the resize is part of the number (Parmar et al. 2022, arXiv 2104.11222)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Resize = Literal["bicubic", "tf1"]
RESIZES: tuple[Resize, ...] = ("bicubic", "tf1")


def bicubic(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side) in [0, 255], fp32: Pillow's antialiased bicubic on each channel in floating point, never rounded."""
    if picture.size == (side, side):
        return channels(picture).float()
    planes = [plane.convert("F").resize((side, side), Image.Resampling.BICUBIC) for plane in picture.convert("RGB").split()]
    return torch.from_numpy(np.stack([np.asarray(p) for p in planes])).clamp(0, 255)


def channels(picture: Image.Image) -> Tensor:
    """(3, H, W), bytes."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def tf1(pixels: Tensor, side: int) -> Tensor:
    """(..., H, W) -> (..., side, side), fp32, as TensorFlow 1 did without align_corners: linear between the two pixels at
    i * H / side rounded down and the next one, not antialiased.
    """
    x = pixels.float()
    for axis in (-1, -2):
        low, high, share = neighbours(x.shape[axis], side, x.device)
        share = share if axis == -1 else share[:, None]
        first = x.index_select(axis, low)
        x = first + (x.index_select(axis, high) - first) * share
    return x


def neighbours(size: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `side` outputs: the pixel before, the one behind, and how far towards it."""
    at = torch.arange(side, dtype=torch.float32, device=device) * torch.tensor(size / side, dtype=torch.float32, device=device)
    low = at.long()
    return low, (low + 1).clamp(max=size - 1), at - low.float()
