"""The only place that opens a media file: pictures through Pillow, sound and video through PyAV (FFmpeg).

What a file is follows from its content, never from its name. Every failure to decode is one `InputError`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import InputError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

Source = str | Path
LISTEN_SECONDS = 30.0
WINDOWS = 3
MAX_PIXELS = 100_000_000
CONTAINER_OPTIONS: dict[str, str] = {}  # FFmpeg's, for every file; a process that reads strangers' files narrows them


@dataclass
class Sound:
    """Mono samples (n,) in [-1, 1] and their rate in Hz, for sound that is already in memory."""

    samples: Tensor
    rate: int


@dataclass
class Clip:
    """What is taken from a video: its sampled frames and, if it has a sound track, the sound."""

    frames: list[Image.Image]
    sound: Tensor | None


def check_file(source: Source) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"no such file: {source}")
    if path.is_dir():
        raise InputError(f"{source} is a folder, not a file")
    if path.stat().st_size == 0:
        raise InputError(f"{source} is empty (0 bytes)")
    return path


def load_image(source: Source | Image.Image) -> Image.Image:
    """An upright RGB picture: EXIF rotation applied, transparency laid on white, the first frame of an animation.

    Raises:
        InputError: the file is missing, empty, no picture, cut off, or larger than 100 megapixels.
    """
    if isinstance(source, Image.Image):
        return flatten(source)
    path = check_file(source)
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(f"{source} has {picture.width} x {picture.height} pixels: at most 100 megapixels are read")
            return flatten(picture)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{source} is not a picture that can be read") from error
    except Exception as error:  # Pillow's decoders raise whatever their formats' parsers raise
        raise InputError(f"{source} is a damaged picture: {error}") from error


def flatten(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        page = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(page, picture).convert("RGB")
    if picture.mode in ("I", "I;16", "I;16B", "F"):  # 16 bit and float: Pillow's own conversion clips instead of scaling
        low, high = (float(str(v)) for v in picture.getextrema())
        scale = 255 / max(high - low, 1e-9)
        picture = picture.convert("F").point(lambda v: v * scale - low * scale)
        return picture.convert("L").convert("RGB")
    return picture.convert("RGB")


@contextmanager
def opened(source: Source) -> Iterator[InputContainer]:
    """An open container, every FFmpeg failure inside turned into an `InputError`."""
    import av

    path = check_file(source)
    av.logging.set_level(av.logging.PANIC)
    try:
        with av.open(str(path), metadata_errors="replace", options=dict(CONTAINER_OPTIONS)) as container:
            yield container
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        reason = str(error).split(":")[0]
        raise InputError(f"{source} is not a sound or video file that can be read ({reason})") from error


def seconds_of(container: InputContainer, stream: Any) -> float | None:
    """Length in seconds, from the stream or the container, where either says."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def load_sound(source: Source | Sound, rate: int) -> Tensor:
    """Mono samples (n,) at `rate` Hz, in [-1, 1]; at most 30 s.

    Of a longer recording three stretches of 10 s are decoded, at its start, middle and end, so that an hour costs what
    half a minute does. Silence is returned as it is, with a warning.

    Raises:
        InputError: no sound in the file, or it cannot be decoded.
    """
    if isinstance(source, Sound):
        samples = resample(source, rate)
    else:
        with opened(source) as container:
            if not container.streams.audio:
                raise InputError(f"{source} has no sound")
            samples = read_sound(container, rate, str(source))
    if float(samples.abs().max()) < 1e-4:
        warnings.warn(f"{source if not isinstance(source, Sound) else 'the sound'} is silent", stacklevel=2)
    return samples


def resample(sound: Sound, rate: int) -> Tensor:
    import av

    samples = torch.as_tensor(sound.samples).float()
    if samples.ndim != 1 or len(samples) == 0:
        raise InputError(f"a sound must be a non-empty vector of samples, got shape {tuple(samples.shape)}")
    if not torch.isfinite(samples).all():
        raise InputError("a sound holds NaN or infinite samples")
    samples = samples[: int(LISTEN_SECONDS * sound.rate)]
    frame = av.AudioFrame.from_ndarray(samples.numpy()[None], format="fltp", layout="mono")
    frame.sample_rate = sound.rate
    resampler = av.AudioResampler("fltp", "mono", rate)
    return gather([*resampler.resample(frame), *resampler.resample(None)])


def gather(frames: Sequence[av.AudioFrame]) -> Tensor:
    parts = [torch.from_numpy(f.to_ndarray().copy()).reshape(-1) for f in frames]
    return torch.nan_to_num(torch.cat(parts)) if parts else torch.zeros(0)


def read_sound(container: InputContainer, rate: int, name: str) -> Tensor:
    stream = container.streams.audio[0]
    length = seconds_of(container, stream)
    if length is None or length <= LISTEN_SECONDS + 1:
        samples = stretch(container, stream, rate, None, LISTEN_SECONDS)
    else:
        window = LISTEN_SECONDS / WINDOWS
        starts = [i * (length - window) / (WINDOWS - 1) for i in range(WINDOWS)]
        samples = torch.cat([stretch(container, stream, rate, at, window) for at in starts])
    if len(samples) == 0:
        raise InputError(f"{name}: its sound cannot be decoded (damaged or cut off)")
    return samples


def stretch(container: InputContainer, stream: Any, rate: int, start: float | None, seconds: float) -> Tensor:
    """Up to `seconds` of sound from `start`; stops quietly where the data stops, as players do."""
    import av

    if start is not None:
        container.seek(int(start * 1_000_000))
    resampler = av.AudioResampler("fltp", "mono", rate)
    frames: list[av.AudioFrame] = []
    wanted = int(seconds * rate)
    got = 0
    try:
        for frame in container.decode(stream):
            for piece in resampler.resample(frame):
                frames.append(piece)
                got += piece.samples
            if got >= wanted:
                break
        else:
            frames += resampler.resample(None)
    except av.FFmpegError:
        if not frames:
            raise
    return gather(frames)[:wanted]


def sound_blocks(source: Source, rate: int, channels: int = 1, seconds: float | None = None) -> Iterator[Tensor]:
    """The sound from its start in blocks (channels, n) at `rate` Hz, one or two channels, at most `seconds` of it.

    Holds one block at a time; stops quietly where the data stops, as players do.

    Raises:
        InputError: no sound in the file, or none of it can be decoded.
    """
    import av

    with opened(source) as container:
        if not container.streams.audio:
            raise InputError(f"{source} has no sound")
        resampler = av.AudioResampler("fltp", "mono" if channels == 1 else "stereo", rate)
        left = math.inf if seconds is None else round(seconds * rate)
        got = False
        try:
            for frame in chain(container.decode(container.streams.audio[0]), [None]):
                for piece in resampler.resample(frame):
                    block = torch.nan_to_num(torch.from_numpy(piece.to_ndarray().copy()))[:, : int(min(left, piece.samples))]
                    left -= block.shape[1]
                    got = True
                    yield block
                    if left <= 0:
                        return
        except av.FFmpegError:
            if not got:
                raise
        if not got:
            raise InputError(f"{source}: its sound cannot be decoded (damaged or cut off)")


def load_video(source: Source, frames: int = 8, rate: int | None = None) -> Clip:
    """`frames` pictures at the middles of equal stretches of the video, and its sound at `rate` Hz if it has any.

    Raises:
        InputError: no picture in the file, or it cannot be decoded.
    """
    with opened(source) as container:
        if not container.streams.video:
            raise InputError(f"{source} has no video")
        pictures = read_frames(container, frames)
        if not pictures:
            raise InputError(f"{source}: no frame can be decoded (damaged or cut off)")
    sound = None
    if rate is not None:
        with opened(source) as container:
            if container.streams.audio:
                sound = read_sound(container, rate, str(source))
    return Clip(pictures, sound)


def read_frames(container: InputContainer, count: int) -> list[Image.Image]:
    """Seeks to each wanted time; where seeking is refused or the length unknown, the first frames stand in."""
    import av

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    length = seconds_of(container, stream)
    pictures: list[Image.Image] = []
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    for i in range(count):
        want = start + (length or 0.0) * (i + 0.5) / count
        try:
            if length:
                container.seek(int(want * 1_000_000))
            last = None
            for last in container.decode(stream):
                if last.time is None or last.time >= want or not length:
                    break
            if last is not None:
                pictures.append(last.to_image())
        except (av.FFmpegError, ValueError):
            break
    return pictures
