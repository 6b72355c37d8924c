"""Pictures and a recording to one MP4, written as they come: H.264 and AAC, neither held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from .errors import InputError
from .media import Source, sound_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .film import Plan

RATE = 44100
AHEAD = 0.5  # seconds by which the sound is written before the picture


class FilmWriter:
    """A film of `seconds` under way: `add` takes its pictures in order, `plan.pictures` a second; frames between them fade.

    Raises:
        InputError: `out` cannot be written.
    """

    def __init__(self, out: Path, source: Source, seconds: float, plan: Plan):
        import av

        self.plan = plan
        self.frames = max(1, round(seconds * plan.fps))
        self.written = 0
        self.pictures: list[NDArray[np.float32]] = []
        self.first = 0  # number of the picture at pictures[0]
        self.blocks: Iterator[Tensor] = sound_blocks(source, RATE, channels=2, seconds=seconds)
        self.heard = 0  # samples
        try:
            self.container = av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{out} cannot be written") from error
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self.video: Any = self.container.add_stream(codec, rate=plan.fps)
        self.video.width = self.video.height = plan.side
        self.video.pix_fmt = "yuv420p"
        self.audio: Any = self.container.add_stream("aac", rate=RATE, layout="stereo")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.container.close()

    def add(self, pictures: Sequence[Image.Image]) -> None:
        """The next pictures, of any size."""
        side = self.plan.side
        for picture in pictures:
            scaled = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            self.pictures.append(np.asarray(scaled, np.float32))
        self.write(self.first + len(self.pictures) - 1)

    def write(self, last: int) -> None:
        """The frames that lie before picture `last`, which is in memory."""
        import av

        while self.written < self.frames:
            position = self.written * self.plan.pictures / self.plan.fps + 1e-9
            before = int(position)
            if before >= last:
                break
            self.sound_until(self.written / self.plan.fps + AHEAD)
            forget = before - self.first
            self.pictures, self.first = self.pictures[forget:], before
            share = position - before
            mixed = self.pictures[0] * (1 - share) + self.pictures[1] * share
            frame = av.VideoFrame.from_ndarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts = self.written
            self.container.mux(self.video.encode(frame))
            self.written += 1

    def sound_until(self, seconds: float) -> None:
        import av

        while self.heard < seconds * RATE:
            block = next(self.blocks, None)
            if block is None:
                break
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.numpy()), "fltp", "stereo")
            frame.sample_rate, frame.pts = RATE, self.heard
            self.heard += block.shape[1]
            self.container.mux(self.audio.encode(frame))

    def finish(self) -> None:
        """The last frames, which hold the last picture, and the rest of the sound."""
        if not self.pictures:
            raise InputError("a film needs at least one picture")
        missing = int(self.frames * self.plan.pictures / self.plan.fps) + 2 - (self.first + len(self.pictures))
        self.pictures += [self.pictures[-1]] * max(1, missing)
        self.write(self.first + len(self.pictures) - 1)
        self.sound_until(self.frames / self.plan.fps + 1)
        self.container.mux(self.video.encode(None))
        self.container.mux(self.audio.encode(None))
