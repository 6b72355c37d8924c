"""EVA-01-CLIP g/14's vision side over frames (Sun et al. 2023, MIT), as VAST, GRAM and PMRL (MIT) take it for video.

The same names serve the authors' own `EVA01_CLIP_g_14_psz14_s11B.pt`, open_clip's `EVA01-g-14` and timm's
`eva_giant_patch14_clip_224`, except for the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from .base import Encoder
from .published import read_state, source_weights

STEMS = ("open_clip_model", "model", "open_clip_pytorch_model", "pytorch_model", "EVA01_CLIP_g_14_psz14_s11B")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, of RGB in [0, 1]
RESIZES = ("crop", "squash")
GIANT: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 14,
    "embed_dim": 1408,
    "depth": 40,
    "num_heads": 16,
    "mlp_ratio": 6144 / 1408,
}


class EvaClip(Encoder):
    """Features (B, 1408) of videos: the class token of each frame behind the last norm, averaged over the frames.

    CLIP's own projection is left out: the contrastive heads of VAST, GRAM and PMRL stand in its place.

    Args:
        sizes: the architecture in the words of timm's `Eva`; `GIANT` is the published one.
        antialias: whether frames are smoothed before they are made smaller. The published code did not, with the
            versions it names; features of smoothed frames differ slightly from those its heads were trained on.
        resize: `crop` brings the shortest side to `side` and cuts the centre out, as published for MSR-VTT; `squash` brings
            both sides there, as published for DiDeMo, ActivityNet and VATEX.
        origin: entries kept in the configuration that say where the weights came from.

    Raises:
        InputError: an unknown resize.
    """

    def __init__(
        self,
        sizes: Mapping[str, Any] = GIANT,
        antialias: bool = False,
        resize: str = "crop",
        origin: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if resize not in RESIZES:
            raise InputError(f"unknown resize {resize!r}: choose from {', '.join(RESIZES)}")
        from timm.models.eva import Eva
        from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize  # open_clip brings it

        self.net = Eva(**sizes, num_classes=0, global_pool="token")
        side = int(sizes["img_size"])
        size = Resize((side, side) if resize == "squash" else side, InterpolationMode.BILINEAR, antialias=antialias)
        self.transform: Any = Compose([size, CenterCrop(side), Normalize(MEAN, STD)])
        self.resize = resize
        self.dim = int(sizes["embed_dim"])
        self.config = {**(origin or {}), "encoder": "eva_clip", "architecture": dict(sizes), "antialias": antialias}
        self.config["resize"] = resize

    def prepare(self, videos: list[Image.Image | Sequence[Image.Image]]) -> Tensor:
        """Videos, each its frames in order, as many in each -> (B, frames, 3, side, side); a picture is one frame.

        Bilinear, by `resize`, with CLIP's mean and spread.

        Raises:
            InputError: a video has no frames, or the videos have different numbers of them.
        """
        clips = [[v] if isinstance(v, Image.Image) else list(v) for v in videos]
        counts = sorted({len(c) for c in clips})
        if counts[:1] == [0] or len(counts) > 1:
            raise InputError(f"videos of a batch need as many frames each, at least one: these have {counts}")
        return torch.stack([torch.stack([self.to_pixels(frame) for frame in clip]) for clip in clips])

    def to_pixels(self, picture: Image.Image) -> Tensor:
        """One frame -> (3, side, side), normalised."""
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).double() / 255  # doubles, as published
        return self.transform(pixels).float()

    def frames(self, pixels: Tensor) -> Tensor:
        """(B, frames, 3, side, side) -> (B, frames, dim), a feature for each frame."""
        return self.net.forward_features(pixels.flatten(0, 1))[:, 0].unflatten(0, pixels.shape[:2])

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, frames, 3, side, side) -> (B, dim), not normalised."""
        return self.frames(pixels).mean(1)


def is_vision(name: str) -> bool:
    """Whether a published tensor of this name is one of the vision side's that the encoder uses."""
    name = name.removeprefix("visual.").removeprefix("trunk.")
    return name.startswith(("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm."))


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision side's weights under the encoder's names, from any of the three layouts."""
    return {f"net.{k.removeprefix('visual.').removeprefix('trunk.')}": v for k, v in state.items() if is_vision(k)}


def build(folder: Path, config: dict[str, Any]) -> EvaClip:
    return EvaClip(config.get("architecture", GIANT), config.get("antialias", False), config.get("resize", "crop"), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """Those of the vision side of the source."""
    return rename(read_state(source_weights(config, STEMS), is_vision))
