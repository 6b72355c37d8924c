"""The upscaler: its start out of a published package, its fine-tuning on pairs of our own.

Real-ESRGAN's compact network was trained on video frames. What a decoder of 64 px pictures draws is blurred in another way: by
movq, and by the decoder itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unialign_gen.pipelines.upscaler import Upscaler

from . import loop
from .autoencoder import edge_loss, perceptual_loss

BATCH = 4
Pairs = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]


@torch.no_grad()
def read_ncnn(weights: bytes, scale: int = 4, width: int = 64, depth: int = 16) -> Upscaler:
    """An upscaler out of ncnn's weight file for Real-ESRGAN's compact network (`realesr-animevideov3-x4.bin`).

    The file holds the layers in their order: of a convolution a tag of four bytes, weights (out, in, 3, 3) in fp16, padded to
    four bytes, and biases in fp32; of a PReLU its slopes in fp32.
    """
    model, at = Upscaler(scale, width, depth), 0
    for layer in model.body:
        at += 4 * isinstance(layer, nn.Conv2d)  # the tag
        for value in layer.parameters():
            found: np.ndarray = np.frombuffer(weights, np.float16 if value.ndim > 1 else np.float32, value.numel(), at)
            at += -(-found.nbytes // 4) * 4
            value.copy_(torch.from_numpy(found.astype(np.float32)).view(value.shape))
    return model


def enlarged(model: Upscaler, scale: int) -> Upscaler:
    """The same network for a scale that is a multiple: each channel of its last layer stands for a block of pixels.

    Drawn at first is what the model draws, each pixel as a block; training refines it.
    """
    old, width, depth = (model.config[name] for name in ("scale", "width", "depth"))
    made, state, times = Upscaler(scale, width, depth), model.state_dict(), scale // old
    for name in list(state)[-2:]:  # weight and bias, (3 * old * old, ...) in the order of the pixel shuffle
        pixels = state[name].unflatten(0, (3, old, old))
        state[name] = pixels.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(0, 2)
    made.load_state_dict(state)
    return made


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

        def crops(pictures: Iterable[Tensor], a: int) -> Tensor:
            cut = [p[a * y : a * (y + side), a * x : a * (x + side)] for p, (y, x) in zip(pictures, corners, strict=True)]
            return loop.pixels_of(torch.stack(cut))

        return crops((low[row] for row in rows), 1), crops(map(high, rows), scale)

    return draw


def train(
    model: Upscaler, pairs: Pairs, folder: Path, out: Path, *, features: Any = None, lr: float = 2e-4, **sitting: Any
) -> Upscaler:
    """Fine-tunes an upscaler from where `folder` left it, and writes its average to `out`; returns that.

    Args:
        pairs: crops (count, 3, h, w) in [-1, 1] and the same ones larger.
        features: a timm network, for a perceptual term beside L1 on pixels and on their differences.
        sitting: as in `loop.train`.
    """

    def loss(done: int, generator: torch.Generator) -> Tensor:
        small, large = pairs(generator, BATCH)
        got = model(small)
        value = F.l1_loss(got, large) + edge_loss(got, large)
        return value if features is None else value + 0.2 * perceptual_loss(features, got, large)

    return loop.train(model, loss, lambda averaged: averaged.save_pretrained(out), folder, lr=lr, batch=BATCH, **sitting)
