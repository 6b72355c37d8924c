"""The decoders as diffusers pipelines: embeddings in, pictures out, with prompts of any modality in front.

Importing this package makes the classes known to `DiffusionPipeline.from_pretrained`, which looks for the class that a saved
pipeline names among diffusers' own.
"""

from typing import TYPE_CHECKING

import diffusers
from diffusers import DiffusionPipeline

from unialign_gen.lazy import lazy

from .editing import Edit, Mode
from .embed_scale import EmbedScale
from .ip_adapter import IPAdapterPipeline, MovingPipeline, adapter_class
from .kandinsky import UniAlignKandinskyPipeline
from .prior import EmbeddingPrior
from .stable_unclip import UniAlignStableUnCLIPPipeline
from .upscaler import Upscaler

if TYPE_CHECKING:
    from .modular import UniAlignEmbedStep, UniAlignMixStep

__all__ = [
    "Edit",
    "EmbedScale",
    "EmbeddingPrior",
    "IPAdapterPipeline",
    "Mode",
    "MovingPipeline",
    "UniAlignEmbedStep",
    "UniAlignKandinskyPipeline",
    "UniAlignMixStep",
    "UniAlignStableUnCLIPPipeline",
    "Upscaler",
    "adapter_class",
    "register",
]

KNOWN: dict[str, type[DiffusionPipeline]] = {}  # what `unialign_gen.load` opens, by class name


def register(pipeline: type[DiffusionPipeline]) -> None:
    """Makes a pipeline class known to `unialign_gen.load`, and to `DiffusionPipeline.from_pretrained`.

    Example:
        >>> from unialign_gen.pipelines import KNOWN, UniAlignKandinskyPipeline, register
        >>> class Mine(UniAlignKandinskyPipeline):
        ...     pass
        >>> register(Mine)
        >>> KNOWN["Mine"] is Mine
        True
    """
    KNOWN[pipeline.__name__] = pipeline
    setattr(diffusers, pipeline.__name__, pipeline)


register(UniAlignKandinskyPipeline)
register(UniAlignStableUnCLIPPipeline)

if not TYPE_CHECKING:  # the modular blocks when they are asked for: most programs need none
    __getattr__ = lazy(__name__, dict.fromkeys(("UniAlignEmbedStep", "UniAlignMixStep"), "modular"))
