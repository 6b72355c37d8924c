"""Choosing among pictures of a prompt the one that the image encoder reads as nearest to it (Ramesh et al. 2021)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.notes import collected
from unialign_gen.request import Prompt, Request
from unialign_gen.request.request import SEEDS

from .beside import Strips
from .output import PictureOutput
from .prompts import first_seeds, rows_of

NOT_CHOSEN = ("image_embeds", "output_type", "return_dict", "latents")  # options that do not go with `best_of`


def draw_best(pipeline: Any, count: int, request: Request) -> PictureOutput:
    """See `PromptedPipeline.draw_best`."""
    check_best(pipeline, count, request)
    if count == 1:
        drawn: PictureOutput = pipeline.draw(request)
        return drawn
    pipeline.aligner.part("image")  # before anything is drawn in vain
    with collected() as notes:
        wanted, used = pipeline.mixed(replace(request, prior_temperature=0.0), apart=True)  # (B, d)
        used = replace(used, prior_temperature=pipeline.sampled(request).prior_temperature)
        unit, found = pipeline.placed(replace(used, pictures=count), pipeline.inputs(used))
        candidates, strips = unit.split(count), pipeline.scaled(found)  # B times (count, d)
        own = request.generator
        if isinstance(own, list | tuple) and len(own) != len(unit):
            raise InputError(f"{len(own)} generators for {len(unit)} candidates: give one, or one for each")
        for name, rows in request.options.items():
            if isinstance(rows, list | tuple):  # before anything is drawn in vain
                rows_of(name, rows, len(wanted), 1)
        seeds = None if request.seed is None else first_seeds(request.seed, len(wanted), count)
        images, chosen = [], []
        for i, points in enumerate(candidates):
            mine = list(own[i * count : (i + 1) * count]) if isinstance(own, list | tuple) else own
            one = replace(used, generator=None).picture(i)
            one = replace(one, prompts=(), mix="lerp", prior_strength=None, prior_temperature=None, generator=mine)
            one = replace(one, seed=None if seeds is None else tuple((seeds[i] + j) % SEEDS for j in range(count)))
            picture, number = nearest_drawn(pipeline, points, wanted[i], one, strips[i * count : (i + 1) * count])
            images.append(picture)
            chosen.append(0 if seeds is None else (seeds[i] + number) % SEEDS)
    steps, guidance = pipeline.steps_and_guidance(request)
    used = replace(used, steps=steps, guidance=guidance, seed=None if seeds is None else tuple(chosen))
    return PictureOutput(images=images, notes=notes, request=used)


def check_best(pipeline: Any, count: int, request: Request) -> None:
    """Whether one of so many pictures of a request can be chosen."""
    plain = Request()
    for name, called in {"pictures": "num_images_per_prompt", **{n: n for n in NOT_CHOSEN}}.items():
        given = getattr(request, name)
        if given is not None and given != getattr(plain, name):
            raise InputError(f"best_of chooses one PIL picture a prompt: leave out {called}")
    if pipeline.moving:
        raise InputError("best_of chooses among pictures, and this decoder draws clips: leave it out")
    if count < 1:
        raise InputError(f"candidates must be at least 1, got {count}")


def nearest_drawn(
    pipeline: Any, points: Tensor, wanted: Tensor, request: Request, strips: list[Strips | None]
) -> tuple[Any, int]:
    """Of the pictures of embeddings (count, d) the one that is read as nearest to another embedding (d,), and its number.

    Args:
        request: all else about them, with a seed or a generator for each.
    """
    images, cosines = [], []
    for at in range(0, len(points), request.batch):
        some = slice(at, at + request.batch)
        part = replace(request, prompts=tuple((Prompt("embeds", z),) for z in points[some]))
        if isinstance(part.seed, tuple):
            part = replace(part, seed=part.seed[some])
        if isinstance(part.generator, list):
            part = replace(part, generator=part.generator[some])
        images += pipeline.draw(part, strips[some]).images
        cosines.append(pipeline.aligner.embed("image", images[some]) @ wanted.to(pipeline.aligner.place.device))
    number = int(torch.cat(cosines).argmax())
    return images[number], number
