"""Several requests in one denoising batch: seeds, guidance, words and callbacks stay each request's own."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor

from ..errors import InputError
from ..notes import Note, collected, note
from ..pipelines.conditions import Conditions
from ..pipelines.output import PictureOutput
from ..pipelines.prompted import PromptedPipeline
from ..pipelines.prompts import rows_of
from ..request import Prompt, Request

DECODED = 4  # pictures at a time
WORDS = ("decoder_prompt", "negative_decoder_prompt")  # options that may differ from row to row


class RowGuidance(float):
    """A guidance scale for each row of a batch where diffusers takes one number (Ho & Salimans 2022, eq. 6).

    It multiplies rows (B, C, h, w) by their own scale. As a number it is the smallest: `guidance > 1` holds for all or none.
    """

    rows: Tensor

    def __new__(cls, rows: Sequence[float]) -> RowGuidance:
        made = super().__new__(cls, min(rows))
        made.rows = torch.tensor(rows).view(-1, 1, 1, 1)
        return made

    def __mul__(self, other: Any) -> Any:
        return self.rows.to(other) * other


Known = dict[tuple[str, str], tuple[Prompt, list[Note]]]  # by modality and text or file


class AllStoppedError(Exception):
    """Every request of a batch was stopped by its own callback."""


@dataclass
class Member:
    """A request of a batch: what it samples from, as it was used, and what became of it."""

    request: Request
    used: Request
    conditions: Conditions
    notes: list[Note]
    error: Exception | None = field(default=None)

    @classmethod
    def of(cls, pipeline: PromptedPipeline, request: Request, known: Known) -> Member:
        """Encodes the prompts; notes go to whoever collects them here.

        Args:
            known: what requests of the same batch had encoded, which grows.

        Raises:
            InputError: something in the request that cannot be used.
        """
        with collected() as notes:
            conditions, used = pipeline.conditions(encoded_once(pipeline, request, known))
        return cls(request, used, conditions, notes)

    def words(self, name: str) -> list[str]:
        """An option of words, one a picture; an `InputError` for a list that does not fit the prompts."""
        return rows_of(name, self.request.options.get(name), self.conditions.prompts, self.request.pictures)


def encoded_once(pipeline: PromptedPipeline, request: Request, known: Known) -> Request:
    """The request with its texts and files encoded, but for those that another request of the batch had encoded already,
    whose notes are told again.
    """

    def encoded(prompt: Prompt) -> Prompt:
        if prompt.kind == "embeds" or prompt.embedding is not None or not isinstance(prompt.value, str):
            return prompt
        key = prompt.kind, prompt.value
        if key not in known:
            with collected() as notes:
                ready = pipeline.encoded(replace(request, prompts=((prompt,),)))
            known[key] = ready.prompts[0][0], notes
        else:
            for found in known[key][1]:
                note(found.kind, found.text)
        return replace(prompt, embedding=known[key][0].embedding)

    return replace(request, prompts=tuple(tuple(map(encoded, row)) for row in request.prompts))


def batch_key(pipeline: PromptedPipeline, request: Request) -> Hashable:
    """What requests must have in common to be drawn together; None for one that is always drawn alone."""
    shared = {k: v for k, v in request.options.items() if k not in WORDS}
    if (
        request.generator is not None
        or request.latents is not None
        or set(request.options) - set(pipeline.decoder_options)
        or not all(isinstance(v, int | float) for v in shared.values())
        or request.callback_on_step_end_tensor_inputs != ("latents",)
    ):
        return None
    try:
        steps, guidance = pipeline.steps_and_guidance(request)
        best_of = pipeline.candidates(request)
    except InputError:  # which drawing it says
        return None
    size = (request.height, request.width, request.upscale, request.output_type)
    negative = "negative_decoder_prompt" in request.options  # none is not the same as no words, to SDXL
    return id(pipeline), steps, guidance > 1, best_of, negative, *size, *sorted(shared.items())


def picture_count(request: Request) -> int:
    """How many pictures a request asks for."""
    prompts = len(request.prompts) if request.image_embeds is None else len(request.image_embeds)
    return prompts * request.pictures


@contextmanager
def for_batches(pipeline: Any) -> Iterator[None]:
    """Inside, latents are decoded `DECODED` at a time, which bounds the memory."""
    autoencoder = pipeline.movq if hasattr(pipeline, "movq") else pipeline.vae
    whole = autoencoder.decode

    def decode(latents: Tensor, *args: Any, **options: Any) -> Any:
        parts = [whole(some, *args, **options) for some in latents.split(DECODED)]  # each of a tensor (b, 3, H, W)
        pixels = torch.cat([part[0] for part in parts])
        return (pixels,) if isinstance(parts[0], tuple) else DecoderOutput(sample=pixels)

    autoencoder.decode = decode
    try:
        yield
    finally:
        del autoencoder.decode


@torch.no_grad()
def draw_together(pipeline: PromptedPipeline, members: Sequence[Member]) -> list[PictureOutput | Exception]:
    """Draws requests of one `batch_key` in one batch, up to rounding what each gives alone.

    Returns for each request what was drawn, or what its callback raised; a callback sees its own rows of the latents.

    Raises:
        ValueError: the decoder refuses what they have in common.
    """
    ends = list(accumulate((len(m.conditions.image_embeds) for m in members), initial=0))
    spans = [slice(a, b) for a, b in pairwise(ends)]
    guidance = [m.conditions.guidance for m in members for _ in m.conditions.image_embeds]
    joint = Conditions(
        image_embeds=torch.cat([m.conditions.image_embeds for m in members]),  # (B, d)
        prompts=ends[-1],
        generator=[g for m in members for g in m.conditions.generators() or ()],
        steps=members[0].conditions.steps,
        guidance=RowGuidance(guidance),
        strips=[s for m in members for s in m.conditions.strips or [None] * len(m.conditions.image_embeds)],
        best_of=members[0].conditions.best_of,
    )
    options = {k: v for k, v in members[0].request.options.items() if k not in WORDS}
    for name in WORDS:
        if any(name in m.request.options for m in members):
            options[name] = [row for m in members for row in m.words(name)]

    def step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = tensors["latents"]
        first = step % len(members)  # each in turn is asked first, so that what they share is shared evenly
        for member, span in [*zip(members, spans, strict=True)][first:] + [*zip(members, spans, strict=True)][:first]:
            callback = member.request.callback_on_step_end
            if callback is None or member.error is not None:
                continue
            own = latents[span]
            try:
                changed = (callback(pipe, step, timestep, {"latents": own}) or {}).get("latents", own)
            except Exception as error:  # ends this request, not those of others
                member.error = error
                continue
            if changed is not own:
                latents = latents.clone()
                latents[span] = changed
        if all(m.error is not None for m in members):
            raise AllStoppedError
        return {"latents": latents}

    watched = any(m.request.callback_on_step_end is not None for m in members)
    request = replace(
        members[0].request,
        prompts=(),
        image_embeds=None,
        seed=None,
        pictures=1,
        options=options,
        callback_on_step_end=step_end if watched else None,
    )
    try:
        with for_batches(pipeline):
            images = pipeline.upscaled(request, joint)
    except AllStoppedError:
        images = [None] * ends[-1]
    return [
        pipeline.looked_at(images[span], m.notes, m.used, m.conditions) if m.error is None else m.error
        for m, span in zip(members, spans, strict=True)
    ]
