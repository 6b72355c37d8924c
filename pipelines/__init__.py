"""The decoders as diffusers pipelines: embeddings in, pictures out, with prompts of any modality in front.

Importing this package makes the classes known to `DiffusionPipeline.from_pretrained`, which looks for the class that a saved
pipeline names among diffusers' own.
"""

from typing import TYPE_CHECKING, Any

import diffusers

from .embed_scale import EmbedScale
from .kandinsky import UniAlignKandinskyPipeline
from .prior import EmbeddingPrior
from .stable_unclip import UniAlignStableUnCLIPPipeline

if TYPE_CHECKING:
    from .modular import UniAlignEmbedStep, UniAlignMixStep

__all__ = [
    "EmbedScale",
    "EmbeddingPrior",
    "UniAlignEmbedStep",
    "UniAlignKandinskyPipeline",
    "UniAlignMixStep",
    "UniAlignStableUnCLIPPipeline",
]

for _pipeline in (UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline):
    setattr(diffusers, _pipeline.__name__, _pipeline)


def __getattr__(name: str) -> Any:
    """The modular blocks, imported when they are asked for: most programs need none."""
    if name in ("UniAlignEmbedStep", "UniAlignMixStep"):
        from . import modular

        return getattr(modular, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
