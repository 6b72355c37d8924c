"""Features of latents: what a perceptual loss compares where decoding every picture would cost too much.

A small convolutional network learns, in minutes, to read a picture's embedding from its latent picture. The decoder's estimate
of the clean latents is then compared with the true ones in its features as well (as in Berrada et al. 2024, who take
those of the autoencoder): squares alone leave the estimate a blurred mean at high noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unialign_gen.training.schedule import warm_then_cool

from .training import Stateful, bf16_convolutions, loop, update


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class LatentFeatures(nn.Module):
    """Latents (B, C, 16, 16) to an embedding (B, d), not normalised, through features at three sizes."""

    def __init__(self, latent_channels: int, embed_dim: int, widths: tuple[int, int, int] = (48, 96, 160)):
        super().__init__()
        a, b, c = widths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(latent_channels, a, 3, padding=1), Residual(a)),
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), Residual(b), Residual(b)),
                nn.Sequential(nn.Conv2d(b, c, 3, stride=2, padding=1), Residual(c), Residual(c)),
            ]
        )
        self.norm = nn.GroupNorm(8, c)
        self.head = nn.Sequential(nn.Linear(4 * c, 512), nn.GELU(), nn.Dropout(0.3), nn.Linear(512, embed_dim))

    def features(self, z: Tensor) -> list[Tensor]:
        out = []
        for stage in self.stages:
            z = stage(z)
            out.append(z)
        return out

    def embed(self, features: list[Tensor]) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(F.silu(self.norm(features[-1])), 2).flatten(1))

    def forward(self, z: Tensor) -> Tensor:
        return self.embed(self.features(z))

    def distance(self, got: Tensor, want: Tensor) -> Tensor:
        """Mean squared distance of normalised features, plus one minus the cosine of the embeddings."""
        mine = self.features(got)
        with torch.no_grad():
            theirs = self.features(want)
            target = F.normalize(self.embed(theirs), dim=1)
        pairs = zip(mine, theirs, strict=True)
        apart = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs]
        return torch.stack(apart).mean() + (1 - (F.normalize(self.embed(mine), dim=1) * target).sum(1)).mean()


def blurred(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents moved by up to two places, six in ten with noise of up to 0.7: what a decoder's estimates look like."""
    size = 0.7 * torch.rand(len(latents), 1, 1, 1, generator=generator)
    noisy = torch.rand(len(latents), 1, 1, 1, generator=generator) < 0.6
    x = latents + torch.where(noisy, size, 0.0) * torch.randn(latents.shape, generator=generator)
    y, w = torch.randint(5, (2,), generator=generator).tolist()
    side = x.shape[-1]
    return F.pad(x, (2, 2, 2, 2), mode="replicate")[..., y : y + side, w : w + side].contiguous(
        memory_format=torch.channels_last
    )


def train(
    latents: Tensor,
    embeds: Tensor,
    weights: Tensor,
    folder: Path,
    *,
    samples: int,
    minutes: float,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
) -> LatentFeatures:
    """Trains the network on latents (N, C, h, w) and their pictures' unit embeddings (N, d); resumes from `folder`."""
    torch.manual_seed(seed)
    model = LatentFeatures(latents.shape[1], embeds.shape[1]).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=True)

    def step(progress: float, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        cosine = F.normalize(model(blurred(latents[rows].float(), generator)), dim=1) @ embeds[rows].T
        loss = (1 - cosine.diagonal()).mean() + 0.3 * F.cross_entropy(cosine / 0.1, torch.arange(batch))
        update(loss, optimiser, lr * warm_then_cool(progress, cool=0.6))
        return loss.detach()

    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser}
    with bf16_convolutions(model):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last, timer=timer)
    return model.eval().requires_grad_(False)
