"""Serving many callers with one decoder: their requests are drawn together, in one denoising batch.

import unialign_gen
from unialign_gen.serving import BatchingEngine
with BatchingEngine() as engine:
    answers = [engine.submit(generate, request) for request in requests]
"""

from .batching import BatchingEngine
from .shared import SharedPipeline

__all__ = ["BatchingEngine", "SharedPipeline"]
