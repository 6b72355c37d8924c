"""What a decoder samples from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.request import Request

from .beside import Strips
from .prompts import reseeded, rows_of


@dataclass
class Conditions:
    """What a decoder samples from.

    Attributes:
        image_embeds: (prompts * pictures, d) at decoder scale, prompt by prompt, on the decoder's device in its dtype.
        prompts: how many prompts there are.
        generator: one a picture, or as the caller gave it.
        steps, guidance: the caller's, or the checkpoint's own.
        strips: of each picture what stands beside each other in it, at decoder scale; None where that is one thing.
        best_of: from how many noises each picture is drawn, one of which is kept.
    """

    image_embeds: Tensor
    prompts: int
    generator: torch.Generator | list[torch.Generator] | None
    steps: int
    guidance: float
    strips: list[Strips | None] = field(default_factory=list)
    best_of: int = 1

    def of_rows(self, rows: Sequence[int], generator: list[torch.Generator] | None) -> Conditions:
        """Those of these pictures, each of which may come several times, with noise of its own."""
        guidance = self.guidance
        if (scales := getattr(guidance, "rows", None)) is not None:  # of a batch of requests, with a scale for each picture
            kind: Any = type(guidance)
            guidance = kind([float(scales[i]) for i in rows])
        strips = [self.strips[i] for i in rows] if self.strips else []
        own = self.image_embeds[[*rows]], len(rows), generator, self.steps, guidance, strips
        return Conditions(*own, best_of=self.best_of)

    def generators(self) -> list[torch.Generator] | None:
        """One a picture; None where their noise may start anywhere."""
        if isinstance(self.generator, torch.Generator):  # one for all: each picture takes a seed from it
            return [reseeded(self.generator) for _ in self.image_embeds]
        return self.generator


def check_sides(request: Request, multiple: int) -> None:
    """Whether a request's height and width, where it has them, are multiples of so many pixels; an `InputError` names the
    nearest that are.
    """
    sides = [side for side in (request.height, request.width) if side is not None]
    if any(side % multiple for side in sides):
        got, near = (" and ".join(map(str, some)) for some in (sides, [max(1, round(s / multiple)) * multiple for s in sides]))
        raise InputError(f"height and width must be multiples of {multiple}, such as {near}, got {got}")


def checked_latents(pipeline: Any, request: Request, count: int) -> Tensor | None:
    """The latents of a request at the decoder's own size, on its device in its dtype; diffusers takes their size before the
    pictures'.

    Raises:
        InputError: they are not one for each picture, or of another size, or not finite.
    """
    latents, unet = request.latents, getattr(pipeline, "unet", None)
    if latents is None or unet is None:
        return latents
    height, width = ((side or pipeline.sample_side) // pipeline.latent_factor for side in (request.height, request.width))
    wanted = [count, unet.config.in_channels, *(["frames"] if pipeline.moving else []), height, width]
    got: Any = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
    if len(got) != len(wanted) or not all(w in (side, "frames") for w, side in zip(wanted, got, strict=True)):
        raise InputError(f"latents must be a tensor ({', '.join(map(str, wanted))}), one for each picture, got {got}")
    if not torch.isfinite(latents).all():
        raise InputError("latents hold NaN or infinite values")
    return latents.to(pipeline._execution_device, pipeline.decoder_dtype)


def step_end(request: Request) -> dict[str, Any]:
    """A request's callback as diffusers takes it, which wants to be given something back."""
    callback = request.callback_on_step_end
    return {
        "callback_on_step_end": None if callback is None else lambda *now: callback(*now) or {},
        "callback_on_step_end_tensor_inputs": list(request.callback_on_step_end_tensor_inputs),
    }


def request_of_rows(request: Request, conditions: Conditions, rows: Sequence[int], **changed: Any) -> Request:
    """The request of these pictures, see `Conditions.of_rows`: each has its prompt's words, and a callback sees the latents of
    as many as the conditions are of, the first.
    """
    callback, count = request.callback_on_step_end, len(conditions.image_embeds)
    asked = bool(request.callback_on_step_end_tensor_inputs)
    options = dict(request.options)
    for name, given in request.options.items():
        if isinstance(given, list | tuple):  # words of each prompt
            words = rows_of(name, given, conditions.prompts, request.pictures)
            options[name] = [words[i] for i in rows]

    def step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        every = tensors["latents"]
        assert callback is not None
        changed = callback(pipe, step, timestep, {"latents": every[:count]} if asked else {}) or {}
        return {"latents": torch.cat([changed.get("latents", every[:count]), every[count:]])}

    own = {"callback_on_step_end": callback and step_end, "callback_on_step_end_tensor_inputs": ("latents",)}
    return replace(request, **{"prompts": (), "pictures": 1, "options": options, **own, **changed})
