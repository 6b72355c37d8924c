"""The decoders as diffusers pipelines: embeddings in, pictures out, with prompts of any modality in front."""

from .embed_scale import EmbedScale
from .kandinsky import UniAlignKandinskyPipeline

__all__ = ["EmbedScale", "UniAlignKandinskyPipeline"]
