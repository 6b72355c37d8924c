"""The starter's `movq`: a diffusers `VQModel` between 128 x 128 pictures and a small latent picture.

Kandinsky 2.2 samples continuous latents and decodes them with `force_not_quantize=True`, so the codebook takes no part
in the loss; it is fitted afterwards, by k-means, so that the class's quantised route works too. Three things make the
latents a good target for a diffusion model: the picture's coarse colours can be read from them linearly; noise is added
to them in training, which keeps the decoder from leaning on fine detail that a sampler will not reproduce; and at the
end their mean and spread are folded into the 1 x 1 convolutions on both sides, so that they have zero mean and unit
variance per channel (`KandinskyV22Pipeline` hands latents to `movq.decode` without a scaling factor).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor

from unialign_gen.pipelines.autoencoders import LATENT_NOISE
from unialign_gen.training.schedule import warm_then_cool

from .training import bf16_convolutions, loop, pixels_of, shifted, update


def build(channels: tuple[int, ...], latent_channels: int) -> VQModel:
    """A VQModel that halves the picture at each step but the last: `(32, 64, 96, 128)` is f8."""
    return VQModel(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        vq_embed_dim=latent_channels,
        num_vq_embeddings=1024,
        norm_num_groups=8,
        norm_type="group",
        mid_block_add_attention=False,
    )


def crops(pictures: Tensor, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Random square crops, half of them mirrored: uint8 (N, 128, 128, 3) -> float (count, 3, side, side) in [-1, 1]."""
    rows = torch.randint(len(pictures), (count,), generator=generator)
    room = pictures.shape[1] - side + 1
    at = torch.randint(room, (count, 2), generator=generator)
    out = torch.stack([pictures[r, y : y + side, x : x + side] for r, (y, x) in zip(rows, at.tolist(), strict=True)])
    flip = torch.rand(count, generator=generator) < 0.5
    out[flip] = out[flip].flip(2)
    return pixels_of(out)


class TowerFeatures(torch.nn.Module):
    """The image tower's stages (strides 2, 4, 8, 16, 16, 32, 32) and its last layer: what a perceptual loss compares.

    Args:
        net: the tower's network.
        stages: only so many of the first; all of them and the last layer by default.
        side: pixels that pictures are brought to before; their own by default.
    """

    def __init__(self, net: Any, stages: int | None = None, side: int | None = None):
        super().__init__()
        net = net.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.side = side
        self.stem = torch.nn.Sequential(net.conv_stem, net.bn1)
        self.stages = torch.nn.ModuleList(net.blocks[:stages])
        if stages is None:
            self.stages.append(torch.nn.Sequential(net.conv_head, net.bn2, torch.nn.AdaptiveAvgPool2d(1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.side is not None:
            x = F.interpolate(x, size=(self.side, self.side), mode="bicubic")
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(got: Tensor, want: Tensor) -> Tensor:
    """Squares and L1 on pixels, L1 on their differences: edges carry a drawing.

    The squares, above all those of 8 x 8 averages, are there for the colours: without them shapes stand after minutes and
    everything is drawn in one or two hues for a long time.
    """
    loss = 4 * F.mse_loss(got, want) + F.l1_loss(got, want)
    loss = loss + 16 * F.mse_loss(F.avg_pool2d(got, 8), F.avg_pool2d(want, 8))
    return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(got), edges(want), strict=True))


def perceptual_loss(features: torch.nn.Module, got: Tensor, want: Tensor) -> Tensor:
    """L1 between features, every stage's normalised over its channels (Zhang et al. 2018)."""
    with torch.no_grad():
        target = features(want)
    parts = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).abs().sum(1).mean() / a.shape[1] ** 0.5
        for a, b in zip(features(got), target, strict=True)
    ]
    return torch.stack(parts).sum()


def train(
    pictures: Tensor,
    features: torch.nn.Module | None,
    folder: Path,
    *,
    model: VQModel,
    samples: int,
    minutes: float,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    batch: int = 4,
    side: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> VQModel:
    """Trains `model` until `samples` crops in all or `minutes` in this sitting, whichever comes first; resumes from `folder`.

    Returns the model with normalised latents. No average of the weights: the learning rate cools to zero instead.
    """
    torch.manual_seed(seed)
    model = model.to(memory_format=torch.channels_last).train()
    latent_channels = model.config.latent_channels
    # Colour must be readable from the latents by one 1 x 1 convolution. Without that the encoder settles on one or two
    # hues, which the decoder then has to live with for a long time.
    readout = torch.nn.Conv2d(latent_channels, 3, 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    readout_optimiser = torch.optim.AdamW(readout.parameters(), lr=2e-2)

    def step(progress: float, generator: torch.Generator) -> Tensor:
        x = crops(pictures, batch, side, generator)
        z = model.encode(x).latents
        spread = z.detach().std(dim=(0, 2, 3), keepdim=True)
        noise = torch.randn(z.shape, generator=generator) * spread * LATENT_NOISE
        y = model.decode(z + noise, force_not_quantize=True).sample
        loss = reconstruction_loss(y, x) + 1e-4 * z.square().mean()
        if features is not None and progress > 0.9:  # they only help once shapes and colours stand
            loss = loss + 0.2 * perceptual_loss(features, y, x)
        coarse = F.avg_pool2d(x, x.shape[-1] // z.shape[-1])
        loss = loss + 10 * F.mse_loss(readout(z / spread), coarse)
        readout_optimiser.zero_grad(set_to_none=True)
        update(loss, optimiser, lr * warm_then_cool(progress))
        readout_optimiser.step()
        return loss.detach()

    parts = {"model": model, "optimiser": optimiser, "readout": readout, "readout_optimiser": readout_optimiser}
    with bf16_convolutions(model, features):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last, timer=timer)
    return normalise_latents(model.eval(), pictures)


def sharpen(
    pictures: Tensor,
    latents: Tensor,
    weights: Tensor,
    features: torch.nn.Module | None,
    folder: Path,
    *,
    model: VQModel,
    samples: int,
    minutes: float,
    last: bool = False,
    batch: int = 4,
    lr: float = 7e-4,
    seed: int = 0,
) -> VQModel:
    """Trains the decoding half alone, on whole pictures uint8 (N, 128, 128, 3), sampled by `weights`, and their latents.

    The latents stay what they are, so a diffusion model trained on them stays valid. Whole pictures, since the group norms
    see other statistics on crops, and since the tower's later stages say whether a thing can still be recognised.
    """
    torch.manual_seed(seed)
    model = model.to(memory_format=torch.channels_last).train()
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    trained = [*model.post_quant_conv.parameters(), *model.decoder.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)

    def step(progress: float, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        z = latents[rows].float()
        z = z + torch.randn(z.shape, generator=generator) * LATENT_NOISE
        y = model.decode(z.contiguous(memory_format=torch.channels_last), force_not_quantize=True).sample
        x = pixels_of(pictures[rows])
        loss = reconstruction_loss(y, x)
        if features is not None:
            loss = loss + 0.3 * perceptual_loss(features, *shifted(torch.cat([y, x]), generator).chunk(2))
        update(loss, optimiser, lr * warm_then_cool(progress))
        return loss.detach()

    parts = {"model": model, "optimiser": optimiser}
    with bf16_convolutions(model, features):
        loop(
            step,
            parts,
            folder / "sharpen.pt",
            samples=samples,
            minutes=minutes,
            batch=batch,
            seed=seed,
            last=last,
            counted="sharpened",
        )
    return model.eval()


@torch.no_grad()
def encode(model: VQModel, pictures: Tensor) -> Tensor:
    """uint8 (N, 128, 128, 3) to latents (N, C, h, w) in fp16; small batches stay in the processor's cache."""
    return torch.cat([model.encode(pixels_of(part)).latents.half() for part in pictures.split(16)]).contiguous()


@torch.no_grad()
def normalise_latents(model: VQModel, pictures: Tensor) -> VQModel:
    """Folds the latents' mean and standard deviation into `quant_conv` and `post_quant_conv`."""
    pick = torch.arange(0, len(pictures), max(1, len(pictures) // 512))
    z = torch.cat([model.encode(pixels_of(part)).latents for part in pictures[pick].split(32)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    before, after = model.quant_conv, model.post_quant_conv
    before.weight.div_(std[:, None, None, None])
    before.bias.sub_(mean).div_(std)
    after.bias.add_(after.weight[:, :, 0, 0] @ mean)
    after.weight.mul_(std[None, :, None, None])
    return model


@torch.no_grad()
def fit_codebook(model: VQModel, latents: Tensor, rounds: int = 12, seed: int = 0) -> VQModel:
    """Sets the codebook to the k-means centres (Lloyd 1982) of latent vectors out of (N, C, h, w); empty cells stay."""
    points = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).float()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    points = points[order[:100_000]]
    centres = points[: model.config.num_vq_embeddings].clone()
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(8192)])
        count = torch.bincount(nearest, minlength=len(centres)).unsqueeze(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
    model.quantize.embedding.weight[: len(centres)].copy_(centres)
    return model
