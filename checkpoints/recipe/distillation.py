"""The second decoder learns from the first: at every state that a drawing passes through, the same v.

A denoiser that learns from pictures alone gets one noisy estimate of its target from each; another denoiser's answer is the
target itself, at the states that a guided drawing in a few steps comes to (Salimans & Ho 2022 and Meng et al. 2023 distil
samplers so). Both of the leader's answers are followed, for the prompt and for no prompt, so guidance works as it does there.
The denoising loss on pictures goes on beside it, since it alone teaches captions and noised embeddings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.training.schedule import warm_then_cool

from .diffusion import Conditioned, Conditions, Matrices, Neighbours, denoising_loss, draw, noise_for, scheduler
from .training import Average, Stateful, bf16_convolutions, loop

STEPS = (4, 12)  # of a drawing, from and to
GUIDANCE = (1.0, 4.0)
UNTOLD = 0.2  # the share of states at which the answer without a prompt is followed
PICTURES = 0.25  # pictures for the denoising loss, as a share of the states; its weight beside theirs


@dataclass
class Visited:
    """States (B, C, h, w) of drawings, their times (B), and v there for the prompt and for none, each (B, C, h, w)."""

    states: Tensor
    times: Tensor
    told: Tensor
    untold: Tensor


@torch.no_grad()
def visited(leader: Conditioned, z: Tensor, embeds: Tensor, steps: int, guidance: float, generator: torch.Generator) -> Visited:
    """What `steps` of guided DDIM from noise (B, C, h, w) pass through: `steps` times B states, the first B at the start."""
    given = [torch.cat(pair) for pair in zip(leader.takes(embeds, generator), leader.nothing(len(z)), strict=True)]
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def guided(z: Tensor, t: Tensor) -> Tensor:
        told, untold = leader.model(torch.cat([z, z]), torch.cat([t, t]), *given).chunk(2)
        seen.append((z, t, told, untold))
        return untold + guidance * (told - untold)

    draw(guided, z, (), steps)
    return Visited(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


def train(
    latents: Tensor,
    weights: Tensor,
    conditions: Conditions,
    neighbours: Neighbours,
    leader: Conditioned,
    follower: Conditioned,
    folder: Path,
    *,
    samples: int,
    minutes: float,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    batch: int = 64,
    lr: float = 8e-4,
    seed: int = 0,
    decay: float = 0.998,
) -> None:
    """Trains the follower; latents, weights and conditions are those of `diffusion.train`.

    `samples` counts states, about `batch` at a time. Resumes from `folder`; the follower ends with the averaged weights.
    """
    torch.manual_seed(seed)
    noise_scheduler = scheduler()
    model = follower.model.to(memory_format=torch.channels_last).train()
    leader.model.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    optimiser = Matrices(model, lr)
    average = Average(model, decay)

    def step(progress: float, generator: torch.Generator) -> Tensor:
        count = int(torch.randint(STEPS[0], STEPS[1] + 1, (), generator=generator))
        guidance = float(torch.empty(()).uniform_(*GUIDANCE, generator=generator))
        rows = torch.multinomial(weights, batch // count, replacement=True, generator=generator)
        embeds = neighbours.draw(rows, generator)
        noise = noise_for(latents, rows, generator)
        seen = visited(leader, noise, embeds, count, guidance, generator)
        untold = torch.rand(len(seen.times), generator=generator) < UNTOLD
        given = follower.takes(embeds.repeat(count, 1), generator)
        for tensor, nothing in zip(given, follower.nothing(len(untold)), strict=True):
            tensor[untold] = nothing[untold]
        target = torch.where(untold[:, None, None, None], seen.untold, seen.told)
        loss = F.mse_loss(model(seen.states, seen.times, *given), target)
        pictures = max(1, int(PICTURES * batch))
        kept = denoising_loss(model, latents, weights, conditions, pictures, noise_scheduler, generator)
        optimiser.update(loss + PICTURES * kept, lr * warm_then_cool(progress, cool=0.5))
        average.step()
        return loss.detach()

    parts: dict[str, Stateful] = {"model": model, "optimiser": optimiser, "average": average}
    with bf16_convolutions(model, leader.model):
        loop(step, parts, folder / "state.pt", samples=samples, minutes=minutes, batch=batch, seed=seed, last=last, timer=timer)
    model.load_state_dict(average.shadow)
    model.eval()
