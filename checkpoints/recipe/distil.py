"""Distillation: a decoder that draws in four steps without guidance what another draws in twelve with it.

The student takes steps three times as long along its teacher's own ways from noise to picture: one round of progressive
distillation (Salimans & Ho 2022), of guided ways (Meng et al. 2023). One noise and one embedding lead to one picture, so a long
step is no mean of several, and the student varies as its teacher does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unialign_gen.output import written

from .files import progress

Draw = Callable[[int, torch.Generator], Tensor]
STEPS, JUMP, GUIDANCE = 4, 3, 4.0  # the student's, how many of the teacher's each is, and how the teacher is guided
WAYS, CHUNK = 8192, 256  # 40 minutes on one core


@torch.no_grad()
def ways(teacher: nn.Module, scheduler: DDIMScheduler, embeds: Tensor, noise: Tensor) -> Tensor:
    """Latents (B, STEPS + 1, C, h, w) from noise (B, C, h, w) to a picture, for embeddings (B, d) at the decoder's scale."""
    scheduler.set_timesteps(STEPS * JUMP, noise.device)
    both, x, out = torch.cat([torch.zeros_like(embeds), embeds]), noise, [noise]
    for i, t in enumerate(scheduler.timesteps):
        free, led = teacher(torch.cat([x, x]), t.expand(len(both)), both).chunk(2)
        x = scheduler.step(free + GUIDANCE * (led - free), t, x).prev_sample
        if (i + 1) % JUMP == 0:
            out.append(x)
    return torch.stack(out, 1)


class Jumps:
    """The student's task: from each place of a way to the next.

    Args:
        folder: where ways of this teacher are kept with their embeddings, some at a time: a kill loses the last of them.
        draw: embeddings (n, d) at the decoder's scale, as prompts have them.
    """

    def __init__(self, folder: Path, teacher: nn.Module, scheduler: DDIMScheduler, shape: Sequence[int], draw: Draw):
        device = next(teacher.parameters()).device
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for part in progress(range(WAYS // CHUNK), desc="ways"):
            file, generator = folder / f"{part:03}.safetensors", torch.Generator(device).manual_seed(part)
            if not file.exists():
                embeds, noise = draw(CHUNK, generator), torch.randn(CHUNK, *shape, generator=generator, device=device)
                pairs = zip(embeds.split(64), noise.contiguous(memory_format=torch.channels_last).split(64), strict=True)
                made = torch.cat([ways(teacher, scheduler, *pair) for pair in pairs])
                with written(file) as new:
                    save_file({"embeds": embeds, "latents": made.half()}, new)
            found.append(load_file(file, str(device)))
        self.embeds, self.latents = (torch.cat([part[name] for part in found]) for name in ("embeds", "latents"))
        scheduler.set_timesteps(STEPS, device)
        self.times = scheduler.timesteps
        signal = scheduler.alphas_cumprod.to(device)[self.times].sqrt()
        self.angles = torch.cat([signal.acos(), signal.new_zeros(1)])  # of a noisy latent between its picture and its noise

    def loss(self, student: nn.Module, batch: int, generator: torch.Generator) -> Tensor:
        """Squared error of v in steps that end where the teacher's three do.

        By angles a step is x' = cos(d) x - sin(d) v, with d the difference of the two (Salimans & Ho 2022, appendix D).
        """
        row = torch.randint(len(self.latents), (batch,), generator=generator, device=generator.device)
        k = torch.arange(batch, device=row.device) % STEPS
        x, end = self.latents[row, k].float(), self.latents[row, k + 1].float()  # (batch, C, h, w)
        turn = (self.angles[k] - self.angles[k + 1])[:, None, None, None]
        target = (turn.cos() * x - end) / turn.sin()
        found = student(x.contiguous(memory_format=torch.channels_last), self.times[k], self.embeds[row])
        return (found.float() - target).square().mean()
