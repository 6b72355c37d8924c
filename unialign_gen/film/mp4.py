"""An MP4 or WebM file, written as its parts come: H.264 and AAC, or VP8 and Opus."""

from __future__ import annotations

from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, as_input_error
from ..media.files import ffmpeg_name

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

RATE = 44100


class Mp4(AbstractContextManager["Mp4"]):
    """Frames of one size at `fps` a second; odd sizes lose a row or column, which the codecs' colours need in pairs.

    Args:
        out: a WebM file by its suffix, else an MP4 file.
        sound: whether there is a stereo track; its samples come at `RATE` Hz.

    Raises:
        InputError: `out` cannot be written, or a side is a single pixel.
    """

    def __init__(self, out: Path, width: int, height: int, fps: float, sound: bool = False):
        import av

        if min(width, height) < 2:
            raise InputError(f"a film's pictures need 2 x 2 pixels, got {width} x {height}")
        webm = out.suffix.lower() == ".webm"
        options = {} if webm else {"movflags": "+faststart"}
        with as_input_error(f"{out} cannot be written", av.FFmpegError, OSError):
            self.container = av.open(ffmpeg_name(out), "w", format="webm" if webm else "mp4", options=options)
        codec = "libvpx" if webm else "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self.video: Any = self.container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        if webm:  # as good as H.264's default here, and as fast as the pictures come
            self.video.bit_rate, self.video.options = 1_500_000, {"deadline": "realtime", "cpu-used": "8"}
        elif codec == "libx264":  # its macroblock tree reads memory that nobody wrote: other bytes for the same film
            self.video.options = {"x264-params": "mbtree=0"}
        self.video.width, self.video.height, self.video.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        heard = {"codec_name": "libopus", "rate": 48_000} if webm else {"codec_name": "aac", "rate": RATE}
        self.audio: Any = self.container.add_stream(**heard, layout="stereo") if sound else None
        self.frames = self.samples = 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.container.mux(self.video.encode(None))
                if self.audio is not None:
                    self.container.mux(self.audio.encode(None))
        finally:
            self.container.close()

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """The next frame, (height, width, 3)."""
        import av

        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[: self.video.height, : self.video.width]), format="rgb24"
        )
        frame.pts = self.frames
        self.frames += 1
        self.container.mux(self.video.encode(frame))

    def add_sound(self, block: Tensor) -> None:
        """The next samples, (2, n)."""
        import av

        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.numpy()), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.samples, Fraction(1, RATE)
        self.samples += block.shape[1]
        self.container.mux(self.audio.encode(frame))
