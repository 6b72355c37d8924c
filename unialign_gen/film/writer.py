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

    def __init__(self, out: Path, source: Any, seconds: float, plan: Plan):
        self.plan = plan
        self.frames = max(1, round(seconds * plan.fps))
        self.pictures: list[NDArray[np.float32]] = []
        self.first = 0  # number of the picture at pictures[0]
        self.blocks: Iterator[Tensor] = sound_blocks(source, RATE, channels=2, seconds=seconds)
        self.file = Mp4(out, plan.side, plan.side, plan.fps, sound=True)

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
            self.pictures.append(np.asarray(scaled, np.float32))
        self.write(self.first + len(self.pictures) - 1)

    def write(self, last: int) -> None:
        """The frames that lie before picture `last`, which is in memory."""
        while self.file.frames < self.frames:
            position = self.file.frames * self.plan.pictures / self.plan.fps + 1e-9
            before = int(position)
            if before >= last:
                break
            self.sound_until(self.file.frames / self.plan.fps + AHEAD)
            forget = before - self.first
            self.pictures, self.first = self.pictures[forget:], before
            share = position - before
            mixed = self.pictures[0] * (1 - share) + self.pictures[1] * share
            self.file.add(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))

    def sound_until(self, seconds: float) -> None:
        while self.file.samples < seconds * RATE:
            block = next(self.blocks, None)
            if block is None:
                break
            self.file.add_sound(block)

    def finish(self) -> None:
        """The last frames, which hold the last picture, and the rest of the sound."""
        if not self.pictures:
            raise InputError("a film needs at least one picture")
        missing = int(self.frames * self.plan.pictures / self.plan.fps) + 2 - (self.first + len(self.pictures))
        self.pictures += [self.pictures[-1]] * max(1, missing)
        self.write(self.first + len(self.pictures) - 1)
        self.sound_until(self.frames / self.plan.fps + 1)
