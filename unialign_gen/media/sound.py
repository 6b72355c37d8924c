"""Sound: any file or array to mono samples at a wanted rate.

Samples go through four steps: floats of full scale 1, the broken ones set to zero, mixed down, resampled. The last of
them is FFmpeg's; a new resampler begins where the rate changes within a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InputError, as_input_error
from ..notes import tell
from .arrays import to_numpy

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray
    from torch import Tensor

Downmix = Literal["mean", "left"]
Piece = tuple["NDArray[np.float32]", int]  # samples (channels, n) and their rate in Hz
LISTEN_SECONDS = 30.0
WINDOWS = 3
SILENT = 1e-4  # a peak below this is no sound
LOUDEST = 64.0  # times full scale: nothing that was recorded is above
CANCELLED = 0.1  # of the energy that channels without any relation would keep in the mix
SHORTEST, SHORT = 0.01, 0.1  # seconds: refused below the one, noted below the other
TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


@dataclass
class Sound:
    """Sound that is in memory.

    Attributes:
        samples: (n,) or (channels, n), full scale 1.
        rate: in Hz.
        name: what messages call it.
    """

    samples: Tensor
    rate: int
    name: str = "the sound"


def full_scale(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any type as floats whose full scale is 1; unsigned bytes have their zero at 128."""
    kind = samples.dtype.kind
    if kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32)
    if kind == "u":
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return ((samples.astype(np.float64) - half) / half).astype(np.float32)
    if kind == "i":
        return samples.astype(np.float32) * np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
    raise InputError(f"samples must be numbers, got {samples.dtype}")


def waveform(frame: av.AudioFrame) -> NDArray[np.float32]:
    """A decoded frame as floats (channels, n)."""
    name, channels = frame.format.name, frame.layout.nb_channels
    kind = TYPES[name.removesuffix("p")]
    if frame.format.is_planar:
        return full_scale(np.stack([np.frombuffer(p, kind, frame.samples) for p in frame.planes]))
    return full_scale(np.frombuffer(frame.planes[0], kind, frame.samples * channels).reshape(-1, channels).T)


class Listener:
    """Mixes blocks of one recording down, and keeps count of what is wrong with it.

    Where channels cancel out in their mean, which recordings with a reversed plug do, the loudest is taken.

    Args:
        name: of the recording, for notes.
        downmix: `mean` of the channels, or the `left` one alone.
    """

    def __init__(self, name: str, downmix: Downmix = "mean"):
        self.name, self.downmix = name, downmix
        self.energies: NDArray[np.float64] = np.zeros(0)  # of the channels so far
        self.mixed = 0.0  # energy of their mean so far
        self.alone: tuple[int, int] | None = None  # the channel that stands for all, and of how many
        self.dropped = self.clipped = self.count = 0
        self.seconds = 0.0  # heard so far

    def mix(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """(channels, n) -> (n,) in [-1, 1]."""
        bad = ~(np.abs(block) <= LOUDEST)  # NaN compares false
        if bad.any():
            self.dropped += int(bad.sum())
            block = np.where(bad, np.float32(0), block)
        channels = len(block)
        if channels == 1 or self.downmix == "left":
            mono = block[0]
        else:
            mono = block.mean(0, dtype=np.float64)
            energies = np.square(block, dtype=np.float64).sum(1)
            if len(self.energies) != channels:
                self.energies, self.mixed = np.zeros(channels), 0.0
            self.energies, self.mixed = self.energies + energies, self.mixed + float(np.square(mono).sum())
            if self.mixed < CANCELLED * self.energies.sum() / channels**2:
                loudest = int(self.energies.argmax())
                self.alone, mono = (loudest, channels), block[loudest]
        self.count += mono.size
        self.clipped += int((np.abs(mono) > 1).sum())
        return np.clip(mono, -1, 1).astype(np.float32)

    def tell(self) -> None:
        """Notes of what was found."""
        if self.dropped:
            tell("dropped samples", name=self.name, count=self.dropped)
        if self.alone:
            tell("loud channel", name=self.name, channel=self.alone[0] + 1, channels=self.alone[1])
        if self.clipped > 0.01 * self.count:
            tell("clipped", name=self.name, share=self.clipped / self.count)

    def checked(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """All that was heard, as mono samples (n,); with the notes, also if it is silent or short."""
        self.tell()
        check_length(self.name, self.seconds, bool(len(samples)))
        if float(np.abs(samples).max()) < SILENT:
            tell("silent", name=self.name)
        return samples


def check_length(name: str, seconds: float, some: bool = True) -> None:
    """Refuses a sound that is too short to be heard; one that is too short to mean much is a note."""
    if seconds < SHORTEST or not some:
        raise InputError(f"{name} is too short to be heard: {seconds * 1000:.3g} ms")
    if seconds < SHORT:
        tell("too short", name=name, seconds=seconds)


def resampled(pieces: Iterable[Piece], rate: int, channels: int = 1) -> Iterator[NDArray[np.float32]]:
    """Blocks (channels, n) of 1 or 2 channels, whose rate may change, at `rate` Hz, clipped to [-1, 1]."""
    import av

    layout = "mono" if channels == 1 else "stereo"
    for native, alike in groupby(pieces, key=itemgetter(1)):
        resampler = av.AudioResampler("fltp", layout, rate)
        for piece in chain(alike, [None]):  # at whose end it gives what it still holds
            frame = None
            if piece is not None:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece[0]), format="fltp", layout=layout)
                frame.sample_rate = native
            for made in resampler.resample(frame):
                yield np.clip(made.to_ndarray(), -1, 1)


def gathered(pieces: Iterable[Piece], seconds: float) -> Iterator[Piece]:
    """Neighbours of the same rate and number of channels joined until there are `seconds` of them."""
    held: list[NDArray[np.float32]] = []
    native, got = 0, 0
    for samples, rate in pieces:
        if held and ((len(samples), rate) != (len(held[0]), native) or got >= seconds * rate):
            yield np.concatenate(held, 1), native
            held, got = [], 0
        native = rate
        held.append(samples)
        got += samples.shape[1]
    if held:
        yield np.concatenate(held, 1), native


def until(pieces: Iterable[Piece], seconds: float) -> Iterator[Piece]:
    """The first so many seconds."""
    left = seconds
    for samples, rate in pieces:
        wanted = samples[:, : max(0, round(min(left * rate, samples.shape[1])))]
        if wanted.shape[1]:
            yield wanted, rate
        left -= samples.shape[1] / rate
        if left <= 0:
            return


def listened(pieces: Iterable[Piece], rate: int, seconds: float, listener: Listener) -> NDArray[np.float32]:
    """Up to `seconds` of sound as mono samples (n,) at `rate` Hz."""

    def mono() -> Iterator[Piece]:
        for samples, native in gathered(until(pieces, seconds), math.inf):
            listener.seconds += samples.shape[1] / native
            yield listener.mix(samples)[None], native

    out = list(resampled(mono(), rate))
    return np.concatenate(out, 1)[0][: round(seconds * rate)] if out else np.zeros(0, np.float32)


def windows(length: float) -> list[tuple[float, float]]:
    """(start, seconds) of what is heard of so many seconds: all of up to 30 s, else 10 s at the start, middle and end."""
    if length <= LISTEN_SECONDS + 1:
        return [(0.0, LISTEN_SECONDS)]
    window = LISTEN_SECONDS / WINDOWS
    return [(i * (length - window) / (WINDOWS - 1), window) for i in range(WINDOWS)]


def check_rate(rate: Any, name: str) -> int:
    """A sampling rate as a whole number of Hz."""
    with as_input_error(f"the sampling rate of {name} must be a number of Hz, got {rate!r}", TypeError, ValueError):
        value = float(rate)
    if not 1 <= value <= 10_000_000:
        raise InputError(f"the sampling rate of {name} must be a number of Hz above 0, got {rate!r}")
    return round(value)


def samples_of(sound: Sound) -> NDArray[np.float32]:
    """The samples of a sound in memory, (channels, n) of full scale 1."""
    samples = to_numpy(sound.samples, sound.name)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise InputError(f"{sound.name} must be a non-empty array (n,) or (channels, n), got shape {samples.shape}")
    return full_scale(np.atleast_2d(samples))


def from_memory(sound: Sound, rate: int, start: float, seconds: float | None, downmix: Downmix) -> NDArray[np.float32]:
    """A sound in memory as mono samples (n,), by the same rules as a file."""
    native = check_rate(sound.rate, sound.name)
    samples = samples_of(sound)[:, round(start * native) :]
    if not samples.shape[1]:
        raise InputError(f"{sound.name} is shorter than {start:g} s, where the part is to begin")
    if seconds is not None:
        samples = samples[:, : round(seconds * native)]
    length = samples.shape[1] / native
    listener = Listener(sound.name, downmix)
    parts = [listened([(samples[:, round(at * native) :], native)], rate, wanted, listener) for at, wanted in windows(length)]
    if len(parts) > 1:
        tell("part heard", name=sound.name, length=length, heard=LISTEN_SECONDS)
    return listener.checked(np.concatenate(parts))
