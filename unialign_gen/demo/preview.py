"""What a picture will look like, from the middle of its sampling."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

SHARE = 0.1  # of the sampling time that all previews together may take


def clean_estimate(before: Tensor, after: Tensor, alpha_before: Tensor, alpha_after: Tensor) -> Tensor:
    """The clean latents that one deterministic DDIM step (Song et al. 2021, eq. 12, sigma = 0) was heading for.

    The step keeps its estimates of picture and noise: x = sqrt(a) x0 + sqrt(1 - a) e on both sides. Two equations, two
    unknowns; so the estimate needs nothing but the latents (any shape) before and after, and their cumulative alphas.
    """
    scale = (alpha_after * (1 - alpha_before)).sqrt() - (alpha_before * (1 - alpha_after)).sqrt()
    return ((1 - alpha_before).sqrt() * after - (1 - alpha_after).sqrt() * before) / scale


@torch.no_grad()
def decode_latents(pipeline: Any, latents: Tensor) -> list[Image.Image]:
    """Latents (B, C, h, w) as pictures, by the decoder's own autoencoder."""
    pictures: list[Image.Image] = VaeImageProcessor(do_normalize=False).postprocess(pipeline.pixels_of(latents))
    return pictures


class Previewer:
    """Follows one call's steps; `look` gives pictures when their share of the time allows, nothing otherwise.

    The time that a preview takes is measured, and the next one, of whichever call, waits until sampling has taken `1 / SHARE`
    of it: calls that are drawn in one batch share the time.
    """

    due: ClassVar[float] = 0.0  # when the next preview may be made

    def __init__(self, pipeline: Any):
        self.pipeline = pipeline
        self.latents: Tensor | None = None
        self.first = time.monotonic() + 0.3

    def look(self, step: int, latents: Tensor) -> list[Image.Image]:
        """After step `step`, counted from zero; latents (B, C, h, w)."""
        before, self.latents = self.latents, latents.detach().clone()
        scheduler = self.pipeline.scheduler
        last = step + 1 >= len(scheduler.timesteps)
        now = time.monotonic()
        if before is None or last or now < max(self.first, self.due):
            return []
        alphas, now_at = scheduler.alphas_cumprod.to(latents), int(scheduler.timesteps[step])
        if type(scheduler).__name__ == "DDIMScheduler":  # others add noise at each step, or scale otherwise: shown as it is
            to = max(0, now_at - scheduler.config.num_train_timesteps // scheduler.num_inference_steps)
            latents = clean_estimate(before, latents, alphas[now_at], alphas[to])
        pictures = decode_latents(self.pipeline, latents)
        after = time.monotonic()
        Previewer.due = after + (after - now) / SHARE
        return pictures
