"""Several things in one picture, each drawn alone at full size and then set in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.request import Request

from .conditions import Conditions
from .prompts import reseeded, rows_of


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
    things, generators, guidance = picture_numbers(conditions), conditions.generator, conditions.guidance
    if generators is not None:
        if isinstance(generators, torch.Generator):  # one for all: each picture takes a seed from it
            generators = [reseeded(generators) for _ in first]
        generators, last = [*generators], [*generators]
        for i in things[len(first) :]:
            last[i] = reseeded(last[i].clone_state())
            generators.append(last[i])
    if (rows := getattr(guidance, "rows", None)) is not None:  # of a batch of requests, with a scale for each picture
        kind: Any = type(guidance)
        guidance = kind([float(rows[i]) for i in things])
    every = torch.cat([first, *(embeds[1:] for _, embeds in found)])
    return Conditions(every, len(things), generators, conditions.steps, guidance)


def draw_things(pipeline: Any, request: Request, conditions: Conditions) -> Tensor:
    """Every thing alone: latents (things, C, h, w) where these are asked for, else pictures (things, 3, h, w) in [0, 1].

    A callback sees the latents of the first thing of each picture.

    Raises:
        InputError: a callback that asks for more than latents.
    """
    things, callback, count = picture_numbers(conditions), request.callback_on_step_end, len(conditions.image_embeds)
    asked = set(request.callback_on_step_end_tensor_inputs)
    if callback is not None and asked - {"latents"}:
        raise InputError("where things are drawn alone a callback can have latents, and no other tensors")
    options = dict(request.options)
    for name, rows in request.options.items():
        if isinstance(rows, list | tuple):  # words of each prompt
            words = rows_of(name, rows, conditions.prompts, request.pictures)
            options[name] = [words[i] for i in things]
    latents = request.latents
    if latents is not None:  # moved for those beside the first, so that two of a kind differ
        number = [things[:at].count(i) for at, i in enumerate(things)]
        latents = torch.stack([latents[i].roll(3 * k, -1) for i, k in zip(things, number, strict=True)])

    def step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        every = tensors["latents"]
        assert callback is not None
        changed = callback(pipe, step, timestep, {"latents": every[:count]} if asked else {}) or {}
        return {"latents": torch.cat([changed.get("latents", every[:count]), every[count:]])}

    alone = replace(
        request,
        prompts=(),
        pictures=1,
        options=options,
        latents=latents,
        callback_on_step_end=callback and step_end,
        callback_on_step_end_tensor_inputs=("latents",),
        output_type="latent" if request.output_type == "latent" else "pt",
    )
    drawn: Tensor = pipeline.sample(alone, each_alone(conditions))
    return drawn


def set_in(pipeline: Any, made: Tensor, conditions: Conditions, latent: bool) -> Tensor:
    """Pictures (B, 3, h, w), or their latents (B, C, h, w), out of those of every thing."""
    of = torch.tensor(picture_numbers(conditions), device=made.device)
    pages = made[: len(conditions.image_embeds)].clone()
    for i, s in enumerate(conditions.strips):
        if s is not None:
            page = s.set_in((pipeline.pixels_of(made[of == i]) if latent else made[of == i]).float())
            pages[i] = pipeline.latents_of(page[None])[0] if latent else page
    return pages
