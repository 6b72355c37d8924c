"""What a decoder's pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusers import ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor

from unialign_gen.notes import Note
from unialign_gen.request import Request

FROM_UNIT = VaeImageProcessor(do_normalize=False)  # pictures (B, 3, h, w) in [0, 1] to an output type


@dataclass
class PictureOutput(ImagePipelineOutput):
    """What was drawn.

    Attributes:
        images: prompt by prompt.
        notes: what was lost or guessed on the way.
        request: what was drawn, with the embeddings that its files were encoded to and the steps, guidance and seed that were
            used; `request.picture(i)` draws picture i alone.
    """

    notes: list[Note] = field(default_factory=list)
    request: Request = field(default_factory=Request)
