"""How the starter's decoders are trained: a denoiser on cached latents, whatever its conditions.

The target is v (Salimans & Ho 2022) under a cosine schedule rescaled to zero terminal SNR (Lin et al. 2023), so that white
stays white.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unialign_gen.training.schedule import warm_then_cool

from .latent_features import LatentFeatures
from .training import Average, Stateful, bf16_convolutions, loop, processes

COOL = 0.4  # the share of the run over which the learning rate falls
DROP = 0.1  # the share of pictures whose condition is replaced, for classifier-free guidance (Ho & Salimans 2022)
Conditions = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
Takes = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]  # unit embeddings (B, d) to what a denoiser takes for them
Prompts = Callable[[Tensor, torch.Generator], tuple[Tensor, tuple[Tensor, ...]]]


@dataclass
class Conditioned:
    """A denoiser, and the tensors it takes for unit embeddings (B, d) and for as many times no prompt."""

    model: nn.Module
    takes: Takes
    nothing: Callable[[int], tuple[Tensor, ...]]


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def by_thing(things: Sequence[str]) -> dict[str, list[int]]:
    """The rows that show each thing."""
    groups: dict[str, list[int]] = {}
    for row, thing in enumerate(things):
        groups.setdefault(thing, []).append(row)
    return groups


class Neighbours:
    """Draws, for each picture, the embedding that stands for it in training.

    A prompt is rarely a training picture: unseen pictures, texts and sounds land near what they name, not on it. So half of the
    embeddings move towards that of another picture of the same thing, by up to seven tenths, and two thirds carry noise on
    the sphere. A decoder that only ever sees its training pictures' own embeddings learns them by heart.

    Args:
        embeds: unit embeddings (N, d).
        things: what each picture shows; pictures with the same word are neighbours.
    """

    def __init__(self, embeds: Tensor, things: Sequence[str]):
        self.embeds = embeds
        groups = by_thing(things)
        self.groups = [groups[thing] for thing in things]

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Unit embeddings (B, d) for pictures (B)."""
        chance = torch.rand(len(rows), 3, generator=generator)
        others = [
            self.groups[row][int(pick * len(self.groups[row]))]
            for row, pick in zip(rows.tolist(), chance[:, 0].tolist(), strict=True)
        ]
        share = torch.where(chance[:, 1] < 0.5, 0.7 * chance[:, 2], 0.0)[:, None]
        return jitter(F.normalize(torch.lerp(self.embeds[rows], self.embeds[others], share), dim=1), generator)


def prompts(
    neighbours: Neighbours, takes: Takes, move: Callable[[Tensor, torch.Generator], Tensor] = lambda embeds, generator: embeds
) -> Prompts:
    """Embeddings near those of pictures by their rows, moved, and the same as a denoiser takes them."""

    def drawn(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, ...]]:
        wanted = move(neighbours.draw(rows, generator), generator)
        return wanted, takes(wanted, generator)

    return drawn


def jitter(embeds: Tensor, generator: torch.Generator, most: float = 0.6) -> Tensor:
    """Unit vectors moved by Gaussian noise of a random size, back on the sphere; a third stay as they are."""
    size = torch.rand(len(embeds), 1, generator=generator) * 1.5 - 0.5
    noise = torch.randn(embeds.shape, generator=generator) / embeds.shape[1] ** 0.5
    return F.normalize(embeds + size.clamp(min=0) * most * noise, dim=1)


class Matrices:
    """Muon (Jordan et al. 2024) for the weights of convolutions and linear layers, AdamW for all else.

    torch's Muon takes matrices only, so a convolution's weight is shown to it as (out, height * width * in), a view of the same
    memory. First and last layer, whose sides are small, stay with AdamW.
    """

    def __init__(self, model: nn.Module, lr: float):
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        rest = []
        for name, p in model.named_parameters():
            if p.ndim < 2 or min(p.shape[0], p[0].numel()) < 32 or "conv_in" in name or "conv_out" in name:
                rest.append(p)
            else:
                self.pairs.append((p, nn.Parameter(as_matrix(p.data))))
        self.rest = rest
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        ]
        if self.pairs:
            matrices = [m for _, m in self.pairs]
            self.parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))

    def update(self, loss: Tensor, lr: float) -> None:
        """One step at the rate `lr`. Muon's steps have a size of their own, so only the other gradients are clipped."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
        for p in [*self.rest, *(p for p, _ in self.pairs)]:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        for p, matrix in self.pairs:
            matrix.grad = None if p.grad is None else as_matrix(p.grad)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(i): part.state_dict() for i, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, part in enumerate(self.parts):
            part.load_state_dict(state[str(i)])


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix; that of a convolution kept channels-last becomes a view of it."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1) if weight.ndim == 4 else weight


@torch.no_grad()
def borrow(unet: UNet2DConditionModel, other: UNet2DConditionModel) -> int:
    """Copies into `unet` what another UNet has under the same name; rows beyond a tensor's own are left out.

    Returns the number of parameters copied.
    """
    theirs, count = other.state_dict(), 0
    for name, mine in unet.state_dict().items():
        found = theirs.get(name)
        if found is not None and found.shape[1:] == mine.shape[1:] and len(found) >= len(mine):
            mine.copy_(found[: len(mine)])
            count += mine.numel()
    return count


def denoising(x: Tensor, noise_scheduler: DDIMScheduler, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, their noise levels and the target v, of clean latents (B, C, h, w).

    A batch sees the whole range of levels.
    """
    t = (torch.arange(len(x)) + torch.rand(len(x), generator=generator)) / len(x)  # stratified over the batch
    t = (t * len(noise_scheduler.alphas_cumprod)).long()
    noise = torch.randn(x.shape, generator=generator)
    noisy = noise_scheduler.add_noise(x, noise, t).contiguous(memory_format=torch.channels_last)
    return noisy, t, noise_scheduler.get_velocity(x, noise, t)


def denoising_loss(
    model: nn.Module,
    latents: Tensor,
    weights: Tensor,
    conditions: Conditions,
    count: int,
    noise_scheduler: DDIMScheduler,
    generator: torch.Generator,
) -> Tensor:
    """The loss of `count` of the latents, for a training whose own loss is another one; arguments are those of `train`."""
    rows = torch.multinomial(weights, count, replacement=True, generator=generator)
    noisy, t, target = denoising(latents[rows].float(), noise_scheduler, generator)
    return F.mse_loss(model(noisy, t, *conditions(rows, generator)), target)


def noise_for(latents: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """What drawings of so many rows (B) of latents start from: (B, C, h, w), channels last."""
    noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
    return noise.contiguous(memory_format=torch.channels_last)


def draw(model: Callable[..., Tensor], z: Tensor, given: Sequence[Tensor], steps: int) -> Tensor:
    """Clean latents out of noise (B, C, h, w) by deterministic DDIM (Song et al. 2021), differentiable all the way.

    Every step goes to the next one's noise level; diffusers' goes back by a whole number of levels, the same where `steps`
    divides 1000.
    """
    noise_scheduler = scheduler()
    noise_scheduler.set_timesteps(steps)
    times = noise_scheduler.timesteps.tolist()
    for t, after in zip(times, [*times[1:], None], strict=True):
        v = model(z, torch.full((len(z),), t), *given)
        share = noise_scheduler.alphas_cumprod[t]
        clean, noise = share.sqrt() * z - (1 - share).sqrt() * v, share.sqrt() * v + (1 - share).sqrt() * z
        if after is not None:
            share = noise_scheduler.alphas_cumprod[after]
            z = share.sqrt() * clean + (1 - share).sqrt() * noise
    return clean


def train(
    latents: Tensor,
    weights: Tensor,
    conditions: Conditions,
    folder: Path,
    *,
    model: nn.Module,
    samples: int,
    minutes: float,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    batch: int = 64,
    lr: float = 8e-4,
    seed: int = 0,
    decay: float = 0.999,
    perceptual: LatentFeatures | None = None,
    perceptual_weight: float = 0.5,
) -> None:
    """Trains a denoiser on latents (N, C, h, w), drawn with probability proportional to `weights` (N).

    `conditions(rows, generator)` gives the tensors (B, ...) that `model(noisy, t, *conditions)` takes to predict v. With
    `perceptual` the estimate of the clean latents is compared with them in its features too.
    Stops at `samples` in all or after `minutes` of this sitting; resumes from `folder`. The model ends with the averaged
    weights. Under `torchrun` the processes share each batch.
    """
    rank, world = processes()
    if batch % world:
        raise ValueError(f"a batch of {batch} cannot be shared by {world} processes")
    torch.manual_seed(seed)
    noise_scheduler = scheduler()
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = Matrices(model, lr)
    average = Average(model, decay)
    forward: nn.Module = DistributedDataParallel(model) if world > 1 else model

    def step(progress: float, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        x = latents[rows].float()
        given = list(conditions(rows, generator))
        noisy, t, target = denoising(x, noise_scheduler, generator)
        # every process draws the whole batch, which costs nothing, and keeps its own rows of it
        noisy, t, target, *given = [part[rank::world] for part in (noisy, t, target, *given)]
        v = forward(noisy, t, *given)
        loss = F.mse_loss(v, target)
        total = loss
        if perceptual is not None:
            share = noise_scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
            estimate = share.sqrt() * noisy - (1 - share).sqrt() * v
            total = loss + perceptual_weight * perceptual.distance(estimate, x[rank::world])
        optimiser.update(total, lr * warm_then_cool(progress, cool=COOL))
        average.step()
        return loss.detach()

    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser, "average": average}
    with bf16_convolutions(model, perceptual):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last, timer=timer)
    model.load_state_dict(average.shadow)
    model.eval()
