"""The upscaler: Real-ESRGAN's compact network (Wang et al. 2021) makes drawings crisp at four or eight times their size."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from unialign_gen.errors import InputError


class Upscaler(ModelMixin, ConfigMixin):
    """Convolutions at the small size, then a pixel shuffle; what they add is the difference to the enlarged picture.

    Args:
        scale: how many times wider and higher the result is.
        width: channels of the convolutions.
        depth: convolutions between the first and the last.
        strength: 0 to 1, how far results go from bicubic enlargement to what the network makes.

    Example:
        >>> import torch
        >>> upscaler = Upscaler(scale=8, width=16, depth=2)
        >>> upscaler(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 3, 512, 512])
    """

    @register_to_config
    def __init__(self, scale: int = 8, width: int = 64, depth: int = 16, strength: float = 1.0):
        super().__init__()
        sizes = [3, *[width] * (depth + 1)]
        self.body = nn.Sequential(
            *(layer for a, b in itertools.pairwise(sizes) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.PReLU(b))),
            nn.Conv2d(width, 3 * scale * scale, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, h, w) in [-1, 1] to (B, 3, scale * h, scale * w), not clipped.

        Raises:
            InputError: another shape.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(f"the upscaler takes pictures (B, 3, h, w), got {tuple(pixels.shape)}")
        scale = self.config["scale"]
        added = F.pixel_shuffle(self.body((pixels + 1) / 2), scale)  # (B, 3 s^2, h, w) -> (B, 3, s h, s w)
        made = F.interpolate(pixels, scale_factor=scale, mode="nearest") + 2 * added
        if self.config["strength"] == 1:
            return made
        smooth = F.interpolate(pixels, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.lerp(smooth, made, self.config["strength"])
