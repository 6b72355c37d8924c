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
        """Of each thing in a strip the number of its picture."""
        return [i for i, s in enumerate(self.strips) if s is not None for _ in s.boxes]

    def of_things(self) -> Conditions:
        """What the things of all strips are drawn from, each alone: of each picture the first from the picture's own noise, the
        others from other noise, so that two of a kind differ.
        """
        embeds = torch.cat([s.embeds for s in self.strips if s is not None])
        things, generators = self.things, self.generator
        if generators is not None:
            if isinstance(generators, torch.Generator):  # one for all: each picture with strips takes a seed from it
                own = {i: reseeded(generators) for i in dict.fromkeys(things)}
            else:
                own = {i: generators[i].clone_state() for i in things}
            generators = []
            for i in things:
                generators.append(own[i])
                own[i] = reseeded(own[i].clone_state())
        rows = getattr(self.guidance, "rows", None)
        kind: Any = type(self.guidance)  # of a batch of requests, with a scale for each picture
        guidance = self.guidance if rows is None else kind([float(rows[i]) for i in things])
        return Conditions(embeds, len(things), generators, self.steps, guidance)


def step_end(request: Request) -> dict[str, Any]:
    """A request's callback as diffusers takes it, which wants to be given something back."""
    callback = request.callback_on_step_end
    return {
        "callback_on_step_end": None if callback is None else lambda *now: callback(*now) or {},
        "callback_on_step_end_tensor_inputs": list(request.callback_on_step_end_tensor_inputs),
    }
