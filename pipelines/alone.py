"""Several things in one picture, each drawn alone at full size and then set in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.request import Request

from .best_of import sample_best
from .conditions import Conditions, request_of_rows
from .prompts import reseeded


def picture_numbers(conditions: Conditions) -> list[int]:
    """The number of the picture of every thing: first of one thing of each picture, then of those that stand beside it."""
    beside = (i for i, s in enumerate(conditions.strips) if s is not None for _ in s.boxes[1:])
    return [*range(len(conditions.image_embeds)), *beside]


def each_alone(conditions: Conditions) -> Conditions:
    """What every thing is drawn from, in the order of `picture_numbers`: the first of a picture from the picture's own noise,
    the others from other noise, so that two of a kind differ.
    """
    found = [(i, s.embeds) for i, s in enumerate(conditions.strips) if s is not None]
    first = conditions.image_embeds.clone()
    for i, embeds in found:
        first[i] = embeds[0]
    things, generators = picture_numbers(conditions), conditions.generators()
    if generators is not None:
        generators, last = [*generators], [*generators]
        for i in things[len(first) :]:
            last[i] = reseeded(last[i].clone_state())
            generators.append(last[i])
    every = torch.cat([first, *(embeds[1:] for _, embeds in found)])
    return replace(conditions.of_rows(things, generators), image_embeds=every, strips=[])


def draw_things(pipeline: Any, request: Request, conditions: Conditions) -> Tensor:
    """Every thing alone: latents (things, C, h, w) where these are asked for, else pictures (things, 3, h, w) in [0, 1].

    A callback sees the latents of the first thing of each picture.

    Raises:
        InputError: a callback that asks for more than latents.
    """
    things = picture_numbers(conditions)
    if request.callback_on_step_end is not None and set(request.callback_on_step_end_tensor_inputs) - {"latents"}:
        raise InputError("where things are drawn alone a callback can have latents, and no other tensors")
    latents = request.latents
    if latents is not None:  # moved for those beside the first, so that two of a kind differ
        number = [things[:at].count(i) for at, i in enumerate(things)]
        latents = torch.stack([latents[i].roll(3 * k, -1) for i, k in zip(things, number, strict=True)])
    kind = "latent" if request.output_type == "latent" else "pt"
    alone = request_of_rows(request, conditions, things, latents=latents, output_type=kind)
    return sample_best(pipeline, alone, each_alone(conditions))


def set_in(pipeline: Any, made: Tensor, conditions: Conditions, latent: bool) -> Tensor:
    """Pictures (B, 3, h, w), or their latents (B, C, h, w), out of those of every thing."""
    of = torch.tensor(picture_numbers(conditions), device=made.device)
    pages = made[: len(conditions.image_embeds)].clone()
    for i, s in enumerate(conditions.strips):
        if s is not None:
            page = s.set_in((pipeline.pixels_of(made[of == i]) if latent else made[of == i]).float())
            pages[i] = pipeline.latents_of(page[None])[0] if latent else page
    return pages
