"""The FID network: Inception v3 of 2015-12-05 as TensorFlow ran it (Heusel et al. 2017), by torch-fidelity."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unialign_gen.encoders.published import first_line, read_state
from unialign_gen.errors import InputError

SIDE = 299
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SIBLINGS = ("pt_inception-2015-12-05-6726825d.pth",)  # the same weights as pytorch-fid publishes them
RESIZES = {"bicubic": "pillow bicubic 299", "tf1": "tf1 bilinear 299"}  # the resize is part of the number (arXiv 2104.11222)


class Standardise(nn.Module):
    """Pixels in [0, 255] -> [-1, 1], as the published graph does."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 128) / 128


def network(path: Path | None = None) -> nn.Module:
    """Pixels (B, 3, 299, 299) in [0, 255], fp32 -> pooled features (B, 2048), the ones FID is defined on; frozen.

    Args:
        path: the weight file; by default the one in torch's cache of downloads, which is filled now if it is not there.

    Raises:
        InputError: the weights are neither on this disk nor can be had now, or the file is not theirs.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = path or cached_weights()
    checked = io.BytesIO()  # torch-fidelity unpickles what it is given: only tensors that were read safely reach it
    torch.save(read_state(path), checked)
    checked.seek(0)
    try:
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=checked)
    except RuntimeError as error:
        raise InputError(f"{path} holds no Inception of 2015-12-05: give the published {FILE}") from error
    *body, _ = net.children()  # the last is the classifier; the module's own forward would round and resize the pixels
    return nn.Sequential(Standardise(), *body, nn.Flatten()).eval().requires_grad_(False)


def cached_weights() -> Path:
    """Where the published weights are on this disk; downloaded where `torch.hub` keeps its files if they are not."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in (FILE, *SIBLINGS):
        if (folder / name).is_file():
            return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.{os.getpid()}"
    try:
        torch.hub.download_url_to_file(URL, str(part), hash_prefix="6726825d", progress=False)
        part.replace(folder / FILE)
    except Exception as error:  # whatever urllib, ssl and the file system raise
        part.unlink(missing_ok=True)
        raise InputError(
            f"FID needs the published Inception weights and they cannot be had now ({first_line(error)}): "
            f"give {FILE} (--weights inception=FILE), or another --extractor (judge, clip or dinov2), "
            "whose distance is then not called FID"
        ) from error
    return folder / FILE


def channels(picture: Image.Image) -> Tensor:
    """(3, H, W), bytes."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def bicubic(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side) in [0, 255], fp32: Pillow's antialiased bicubic on each channel in floating point, never rounded."""
    if picture.size == (side, side):
        return channels(picture).float()
    planes = [plane.convert("F").resize((side, side), Image.Resampling.BICUBIC) for plane in picture.convert("RGB").split()]
    return torch.from_numpy(np.stack([np.asarray(p) for p in planes])).clamp(0, 255)


def tf1(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side) in [0, 255], fp32, as TensorFlow 1 resized without align_corners: bilinear, not antialiased."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    return interpolate_bilinear_2d_like_tensorflow1x(channels(picture)[None].float(), (side, side), align_corners=False)[0]
