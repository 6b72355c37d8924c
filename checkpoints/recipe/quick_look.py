"""A quick reader: latents to an embedding at a fraction of what decoding and the image encoder at its own size cost.

A small network draws latents as movq would, but coarser, and heads of their own read the features of two encoders at 128 pixels
instead of 224: the image space's, and EfficientNet-Lite1, which knows the space from this head alone. Gradients say which way
a picture has to change for both to see something else in it: what pleases one network only is of no use to a person.
Measurements never use them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor, nn

from unialign_gen.heads import Head
from unialign_gen.training.schedule import warm_then_cool

from .diffusion import Prompts, draw, noise_for
from .training import Stateful, bf16_convolutions, loop, pixels_of, shifted, update


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(F.relu(x))))


class QuickDecoder(nn.Module):
    """Latents (B, C, h, w) to pictures (B, 3, 8 h, 8 w) in about [-1, 1], without normalisation layers."""

    def __init__(self, latent_channels: int, widths: tuple[int, int, int] = (128, 96, 48)):
        super().__init__()
        a, b, c = widths
        self.net = nn.Sequential(
            nn.Conv2d(latent_channels, a, 3, padding=1),
            *(Residual(a) for _ in range(3)),
            nn.Conv2d(a, 4 * b, 1),
            nn.PixelShuffle(2),
            *(Residual(b) for _ in range(2)),
            nn.Conv2d(b, 4 * c, 1),
            nn.PixelShuffle(2),
            Residual(c),
            nn.ReLU(),
            nn.Conv2d(c, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.net(4 * torch.tanh(z / 4))


@torch.no_grad()
def views(
    latents: Tensor, weights: Tensor, prompts: Prompts, model: nn.Module, movq: VQModel, true: int = 5000, drawn: int = 4000
) -> tuple[Tensor, Tensor]:
    """Latents (N, C, h, w) and what movq makes of them, fp16: `true` ones of pictures, a little noised, and `drawn` ones.

    The decoder to be trained draws the second kind, in two to six steps: that is what it will have to be told about.
    """
    generator = torch.Generator().manual_seed(0)
    with bf16_convolutions(model, movq):
        rows = torch.multinomial(weights, min(true, len(latents)), generator=generator)
        kept = [latents[rows].float()]
        kept[0] += 0.25 * torch.rand(len(rows), 1, 1, 1, generator=generator) * torch.randn(kept[0].shape, generator=generator)
        for _ in range(drawn // 50):
            rows = torch.multinomial(weights, 50, replacement=True, generator=generator)
            noise = noise_for(latents, rows, generator)
            count = int(torch.randint(2, 7, (), generator=generator))
            kept.append(draw(model, noise, prompts(rows, generator)[1], count))
        z = torch.cat(kept)
        seen = [
            movq.decode(part.contiguous(memory_format=torch.channels_last), force_not_quantize=True)
            .sample.clamp(-1.1, 1.1)
            .half()
            for part in z.split(16)
        ]
    return z.half(), torch.cat(seen).contiguous()


def train_decoder(
    latents: Tensor,
    pictures: Tensor,
    folder: Path,
    *,
    model: QuickDecoder,
    samples: int,
    minutes: float,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    batch: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
) -> None:
    """Trains `model` on latents (N, C, h, w) and what movq makes of them, (N, 3, 8 h, 8 w); resumes from `folder`.

    Absolute differences of pixels and of neighbouring pixels' steps: edges count as much as areas.
    """
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), fused=True)

    def step(progress: float, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(latents), (batch,), generator=generator)
        z = latents[rows].float().contiguous(memory_format=torch.channels_last)
        off = model(z) - pictures[rows].float()
        loss = off.abs().mean() + off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
        update(loss, optimiser, lr * warm_then_cool(progress, cool=0.5))
        return loss.detach()

    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser}
    with bf16_convolutions(model):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last, timer=timer)
    model.eval()


@torch.no_grad()
def small_features(encoder: nn.Module, pictures: Tensor, seed: int) -> Tensor:
    """The encoder's features (N, width) of pictures uint8 (N, 128, 128, 3) at their own size, a little moved."""
    generator = torch.Generator().manual_seed(seed)
    with bf16_convolutions(encoder):
        return torch.cat([encoder(shifted(pixels_of(part), generator)) for part in pictures.split(64)])


def train_head(head: Head, features: Tensor, embeds: Tensor, *, steps: int = 700, lr: float = 1e-3, seed: int = 0) -> Head:
    """Fits a head to small pictures' features (V, N, width), V views of each, so that they are read as `embeds` (N, d)."""
    generator = torch.Generator().manual_seed(seed)
    head = head.train().requires_grad_(True)
    head.fit_standardisation(features.flatten(0, 1))
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.02)
    for step in range(steps):
        rows = torch.randint(len(embeds), (256,), generator=generator)
        x = features[step % len(features)][rows]
        x = x + 0.1 * head.std * torch.randn(x.shape, generator=generator)
        loss = (1 - F.cosine_similarity(head(x), embeds[rows])).mean()
        update(loss, optimiser, lr * warm_then_cool(step / steps, cool=0.5))
    return head.eval().requires_grad_(False)
