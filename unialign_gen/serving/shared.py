"""A pipeline that several threads use at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

from ..aligner import Aligner
from ..pipelines.output import PictureOutput
from ..pipelines.prompted import PromptedPipeline
from ..request import Request
from ..request.arguments import takes_request
from .batching import BatchingEngine

WAIT = 0.25  # seconds between two looks whether the caller still wants its pictures


class Serial:
    """A stand-in for an object: its methods run one at a time, on the engine's thread."""

    def __init__(self, target: Any, engine: BatchingEngine):
        self._target, self._engine = target, engine

    def __getattr__(self, name: str) -> Any:
        value = self._engine.call(lambda: getattr(self._target, name))
        if isinstance(value, Aligner):
            return Serial(value, self._engine)
        if inspect.ismethod(value):
            return lambda *args, **options: self._engine.call(lambda: value(*args, **options))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._engine.call(lambda: setattr(self._target, name, value))

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._engine.call(lambda: self._target(*args, **options))


class SharedPipeline(Serial):
    """A pipeline for many threads: drawings of theirs share batches, everything else is done in turn.

    Args:
        pipeline: one that no other thread uses by itself.
        check: called while a drawing waits; it may raise to give it up.

    Example:
        >>> import unialign_gen
        >>> with BatchingEngine() as engine:
        ...     generate = SharedPipeline(unialign_gen.load("starter"), engine)
        ...     generate(text="a cat", seed=0, num_inference_steps=1).images[0].size
        (512, 512)
    """

    def __init__(self, pipeline: PromptedPipeline, engine: BatchingEngine, check: Callable[[], None] = lambda: None):
        super().__init__(pipeline, engine)
        self._check = check

    def draw(self, request: Request) -> PictureOutput:
        """As the pipeline's own `draw`."""
        future = self._engine.submit(self._target, request)
        while not wait([future], WAIT).done:
            try:
                self._check()
            except BaseException:
                future.cancel()
                raise
        return future.result()

    @takes_request
    def __call__(self, request: Request) -> Any:
        """As a call of the pipeline."""
        out = self.draw(request)
        return out if request.return_dict else (out.images,)
