"""What a decoder samples from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unialign_gen.request import Request

from .beside import Strips
from .prompts import reseeded


@dataclass
class Conditions:
    """What a decoder samples from.

    Attributes:
        image_embeds: (prompts * pictures, d) at decoder scale, prompt by prompt, on the decoder's device in its dtype.
        prompts: how many prompts there are.
        generator: one a picture, or as the caller gave it.
        steps, guidance: the caller's, or the checkpoint's own.
        strips: of each picture what stands beside each other in it, at decoder scale; None where that is one thing.
    """

    image_embeds: Tensor
    prompts: int
    generator: torch.Generator | list[torch.Generator] | None
    steps: int
    guidance: float
    strips: list[Strips | None] = field(default_factory=list)

    @property
    def things(self) -> list[int]:
        """The number of the picture of every thing: first of one thing of each picture, then of those that stand beside it."""
        beside = (i for i, s in enumerate(self.strips) if s is not None for _ in s.boxes[1:])
        return [*range(len(self.image_embeds)), *beside]

    def of_things(self) -> Conditions:
        """What every thing is drawn from alone, in the order of `things`: the first of a picture from the picture's own noise,
        the others from other noise, so that two of a kind differ.
        """
        found = [(i, s.embeds) for i, s in enumerate(self.strips) if s is not None]
        first = self.image_embeds.clone()
        for i, embeds in found:
            first[i] = embeds[0]
        things, generators = self.things, self.generator
        if generators is not None:
            if isinstance(generators, torch.Generator):  # one for all: each picture takes a seed from it
                generators = [reseeded(generators) for _ in first]
            generators, last = [*generators], [*generators]
            for i in things[len(first) :]:
                last[i] = reseeded(last[i].clone_state())
                generators.append(last[i])
        rows = getattr(self.guidance, "rows", None)
        kind: Any = type(self.guidance)  # of a batch of requests, with a scale for each picture
        guidance = self.guidance if rows is None else kind([float(rows[i]) for i in things])
        every = torch.cat([first, *(embeds[1:] for _, embeds in found)])
        return Conditions(every, len(things), generators, self.steps, guidance)


def step_end(request: Request) -> dict[str, Any]:
    """A request's callback as diffusers takes it, which wants to be given something back."""
    callback = request.callback_on_step_end
    return {
        "callback_on_step_end": None if callback is None else lambda *now: callback(*now) or {},
        "callback_on_step_end_tensor_inputs": list(request.callback_on_step_end_tensor_inputs),
    }
