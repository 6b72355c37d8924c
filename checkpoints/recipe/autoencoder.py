"""The starter's `movq`: a diffusers `VQModel` between 64 x 64 pictures and 16 x 16 latents.

Kandinsky 2.2 samples continuous latents and decodes them with `force_not_quantize=True`, so the codebook is not trained, and
nobody reads it. Three things make the latents a good target for a diffusion model: a picture's coarse colours can be read from
them linearly; noise is added to them in training, which keeps the decoder from leaning on detail that a sampler will not
reproduce; and their mean and spread are folded into the 1 x 1 convolutions on both sides, so that every channel has zero mean
and unit variance (`KandinskyV22Pipeline` hands latents to `movq.decode` without a scaling factor).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from unialign_gen.pipelines.autoencoders import LATENT_NOISE

from . import loop

LR = 2e-3
PERCEPTUAL_FROM = 20_000  # pictures: features only help once shapes and colours stand


def build(channels: tuple[int, ...] = (24, 48, 96), latent_channels: int = 4) -> VQModel:
    """A VQModel that halves the picture at each step but the last: three widths make it f4."""
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        latent_channels=latent_channels,
        vq_embed_dim=latent_channels,
        num_vq_embeddings=1024,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def edge_loss(got: Tensor, want: Tensor) -> Tensor:
    """L1 on the differences of neighbouring pixels, along both axes: edges carry a drawing."""
    return F.l1_loss(got.diff(dim=2), want.diff(dim=2)) + F.l1_loss(got.diff(dim=3), want.diff(dim=3))


def perceptual_loss(net: Any, got: Tensor, want: Tensor) -> Tensor:
    """L1 between a timm network's features at strides 2, 4 and 8, normalised over their channels (Zhang et al. 2018)."""

    def seen(x: Tensor) -> list[Tensor]:
        found = net.forward_intermediates(x, [0, 1, 2], stop_early=True, intermediates_only=True)
        return [F.normalize(f, dim=1) for f in found]

    with torch.no_grad():
        target = seen(want)
    return torch.stack([(a - b).abs().sum(1).mean() / a.shape[1] ** 0.5 for a, b in zip(seen(got), target, strict=True)]).sum()


def colour_loss(latents: Tensor, pixels: Tensor) -> Tensor:
    """Squared error of coarse colours as the best 1 x 1 convolution of these latents reads them.

    Without it the encoder settles on one or two hues, which the decoder then has to live with for a long time.
    """
    coarse = F.avg_pool2d(pixels, pixels.shape[-1] // latents.shape[-1])
    x, y = (z.movedim(1, 3).flatten(0, 2) for z in (F.pad(latents, (0, 0, 0, 0, 0, 1), value=1.0), coarse))
    best = torch.linalg.lstsq(x.detach(), y).solution  # where a readout is best, its own gradient is nought
    return F.mse_loss(x @ best, y)


def train(pictures: Tensor, held_out: Tensor, folder: Path, *, features: Any = None, batch: int = 8, **sitting: Any) -> VQModel:
    """Trains movq from where `folder` left it, and writes its average, with normalised latents, to `folder/movq`; returns that.

    Args:
        pictures, held_out: uint8 (N, 64, 64, 3); the second are reconstructed every few minutes, for the log.
        features: a timm network; without it there is no perceptual term.
        sitting: as in `loop.train`.
    """
    torch.manual_seed(0)
    model = build()

    def loss(done: int, generator: torch.Generator) -> Tensor:
        x = pictures[torch.randint(len(pictures), (batch,), generator=generator)]
        mirrored = torch.rand(batch, generator=generator) < 0.5
        x = loop.pixels_of(torch.where(mirrored[:, None, None, None], x.flip(2), x))
        z = model.encode(x).latents
        spread = z.detach().std(dim=(0, 2, 3), keepdim=True)
        noise = torch.randn(z.shape, generator=generator) * spread * LATENT_NOISE
        y = model.decode(z + noise, force_not_quantize=True).sample
        value = 8 * F.mse_loss(y, x) + F.l1_loss(y, x) + edge_loss(y, x) + 1e-4 * z.square().mean()
        value = value + 16 * F.mse_loss(F.avg_pool2d(y, 8), F.avg_pool2d(x, 8)) + 10 * colour_loss(z, x)
        if features is not None and done >= PERCEPTUAL_FROM:
            value = value + 0.2 * perceptual_loss(features, y, x)
        return value

    def write(averaged: VQModel) -> dict[str, float]:
        normalise_latents(averaged, pictures[:: max(1, len(pictures) // 512)])
        averaged.save_pretrained(folder / "movq")
        made = reconstruct(averaged, held_out).float()
        return {"held_out_psnr": float(peak_signal_noise_ratio(made, held_out.float(), 255.0, dim=(1, 2, 3)))}

    return loop.train(model, loss, write, folder, lr=LR, batch=batch, **sitting)


@torch.no_grad()
def reconstruct(model: VQModel, pictures: Tensor, batch: int = 32) -> Tensor:
    """uint8 (N, 64, 64, 3) through the model and back."""
    latents = encode(model, pictures, batch).split(batch)
    pixels = torch.cat([model.decode(z, force_not_quantize=True).sample for z in latents])
    return (pixels.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1)


@torch.no_grad()
def encode(model: VQModel, pictures: Tensor, batch: int = 16) -> Tensor:
    """uint8 (N, 64, 64, 3) to latents (N, C, 16, 16); small batches stay in a processor's cache."""
    return torch.cat([model.encode(loop.pixels_of(part)).latents for part in pictures.split(batch)])


@torch.no_grad()
def normalise_latents(model: VQModel, pictures: Tensor) -> None:
    """Folds mean and deviation of the latents into `quant_conv` and `post_quant_conv`."""
    z = encode(model, pictures)
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    before, after = model.quant_conv, model.post_quant_conv
    before.weight.div_(std[:, None, None, None])
    before.bias.sub_(mean).div_(std)
    after.bias.add_(after.weight[:, :, 0, 0] @ mean)
    after.weight.mul_(std[None, :, None, None])
