"""The last part of a decoder's training: what it draws must be read back as the prompt.

A denoiser learns from single noise levels and, with the compute that a laptop has, draws from few steps only roughly what its
embedding says. Here it draws whole pictures in four to six steps of DDIM without guidance, two frozen networks read them,
and the gradient of one minus the cosine to the prompt's embedding goes back through every step (Clark et al. 2024,
DRaFT; Prabhudesai et al. 2023, AlignProp). A second term compares similarities to a bank of known things, which weighs what is
seen above how it looks. The denoising loss goes on beside it, so that pictures stay pictures.

What is kept lies between the weights before and after (Wortsman et al. 2022). Taken to its end this training pleases its own
readers more than anybody else; the share was chosen by how many prompts are recognised in what is drawn. To the same end
the readers see every drawing turned, scaled, lighter or darker, noised: what holds for one exact view only is of no use.

Prompts are image embeddings as before, never those of texts or sounds: a decoder that knew one set of heads would favour
them over others. Most are moved by the prior, as a checkpoint's prompts are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor, nn

from unialign_gen.heads import Head
from unialign_gen.training.schedule import warm_then_cool

from .diffusion import Conditions, Matrices, Prompts, denoising_loss, draw, noise_for, scheduler
from .quick_look import QuickDecoder
from .training import Average, Stateful, bf16_convolutions, loop

KEPT = 0.5  # the share of the weights after this training in what is kept
STEPS = (4, 6)  # of a drawing, from and to
FULL = 0.25  # how often the whole way is taken: movq, and the encoder at FULL_SIDE pixels
FULL_SIDE = 160
TEMPERATURE = 0.1
MOVED = 0.75  # the share of prompts that the prior moves, by 0.2 to 1 of the way


class Reader(nn.Module):
    """Latents (B, C, h, w) to unit embeddings (B, d), one for each network that reads, by the whole way or by the quick one.

    Args:
        movq: the autoencoder.
        quick_decoder: what stands in for it, see `quick_look`.
        head: the image space's, for its encoder at `FULL_SIDE` pixels.
        readers: encoders with their heads for pictures of 128 pixels; the image space's encoder first.
    """

    def __init__(self, movq: VQModel, quick_decoder: QuickDecoder, head: Head, readers: Sequence[tuple[nn.Module, Head]]):
        super().__init__()
        self.movq, self.quick_decoder, self.head = movq, quick_decoder, head
        self.encoders = nn.ModuleList(encoder for encoder, _ in readers)
        self.heads = nn.ModuleList(head for _, head in readers)
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, latents: Tensor, full: bool, generator: torch.Generator) -> list[Tensor]:
        z = latents.contiguous(memory_format=torch.channels_last)
        pictures = self.movq.decode(z, force_not_quantize=True).sample if full else self.quick_decoder(z)
        pictures = disturbed(pictures.clamp(-1.05, 1.05), generator)
        read = []
        for i, (encoder, head) in enumerate(zip(self.encoders, self.heads, strict=True)):
            if full and i == 0:
                larger = F.interpolate(pictures, size=(FULL_SIDE, FULL_SIDE), mode="bicubic")
                read.append(self.head(encoder(larger.contiguous(memory_format=torch.channels_last))))
            else:
                read.append(head(encoder(pictures)))
        return [F.normalize(points, dim=1) for points in read]


def disturbed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, h, w) in [-1, 1] on white, each as another look at it: turned, scaled, moved, another light, noise."""
    count = len(pictures)

    def spread(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    zoom, turn = spread(0.85, 1.2), spread(-0.175, 0.175)  # 1 / size, radians
    to = torch.stack(
        [
            torch.stack([zoom * turn.cos(), -zoom * turn.sin(), spread(-0.1, 0.1)], dim=1),
            torch.stack([zoom * turn.sin(), zoom * turn.cos(), spread(-0.1, 0.1)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(to, list(pictures.shape), align_corners=False)
    seen = F.grid_sample(pictures - 1, grid, align_corners=False) + 1  # what comes in from outside is white
    noise = torch.randn(seen.shape, generator=generator) * spread(0, 0.08, 1, 1, 1)
    seen = seen * spread(0.85, 1.15, 1, 1, 1) + spread(-0.075, 0.075, 1, 1, 1) + noise
    return seen.contiguous(memory_format=torch.channels_last)


def moved(embeds: Tensor, prior: Callable[[Tensor, float], Tensor], generator: torch.Generator) -> Tensor:
    """Unit embeddings (B, d), `MOVED` of them moved by the prior."""
    chance = torch.rand(len(embeds), 2, generator=generator)
    strength = torch.where(chance[:, :1] < MOVED, 0.2 + 0.8 * chance[:, 1:], 0.0)
    return F.normalize(torch.lerp(embeds, prior(embeds, 1.0), strength), dim=1)


def misread(got: Tensor, wanted: Tensor, known: Tensor, weight: float = 0.25) -> Tensor:
    """One minus the cosine of unit embeddings (B, d), plus `weight` times the divergence of their similarities to `known`."""
    apart = 1 - (got * wanted).sum(1)
    target = (wanted @ known.T / TEMPERATURE).log_softmax(1)
    seen = (got @ known.T / TEMPERATURE).log_softmax(1)
    return apart.mean() + weight * F.kl_div(seen, target, reduction="batchmean", log_target=True)


def train(
    latents: Tensor,
    weights: Tensor,
    conditions: Conditions,
    prompts: Prompts,
    known: Tensor,
    reader: Reader,
    folder: Path,
    *,
    model: nn.Module,
    samples: int,
    minutes: float,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    batch: int = 24,
    lr: float = 4e-4,
    seed: int = 0,
    decay: float = 0.995,
) -> None:
    """Trains a denoiser on its own drawings; latents, weights, conditions and model are those of `diffusion.train`.

    `prompts(rows, generator)` gives the unit embeddings (B, d) that pictures of those rows' prompts should be read as, and the
    tensors that the model takes for them. `known` (M, d) is the bank. `samples` counts drawings. Resumes from `folder`; the
    model ends between its weights as they came and the averaged ones.
    """
    torch.manual_seed(seed)
    noise_scheduler = scheduler()
    model = model.to(memory_format=torch.channels_last).train()
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimiser = Matrices(model, lr)
    average = Average(model, decay)

    def step(progress: float, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        wanted, given = prompts(rows, generator)
        count = int(torch.randint(STEPS[0], STEPS[1] + 1, (), generator=generator))
        full = bool(torch.rand((), generator=generator) < FULL)
        noise = noise_for(latents, rows, generator)
        drawn = draw(model, noise, given, count)
        read = reader(drawn, full, generator)
        loss = torch.stack([misread(got, wanted, known) for got in read]).mean()
        kept = denoising_loss(model, latents, weights, conditions, batch, noise_scheduler, generator)
        optimiser.update(loss + kept, lr * warm_then_cool(progress, cool=0.4))
        average.step()
        return loss.detach()

    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser, "average": average}
    with bf16_convolutions(model, reader):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last, timer=timer)
    model.load_state_dict(between(before, average.shadow))
    model.eval()


def between(before: dict[str, Tensor], after: dict[str, Tensor], share: float = KEPT) -> dict[str, Tensor]:
    """Weights on the straight line from one state to the other; what is no floating-point number comes from the second."""
    return {k: torch.lerp(before[k], v, share) if v.is_floating_point() else v for k, v in after.items()}
