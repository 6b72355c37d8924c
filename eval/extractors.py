"""Networks that turn pictures into features to compare sets by. Only Inception's distance is called FID."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unialign_gen.errors import InputError

from . import inception, resize
from .resize import RESIZES

NAMES = ("inception", "judge", "clip", "dinov2")


@dataclass(frozen=True)
class Extractor:
    """A network with its preparation.

    Attributes:
        name: network and a digest of its weights, such as `inception-1a2b3c4d`; features of different names are not compared.
        resize: what happens to a picture's size before it.
        prepare: one RGB picture -> input of the network (C, H, W).
        net: inputs (B, C, H, W) -> features (B, d).
        distance: what the Frechet distance in these features is called.
    """

    name: str
    resize: str
    prepare: Callable[[Image.Image], Tensor]
    net: Callable[[Tensor], Tensor]
    distance: str


def load(name: str, weights: Path | None = None, resize_by: str = "bicubic", device: str = "cpu") -> Extractor:
    """An extractor by name.

    Args:
        name: `inception` (FID's), `judge` (EfficientNet-Lite2, comes with the package), or `clip` or `dinov2`.
        weights: Inception's file, by default the one in torch's cache; or the folder of `clip` or `dinov2`, which have no
            default.
        resize_by: before Inception, `bicubic` (Pillow's, antialiased) or `tf1`; the others bring their own.

    Raises:
        InputError: an unknown name or resize, or weights that cannot be had.
    """
    if name not in NAMES:
        raise InputError(f"unknown extractor {name!r}: choose from {', '.join(NAMES)}")
    if resize_by not in RESIZES:
        raise InputError(f"unknown resize {resize_by!r}: choose from {', '.join(RESIZES)}")
    if resize_by != "bicubic" and name != "inception":
        raise InputError(f"{name} has a resize of its own: leave out --resize, which is for inception")
    if name == "inception":
        return inception_extractor(inception.load(weights), resize_by, device)
    if name == "judge":
        return judge_extractor(device)
    return local_extractor(name, weights, device)


def digest_of(state: dict[str, Tensor]) -> str:
    """Eight hexadecimal digits of a network's weights, the same however they are stored in memory."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        total.update(name.encode())
        total.update(value.to(torch.float64 if value.is_floating_point() else torch.int64).contiguous().numpy().tobytes())
    return total.hexdigest()[:8]


def inception_extractor(net: inception.Inception, resize_by: str, device: str = "cpu") -> Extractor:
    name = f"inception-{digest_of(net.state_dict())}"
    # convolutions are a third faster with channels last; features move by 1e-7
    moved = net.to(device).to(memory_format=torch.channels_last)
    if resize_by == "tf1":
        return Extractor(name, "tf1 bilinear 299", lambda p: resize.tf1(resize.channels(p), inception.SIDE), moved, "FID")
    return Extractor(name, "pillow bicubic 299", lambda p: resize.bicubic(p, inception.SIDE), moved, "FID")


def judge_extractor(device: str = "cpu") -> Extractor:
    from .judge import Judge

    encoder = Judge.from_folder().encoder
    name = f"efficientnet-lite2-{digest_of(encoder.state_dict())}"
    moved = encoder.to(device).to(memory_format=torch.channels_last)
    return Extractor(
        name,
        "white square, pillow bicubic 224",
        lambda p: encoder.prepare([p])[0],
        moved,
        "Frechet distance (EfficientNet-Lite2)",
    )


def local_extractor(name: str, folder: Path | None, device: str = "cpu") -> Extractor:
    """`clip` (projected image embeddings) or `dinov2` (class token) from a folder of transformers' layout."""
    if folder is None:
        raise InputError(
            f"{name} has no weights of its own: give a folder with them (--weights {name}=FOLDER), as transformers saves it"
        )
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give the folder of a {name} model, as transformers saves it")
    from unialign_gen.encoders import load_encoder
    from unialign_gen.encoders.registry import NOWHERE

    if name == "clip":
        encoder = load_encoder(NOWHERE, config={"encoder": "clip_image", "source": str(folder)})
        moved = encoder.to(device)
        return Extractor(
            f"clip-{digest_of(encoder.state_dict())}",
            f"shortest side and centre cut, pillow, {getattr(encoder, 'side')}",  # noqa: B009  an encoder's own attribute
            lambda p: encoder.prepare([p])[0],
            moved,
            "Frechet distance (CLIP)",
        )
    net, prepare, side = dinov2(folder)
    named = f"dinov2-{digest_of(net.state_dict())}"
    return Extractor(named, f"pillow bicubic {side}", prepare, ClassToken(net.to(device)), "Frechet distance (DINOv2)")


class ClassToken(nn.Module):
    """The class token behind the last norm of a transformers vision model."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixel_values=pixels).last_hidden_state[:, 0]


def dinov2(folder: Path) -> tuple[nn.Module, Callable[[Image.Image], Tensor], int]:
    """The network, its preparation and its side in pixels: 224 (the usual one), or the configuration's if that is smaller."""
    from transformers import Dinov2Model

    try:
        net: Any = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no DINOv2 in {folder}: {str(error).splitlines()[0]}") from error
    side = min(224, int(json.loads((folder / "config.json").read_text()).get("image_size", 224)))
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def prepare(picture: Image.Image) -> Tensor:
        return (resize.bicubic(picture, side) / 255 - mean) / std

    return net.eval().requires_grad_(False), prepare, side
