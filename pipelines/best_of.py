"""Of several noises the picture that the image encoder reads as nearest to what was to be drawn (Ramesh et al. 2021).

All are drawn of one embedding: what the seed chooses for a prompt stays, so that seeds differ as much as without choosing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.request import Request

from .conditions import Conditions, request_of_rows
from .output import FROM_UNIT
from .prompts import reseeded


def other(generator: torch.Generator) -> torch.Generator:
    """Another noise for what a generator's noise is for."""
    copy = generator.clone_state()
    reseeded(copy)  # which is of the thing beside it
    return reseeded(copy)


def sample_best(pipeline: Any, request: Request, conditions: Conditions) -> Tensor:
    """Pictures (B, 3, h, w) in [0, 1], or where these are asked for their latents (B, C, h, w), each the best of
    `conditions.best_of` noises: the first is that of the picture without choosing.

    At most `request.batch` are drawn at a time, but every picture once. A callback sees the latents of the first noise: once it
    has changed them, that is the one.
    """
    rows, count = list(range(len(conditions.image_embeds))), conditions.best_of
    if count == 1:
        drawn: Tensor = pipeline.sample_strips(request, conditions)
        return drawn
    steered = False

    def watched(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal steered
        assert callback is not None
        now = tensors.get("latents")
        version = now is not None and now._version
        changed = callback(pipe, step, timestep, tensors) or {}
        steered |= changed.get("latents", now) is not now or (now is not None and now._version != version)
        return changed

    callback = request.callback_on_step_end
    request = replace(request, callback_on_step_end=callback and watched)
    noises = [conditions.generators()]
    while len(noises) < count:
        noises.append(noises[-1] and [other(generator) for generator in noises[-1]])
    together, best, latent = max(1, request.batch // len(rows)), list[tuple[Tensor, Tensor]](), request.output_type == "latent"
    for at in range(0, count, together):
        part = noises[at : at + together]
        joint = conditions.of_rows(rows * len(part), [g for some in part for g in some or ()] or None)
        made = pipeline.sample_strips(request_of_rows(request, conditions, rows * len(part), output_type="latent"), joint)
        pictures = pipeline.pixels_of(made)  # noise by noise, (n * B, 3, h, w)
        if steered:
            return (made if latent else pictures)[: len(rows)]
        seen = pipeline.aligner.embed("image", FROM_UNIT.postprocess(pictures, "pil"))  # (n * B, d)
        near = (seen * F.normalize(joint.image_embeds.to(seen), dim=1)).sum(1)  # (n * B,)
        best.append((near, made if latent else pictures))
        near, made = (torch.cat(parts).unflatten(0, (-1, len(rows))) for parts in zip(*best, strict=True))  # (n + 1, B, ...)
        top = near.argmax(0), torch.arange(len(rows), device=near.device)
        best = [(near[top], made[top])]
    return best[0][1]
