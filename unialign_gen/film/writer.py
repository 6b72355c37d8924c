"""Pictures and a recording to one film, written as they come, neither held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..media import sound_blocks
from .mp4 import RATE, Mp4
from .plan import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

AHEAD = 0.5  # seconds by which the sound is written before the picture


class FilmWriter(AbstractContextManager["FilmWriter"]):
    """A film of `seconds` under way: `add` takes its pictures in order, `plan.pictures` a second; frames between them fade.

    Raises:
        InputError: `out` cannot be written.
    """

    def __init__(self, out: str | Path, source: Any, seconds: float, plan: Plan):
        self.plan = plan
        self.frames = max(1, round(seconds * plan.fps))
        self.last: NDArray[np.float32] | None = None
        self.pictures = 0  # that came so far
        self.blocks: Iterator[Tensor] = sound_blocks(source, RATE, channels=2, seconds=seconds)
        self.file = Mp4(Path(out), plan.side, plan.side, plan.fps, sound=True)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.file.__exit__(kind, *rest)
        else:
            with self.file:
                self.finish()

    def add(self, pictures: Sequence[Image.Image]) -> None:
        """The next pictures, of any size."""
        side = self.plan.side
        for picture in pictures:
            scaled = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            self.fade(np.asarray(scaled, np.float32))

    def fade(self, picture: NDArray[np.float32]) -> None:
        """The frames from the last picture to this one, (side, side, 3)."""
        while self.last is not None and self.file.frames < self.frames:
            share = self.file.frames * self.plan.pictures / self.plan.fps + 1e-9 - (self.pictures - 1)
            if share >= 1:
                break
            self.sound_until(self.file.frames / self.plan.fps + AHEAD)
            mixed = self.last * (1 - share) + picture * share
            self.file.add(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))
        self.last, self.pictures = picture, self.pictures + 1

    def sound_until(self, seconds: float) -> None:
        while self.file.samples < seconds * RATE:
            block = next(self.blocks, None)
            if block is None:
                break
            self.file.add_sound(block)

    def finish(self) -> None:
        """The last frames, which hold the last picture, and the rest of the sound."""
        if self.last is None:
            raise InputError("a film needs at least one picture")
        while self.file.frames < self.frames:
            self.fade(self.last)
        self.sound_until(self.frames / self.plan.fps + 1)
