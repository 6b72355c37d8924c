"""Networks that turn pictures into features to compare sets by. Only Inception's distance is called FID."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from unialign_gen.errors import InputError

from . import inception
from .inception import RESIZES, bicubic, tf1

if TYPE_CHECKING:
    from unialign_gen.encoders.base import Encoder

NAMES = ("inception", "judge", "clip", "dinov2")


class Extractor(nn.Module):
    """A frozen network with its preparation: pictures (B, 3, H, W), bytes, -> features (B, d), fp32.

    It moves with the metric that holds it, and its weights are not part of that metric's state.

    Attributes:
        name: network and a digest of its weights, such as `inception-1a2b3c4d`; features of different names are not compared.
        resize: what happens to a picture's size before it.
        prepare: one RGB picture -> input of the network (C, H, W).
        net: inputs (B, C, H, W) -> features (B, d).
        distance: what the Frechet distance in these features is called.
    """

    net: Callable[[Tensor], Tensor]

    def __init__(
        self, name: str, resize: str, prepare: Callable[[Image.Image], Tensor], net: Callable[[Tensor], Tensor], distance: str
    ):
        super().__init__()
        self.name, self.resize, self.prepare, self.distance = name, resize, prepare, distance
        object.__setattr__(self, "net", net)  # not a child: its weights stay out of `state_dict`

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Extractor:
        if isinstance(self.net, nn.Module):
            self.net._apply(fn)
        return super()._apply(fn)

    def extra_repr(self) -> str:
        return f"{self.name}, {self.resize}"

    @torch.inference_mode()
    def features(self, inputs: Sequence[Tensor]) -> Tensor:
        """Features (B, d), fp32, on the processor, of prepared pictures (C, H, W) each."""
        like = next(iter(getattr(self.net, "parameters", list)()), torch.zeros(0))
        pixels = torch.stack(list(inputs)).to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
        return self.net(pixels).float()

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
            raise InputError(
                f"pictures are bytes (B, 3, H, W), got {pictures.dtype} {tuple(pictures.shape)}: "
                "give (255 * x).round().to(torch.uint8)"
            )
        frames = [Image.fromarray(p.permute(1, 2, 0).cpu().numpy()) for p in pictures]
        return self.features([self.prepare(f) for f in frames]).clone()  # no inference tensor leaves


def load(name: str, weights: Path | None = None, resize: str = "bicubic", device: str = "cpu") -> Extractor:
    """An extractor by name.

    Args:
        name: `inception` (FID's), `judge` (EfficientNet-Lite2, comes with the package), `clip` or `dinov2`, or any picture
            encoder by the name it has in a configuration, such as `open_clip:ViT-B-32/openai` or `timm:NAME`.
        weights: Inception's file, by default the one in torch's cache; or the folder of an encoder, for `clip` and `dinov2`
            there is no default.
        resize: before Inception, `bicubic` (Pillow's, antialiased) or `tf1`; the others bring their own.

    Raises:
        InputError: an unknown name or resize, or weights that cannot be had.
    """
    if name not in NAMES and ":" not in name:
        raise InputError(f"unknown extractor {name!r}: choose from {', '.join(NAMES)}, or name an encoder as LIBRARY:NAME")
    if resize not in RESIZES:
        raise InputError(f"unknown resize {resize!r}: choose from {', '.join(RESIZES)}")
    if resize != "bicubic" and name != "inception":
        raise InputError(f"{name} has a resize of its own: leave out --resize, which is for inception")
    if name == "inception":
        net = inception.network(weights)
        prepare = partial(tf1 if resize == "tf1" else bicubic, side=inception.SIDE)
        return fast(Extractor(f"inception-{digest_of(net.state_dict())}", RESIZES[resize], prepare, net, "FID"), device)
    if name == "judge":
        from .judge import Judge

        kept = Judge.from_folder().encoder
        return fast(of_encoder(kept, "efficientnet-lite2", "white square, pillow bicubic 224", "EfficientNet-Lite2"), device)
    if name in ("clip", "dinov2") and (weights is None or not weights.is_dir()):
        where = "has no weights of its own" if weights is None else f"is not in {weights}, which is no folder"
        raise InputError(f"{name} {where}: give a folder with them (--weights {name}=FOLDER), as transformers saves it")
    if name == "dinov2" and weights is not None:
        return dinov2(weights, device)
    from unialign_gen.encoders import load_encoder
    from unialign_gen.encoders.registry import NOWHERE

    config = {"encoder": "clip_image" if name == "clip" else name} | ({"source": str(weights)} if weights else {})
    encoder = load_encoder(NOWHERE, config=config)
    side = getattr(encoder, "side", None)
    resized = (
        f"shortest side and centre cut, pillow, {side}" if name == "clip" else f"the encoder's own{f', {side}' if side else ''}"
    )
    made = of_encoder(encoder, name.replace("/", "-"), resized, "CLIP" if name == "clip" else name)
    made.net.to(device)  # type: ignore[attr-defined]
    return made


def fast(extractor: Extractor, device: str) -> Extractor:
    """On its device, channels last: convolutions are a third faster so, and features move by 1e-7."""
    extractor.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    return extractor


def of_encoder(encoder: Encoder, name: str, resize: str, label: str) -> Extractor:
    """A picture encoder of this package as an extractor."""
    prepare = partial(prepare_one, encoder)
    return Extractor(f"{name}-{digest_of(encoder.state_dict())}", resize, prepare, encoder, f"Frechet distance ({label})")


def prepare_one(encoder: Encoder, picture: Image.Image) -> Tensor:
    return encoder.prepare([picture])[0]


def digest_of(state: dict[str, Tensor]) -> str:
    """Eight hexadecimal digits of a network's weights, the same however they are stored in memory."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        total.update(name.encode())
        total.update(value.to(torch.float64 if value.is_floating_point() else torch.int64).contiguous().numpy().tobytes())
    return total.hexdigest()[:8]


class ClassToken(nn.Module):
    """The class token behind the last norm of a transformers vision model."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixel_values=pixels).last_hidden_state[:, 0]


def dinov2(folder: Path, device: str = "cpu") -> Extractor:
    """DINOv2's class token at a side of 224 pixels (the usual one), or the configuration's if that is smaller."""
    from transformers import Dinov2Model

    try:
        net: Any = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no DINOv2 in {folder}: {str(error).splitlines()[0]}") from error
    side = min(224, int(json.loads((folder / "config.json").read_text()).get("image_size", 224)))
    name = f"dinov2-{digest_of(net.state_dict())}"
    frozen = ClassToken(net.eval().requires_grad_(False).to(device))
    return Extractor(name, f"pillow bicubic {side}", partial(imagenet, side=side), frozen, "Frechet distance (DINOv2)")


def imagenet(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side) with ImageNet's mean and deviation."""
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (bicubic(picture, side) / 255 - mean) / std
