"""The decoders as diffusers pipelines: embeddings in, pictures out, with prompts of any modality in front.

Importing this package makes the classes known to `DiffusionPipeline.from_pretrained`, which looks for the class that a saved
pipeline names among diffusers' own.
"""

import diffusers

from .embed_scale import EmbedScale
from .kandinsky import UniAlignKandinskyPipeline
from .stable_unclip import UniAlignStableUnCLIPPipeline

__all__ = ["EmbedScale", "UniAlignKandinskyPipeline", "UniAlignStableUnCLIPPipeline"]

for _pipeline in (UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline):
    setattr(diffusers, _pipeline.__name__, _pipeline)
