"""Distillation: a decoder that draws without guidance, in fewer and longer steps, what another draws with it.

The student takes steps along its teacher's own ways from noise to picture (progressive distillation, Salimans & Ho 2022, of
guided ways, Meng et al. 2023). One noise and one embedding lead to one picture, so a long step is no mean of several, and the
student varies as its teacher does. It starts from the teacher's weights to learn steps three times as long; of another
architecture, it learns steps as long as the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from unialign_gen.output import written

from .files import progress

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
Denoise = Callable[..., Tensor]  # takes noisy latents (B, C, h, w), timesteps (B,), and conditions such as embeddings (B, d)
Conditions = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, ...]]
STEPS, GUIDANCE = 12, 4.0  # the teacher's
JUMP = 3  # how many of them a step of the student is that starts as its teacher
WAYS, CHUNK = 8192, 256  # 20 minutes on one core


@torch.no_grad()
def ways(teacher: Denoise, scheduler: DDIMScheduler, embeds: Tensor, noise: Tensor) -> Tensor:
    """Latents (B, STEPS + 1, C, h, w) from noise (B, C, h, w) to a picture, for embeddings (B, d) as the teacher takes them."""
    scheduler.set_timesteps(STEPS, noise.device)
    both, x, out = torch.cat([torch.zeros_like(embeds), embeds]), noise, [noise]
    for t in scheduler.timesteps:
        free, led = teacher(torch.cat([x, x]), t.expand(len(both)), both).chunk(2)
        x = scheduler.step(free + GUIDANCE * (led - free), t, x).prev_sample
        out.append(x)
    return torch.stack(out, 1)


class Jumps:
    """The student's task: from places of a way to later ones.

    Args:
        steps: the student's, of which each is several of the teacher's.
        folder: where ways of this teacher are kept with their embeddings, some at a time: a kill loses the last of them.
        draw: embeddings (n, d), as prompts have them, and the training pictures (n,) that they stand for.
    """

    def __init__(
        self,
        steps: int,
        folder: Path,
        teacher: Denoise,
        scheduler: DDIMScheduler,
        shape: Sequence[int],
        draw: Draw,
        device: str = "cpu",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for part in progress(range(WAYS // CHUNK), desc="ways"):
            file, generator = folder / f"{part:03}.safetensors", torch.Generator(device).manual_seed(part)
            if not file.exists():
                embeds, rows = draw(CHUNK, generator)
                noise = torch.randn(CHUNK, *shape, generator=generator, device=device)
                pairs = zip(embeds.split(64), noise.contiguous(memory_format=torch.channels_last).split(64), strict=True)
                made = torch.cat([ways(teacher, scheduler, *pair) for pair in pairs])
                with written(file) as new:
                    save_file({"embeds": embeds, "rows": rows, "latents": made.half()}, new)
            found.append(load_file(file, device))
        self.embeds, self.rows, latents = (torch.cat([part[n] for part in found]) for n in ("embeds", "rows", "latents"))
        self.latents = latents[:, :: STEPS // steps].contiguous()  # (ways, steps + 1, C, h, w)
        scheduler.set_timesteps(steps, device)
        self.times = scheduler.timesteps
        signal = scheduler.alphas_cumprod.to(device)[self.times].sqrt()
        self.angles = torch.cat([signal.acos(), signal.new_zeros(1)])  # of a noisy latent between its picture and its noise

    def loss(self, student: Denoise, conditions: Conditions, batch: int, generator: torch.Generator) -> Tensor:
        """Squared error of v in steps that end where the teacher's do.

        By angles a step is x' = cos(d) x - sin(d) v, with d the difference of the two (Salimans & Ho 2022, appendix D).
        `conditions` makes what the student takes beside latents and timesteps of embeddings (B, d) and their pictures (B,).
        """
        way = torch.randint(len(self.latents), (batch,), generator=generator, device=generator.device)
        k = torch.arange(batch, device=way.device) % len(self.times)
        x, end = self.latents[way, k].float(), self.latents[way, k + 1].float()  # (batch, C, h, w)
        turn = (self.angles[k] - self.angles[k + 1])[:, None, None, None]
        target = (turn.cos() * x - end) / turn.sin()
        seen = conditions(self.embeds[way], self.rows[way], generator)
        found = student(x.contiguous(memory_format=torch.channels_last), self.times[k], *seen)
        return (found.float() - target).square().mean()
