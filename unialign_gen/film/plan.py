"""How a recording becomes a film."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError

SHORTEST = 0.1  # seconds of sound in which something can be heard


@dataclass(frozen=True)
class Plan:
    """How a recording becomes a film; times in seconds.

    Attributes:
        window, hop: length of what is heard for one moment, and the time from one moment to the next.
        smooth: standard deviation of the kernel over time; larger is calmer.
        pictures: pictures drawn for each second; between them the film fades.
        fps: frames a second of the film.
        side: width and height of the film in pixels.
        seconds: only so much of the recording, from its start; all of it by default.
        longest: a recording that is longer is refused.
        batch: pictures drawn at a time, which bounds the memory.
    """

    window: float = 2.3
    hop: float = 0.5
    smooth: float = 0.5
    pictures: float = 6.0
    fps: float = 24
    side: int = 512
    seconds: float | None = None
    longest: float = 600.0
    batch: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a number above zero, got {value}")
        if self.window < SHORTEST:
            raise InputError(f"window must be at least {SHORTEST} s, got {self.window:g}")
        if self.pictures > self.fps:
            raise InputError(f"{self.pictures:g} pictures a second need at least as many frames a second, got {self.fps:g}")
        if self.side % 2:
            raise InputError(f"side must be an even number of pixels, got {self.side}")
