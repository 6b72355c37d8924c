"""What a decoder samples from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unialign_gen.request import Request

from .beside import Strips


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


def step_end(request: Request) -> dict[str, Any]:
    """A request's callback as diffusers takes it, which wants to be given something back."""
    callback = request.callback_on_step_end
    return {
        "callback_on_step_end": None if callback is None else lambda *now: callback(*now) or {},
        "callback_on_step_end_tensor_inputs": list(request.callback_on_step_end_tensor_inputs),
    }
