"""CLIP's image side (Radford et al. 2021; LAION's ViT-H-14 and ViT-bigG-14, MIT): the space that unCLIP decoders draw from.

The embedding is the raw one, not normalised: Stable unCLIP and Kandinsky were trained on its scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .base import Encoder
from .clip_layouts import PREPROCESS, architecture, preprocessing, published_state
from .registry import stored_weights


class ClipImage(Encoder):
    """Raw image embeddings (B, dim) of pictures; dim is 1024 for ViT-H-14 and 1280 for ViT-bigG-14.

    Args:
        sizes: the architecture in the words of transformers' `CLIPVisionConfig`.
        preprocess: how pictures are prepared, see `clip_layouts.preprocessing`.
        origin: entries kept in the configuration that say where the weights came from.
    """

    def __init__(
        self,
        sizes: Mapping[str, Any],
        preprocess: Mapping[str, Any] = PREPROCESS,
        origin: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        self.net = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes))
        self.side = int(sizes["image_size"])
        self.preprocess = dict(preprocess)
        self.dim = int(sizes["projection_dim"])
        self.config = {**(origin or {}), "encoder": "clip_image", "architecture": dict(sizes), "preprocess": self.preprocess}

    def compute_buffers(self) -> None:
        """Positions, which transformers does not save."""
        embeddings = self.net.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions).unsqueeze(0)

    def prepare(self, pictures: list[Image.Image]) -> Tensor:
        """Pictures of any size and shape -> (B, 3, side, side), normalised with CLIP's mean and spread.

        The shortest side is resized to `side`, antialiased, and the centre cut out, as open_clip does it. transformers
        differs from it by one pixel of the cut where the margin is 3 above a multiple of 4.
        """
        return torch.stack([to_pixels(p, self.side, self.preprocess) for p in pictures])

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, dim), not normalised."""
        return self.net(pixel_values=pixels).image_embeds


def to_pixels(picture: Image.Image, side: int, preprocess: Mapping[str, Any]) -> Tensor:
    """One picture -> (3, side, side), normalised."""
    picture = picture.convert("RGB")
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    width, height = picture.size
    size = (side, side)
    if preprocess["resize_mode"] == "shortest":  # what is left over of the long side is cut off, not rounded
        size = (side, side * height // width) if width <= height else (side * width // height, side)
    if picture.size != size:
        picture = picture.resize(size, filters[preprocess["interpolation"]])
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    picture = picture.crop((left, top, left + side, top + side))
    raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = raw.view(side, side, 3).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(preprocess["mean"]), torch.tensor(preprocess["std"])
    return (pixels - mean[:, None, None]) / std[:, None, None]


def build(folder: Path, config: dict[str, Any]) -> ClipImage:
    return ClipImage(architecture(config, "vision"), preprocessing(config), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """A saved encoder's weights, otherwise the source's, of its vision side only."""
    if (folder / "model.safetensors").is_file():
        return stored_weights(folder, config)
    return {f"net.{name}": value for name, value in published_state(config, "vision").items()}
