"""Networks that turn pictures into features to compare sets by. Only Inception's distance is called FID.

Inception v3 of 2015-12-05, as TensorFlow ran it (Heusel et al. 2017), is torch-fidelity's module with the published weights.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unialign_gen.encoders.published import read_state
from unialign_gen.errors import InputError, as_input_error

if TYPE_CHECKING:
    from unialign_gen.encoders.base import Encoder

NAMES = ("inception", "judge", "clip", "dinov2")
SIDE = 299
FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SIBLING = "pt_inception-2015-12-05-6726825d.pth"  # the same weights as pytorch-fid publishes them
RESIZES = {"bicubic": "pillow bicubic 299", "tf1": "tf1 bilinear 299"}  # the resize is part of the number (arXiv 2104.11222)


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

    @property
    def distances(self) -> tuple[str, str, str]:
        """What the Frechet, the kernel and the sliced distance are called: FID, KID and MIND are Inception's alone."""
        if self.distance == "FID":
            return "FID", "KID", "MIND"
        name = self.distance
        return name, name.replace("Frechet", "kernel"), name.replace("Frechet", "sliced Wasserstein")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Extractor:
        if isinstance(self.net, nn.Module):
            self.net._apply(fn)
        return super()._apply(fn)

    def extra_repr(self) -> str:
        return f"{self.name}, {self.resize}"

    @torch.inference_mode()
    def features(self, inputs: Sequence[Tensor]) -> Tensor:
        """Features (B, d), fp32, of prepared pictures (C, H, W) each."""
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
    if name in ("clip", "dinov2") and (weights is None or not weights.is_dir()):
        where = "has no weights of its own" if weights is None else f"is not in {weights}, which is no folder"
        raise InputError(f"{name} {where}: give a folder with them (--weights {name}=FOLDER), as transformers saves it")
    if name == "inception":
        net = network(weights)
        prepare = partial(tf1 if resize == "tf1" else bicubic, side=SIDE)
        made = Extractor(f"inception-{digest_of(net.state_dict())}", RESIZES[resize], prepare, net, "FID")
    elif name == "judge":
        from .judge import Judge

        shown = "white square, pillow bicubic 224"
        made = of_encoder(Judge.from_folder().encoder, "efficientnet-lite2", shown, "EfficientNet-Lite2")
    elif name == "dinov2" and weights is not None:
        made = dinov2(weights)
    else:
        from unialign_gen.encoders import load_encoder
        from unialign_gen.encoders.registry import NOWHERE

        config = {"encoder": "clip_image" if name == "clip" else name, "modality": "image"}
        config |= {"source": str(weights)} if weights else {}
        encoder = load_encoder(NOWHERE, config=config)
        own = "shortest side and centre cut, pillow" if name == "clip" else "the encoder's own"
        resized = ", ".join(str(s) for s in (own, getattr(encoder, "side", None)) if s)
        made = of_encoder(encoder, name.replace("/", "-"), resized, "CLIP" if name == "clip" else name)
    # channels last: convolutions are a third faster so, and features move by 1e-7
    made.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    return made


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


def network(path: Path | None = None) -> nn.Module:
    """Pixels (B, 3, 299, 299) in [0, 255], fp32 -> pooled features (B, 2048), the ones FID is defined on; frozen.

    Weights and errors as in `load`.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchvision.transforms import Normalize  # torch-fidelity brings it

    path = path or cached_weights()
    checked = io.BytesIO()  # torch-fidelity unpickles what it is given: only tensors that were read safely reach it
    torch.save(read_state(path), checked)
    checked.seek(0)
    with as_input_error(f"{path} holds no Inception of 2015-12-05: give the published {FILE}", RuntimeError):
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=checked)
    *body, _ = net.children()  # the last is the classifier; the module's own forward would round and resize the pixels
    return nn.Sequential(Normalize([128.0] * 3, [128.0] * 3), *body, nn.Flatten()).eval().requires_grad_(False)


def cached_weights() -> Path:
    """Where the published weights are on this disk; downloaded where `torch.hub` keeps its files if they are not."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in (FILE, SIBLING):
        if (folder / name).is_file():
            return folder / name
    folder.mkdir(parents=True, exist_ok=True)
    advice = (
        f"FID needs the published Inception weights and they cannot be had now ({{first}}): give {FILE} "
        "(--weights inception=FILE), or another --extractor (judge, clip or dinov2), whose distance is then not called FID"
    )
    with as_input_error(advice, Exception):  # whatever urllib, ssl and the file system raise
        torch.hub.download_url_to_file(URL, str(folder / FILE), hash_prefix="6726825d", progress=False)
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


class ClassToken(nn.Module):
    """The class token behind the last norm of a transformers vision model, of pixels in [0, 255]."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std = (pixels.new_tensor(c)[:, None, None] for c in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return self.net(pixel_values=(pixels / 255 - mean) / std).last_hidden_state[:, 0]


def dinov2(folder: Path) -> Extractor:
    """DINOv2's class token at a side of 224 pixels (the usual one), or the configuration's if that is smaller."""
    from transformers import Dinov2Model

    with as_input_error(f"no DINOv2 in {folder}: {{first}}", OSError, ValueError, RuntimeError):
        net: Any = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    side = min(224, net.config.image_size)
    frozen = ClassToken(net.eval().requires_grad_(False))
    name = f"dinov2-{digest_of(net.state_dict())}"
    return Extractor(name, f"pillow bicubic {side}", partial(bicubic, side=side), frozen, "Frechet distance (DINOv2)")
