"""The starter's `movq`: a diffusers `VQModel` between 64 x 64 pictures and 16 x 16 latents.

Kandinsky 2.2 samples continuous latents and decodes them with `force_not_quantize=True`, so the codebook takes no part in the
loss; it is fitted afterwards, by k-means, so that the class's quantised route works too. Three things make the latents a good
target for a diffusion model: a picture's coarse colours can be read from them linearly; noise is added to them in
training, which keeps the decoder from leaning on detail that a sampler will not reproduce; and their mean and spread are folded
into the 1 x 1 convolutions on both sides, so that every channel has zero mean and unit variance
(`KandinskyV22Pipeline` hands latents to `movq.decode` without a scaling factor).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor, nn

from unialign_gen.encoders import load_encoder
from unialign_gen.pipelines.autoencoders import LATENT_NOISE

from . import pack
from .loop import Muon, average, averaged, bytes_of, fast, loop, pixels_of

CHANNELS, LATENT_CHANNELS, LR = (24, 48, 96), 4, 2e-3
PERCEPTUAL_FROM = 20_000  # pictures: features only help once shapes and colours stand


def build(channels: tuple[int, ...] = CHANNELS, latent_channels: int = LATENT_CHANNELS) -> VQModel:
    """A VQModel that halves the picture at each step but the last: three widths make it f4."""
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


class EncoderFeatures(nn.Module):
    """The first stages of an image encoder's timm network (strides 2, 4, 8): what a perceptual loss compares."""

    def __init__(self, net: Any, stages: int = 3):
        super().__init__()
        net = net.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = nn.ModuleList(net.blocks[:stages])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, along both axes."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(got: Tensor, want: Tensor) -> Tensor:
    """Squares and L1 on pixels, squares of 8 x 8 averages (for colours), L1 on pixels' differences (edges carry a drawing)."""
    loss = 8 * F.mse_loss(got, want) + F.l1_loss(got, want)
    loss = loss + 16 * F.mse_loss(F.avg_pool2d(got, 8), F.avg_pool2d(want, 8))
    return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(got), edges(want), strict=True))


def perceptual_loss(features: nn.Module, got: Tensor, want: Tensor) -> Tensor:
    """L1 between features, every stage's normalised over its channels (Zhang et al. 2018)."""
    with torch.no_grad():
        target = features(want)
    parts = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).abs().sum(1).mean() / a.shape[1] ** 0.5
        for a, b in zip(features(got), target, strict=True)
    ]
    return torch.stack(parts).sum()


def train_stage(root: Path, minutes: float, cool: bool = False) -> None:
    """Trains movq on the data folder's pictures of tier A, in `root/autoencoder`."""
    features = EncoderFeatures(load_encoder(root / "encoders" / "image").net)
    seen = pack.pictures_of(root, pack.training_rows(root)[0])
    train(seen, pack.pictures_of(root), root / "autoencoder", minutes=minutes, features=features, cool=cool)


def train(
    pictures: Tensor,
    held_out: Tensor,
    folder: Path,
    *,
    minutes: float,
    features: nn.Module | None = None,
    batch: int = 8,
    cool: bool = False,
    most: int | None = None,
) -> VQModel:
    """Trains movq for so many minutes, from where `folder` left it, and writes its average to `folder/movq`.

    Args:
        pictures, held_out: uint8 (N, 64, 64, 3); the second are reconstructed every few minutes, for the log.
        folder: of this training.
        features: an image encoder's; without them there is no perceptual term.
        cool: the learning rate falls to zero over this sitting: for the last one.
        most: pictures seen in this sitting at the most.

    Returns the averaged model with normalised latents.
    """
    torch.manual_seed(0)
    model = build().to(memory_format=torch.channels_last).train()  # type: ignore[call-arg]
    # Colour must be readable from the latents by one 1 x 1 convolution. Without that the encoder settles on one or two
    # hues, which the decoder then has to live with for a long time.
    readout = nn.Conv2d(LATENT_CHANNELS, 3, 1)
    optimiser, readout_optimiser, mean = Muon(model, (0.9, 0.99)), torch.optim.AdamW(readout.parameters(), 2e-2), average(model)

    def step(done: int, rate: float, generator: torch.Generator) -> Tensor:
        x = pictures[torch.randint(len(pictures), (batch,), generator=generator)]
        mirrored = torch.rand(batch, generator=generator) < 0.5
        x = pixels_of(torch.where(mirrored[:, None, None, None], x.flip(2), x))
        z = model.encode(x).latents
        spread = z.detach().std(dim=(0, 2, 3), keepdim=True)
        noise = torch.randn(z.shape, generator=generator) * spread * LATENT_NOISE
        y = model.decode(z + noise, force_not_quantize=True).sample
        loss = reconstruction_loss(y, x) + 1e-4 * z.square().mean()
        if features is not None and done >= PERCEPTUAL_FROM:
            loss = loss + 0.2 * perceptual_loss(features, y, x)
        coarse = F.avg_pool2d(x, x.shape[-1] // z.shape[-1])
        loss = loss + 10 * F.mse_loss(readout(z / spread), coarse)
        readout_optimiser.zero_grad(set_to_none=True)
        optimiser.update(loss, LR * rate)
        readout_optimiser.step()
        mean.step(model.parameters())
        return loss.detach()

    finished = copy.deepcopy(model)

    def write() -> dict[str, float]:
        with averaged(model, mean):
            finished.load_state_dict(model.state_dict())
        normalise_latents(finished.eval(), pictures)
        save(finished, folder / "movq")
        return {"held_out_psnr": psnr(finished, held_out)}

    parts = {"model": model, "optimiser": optimiser, "average": mean}
    parts |= {"readout": readout, "readout_optimiser": readout_optimiser}
    with fast("cpu", model, features):
        loop(step, parts, folder, minutes=minutes, batch=batch, write=write, cool=cool, most=most)
    return finished


def save(model: VQModel, folder: Path) -> None:
    """Writes a copy in plain memory layout."""
    copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).save_pretrained(folder)


@torch.no_grad()
def reconstruct(model: VQModel, pictures: Tensor, batch: int = 32) -> Tensor:
    """uint8 (N, 64, 64, 3) through the model and back."""
    latents = encode(model, pictures, batch).split(batch)
    return torch.cat([bytes_of(model.decode(z, force_not_quantize=True).sample) for z in latents])


def psnr(model: VQModel, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio in dB: the mean over pictures uint8 (N, 64, 64, 3)."""
    error = (reconstruct(model, pictures).float() - pictures.float()).square().flatten(1).mean(1).clamp(min=1e-2)
    return float((10 * torch.log10(255**2 / error)).mean())


@torch.no_grad()
def encode(model: VQModel, pictures: Tensor, batch: int = 16) -> Tensor:
    """uint8 (N, 64, 64, 3) to latents (N, C, 16, 16); small batches stay in a processor's cache."""
    return torch.cat([model.encode(pixels_of(part)).latents for part in pictures.split(batch)])


@torch.no_grad()
def normalise_latents(model: VQModel, pictures: Tensor) -> None:
    """Folds the mean and standard deviation of the latents of 512 pictures into `quant_conv` and `post_quant_conv`."""
    z = encode(model, pictures[:: max(1, len(pictures) // 512)], 32)
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    before, after = model.quant_conv, model.post_quant_conv
    before.weight.div_(std[:, None, None, None])
    before.bias.sub_(mean).div_(std)
    after.bias.add_(after.weight[:, :, 0, 0] @ mean)
    after.weight.mul_(std[None, :, None, None])


@torch.no_grad()
def fit_codebook(model: VQModel, latents: Tensor, rounds: int = 12, seed: int = 0) -> None:
    """Sets the codebook to the k-means centres (Lloyd 1982) of latent vectors out of (N, C, h, w); empty cells stay."""
    points = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).float()
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:100_000]]
    centres = points[: model.config.num_vq_embeddings].clone()
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(8192)])
        count = torch.bincount(nearest, minlength=len(centres)).unsqueeze(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
    model.quantize.embedding.weight[: len(centres)].copy_(centres)
