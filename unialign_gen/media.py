"""The only place that opens a media file: pictures through Pillow, sound and video through PyAV (FFmpeg).

What a file is follows from its content, never from its name. Every failure to decode is one `InputError`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .decoding import LISTEN_SECONDS, Reading, gather, videos_of
from .errors import InputError
from .notes import note

if TYPE_CHECKING:
    from av.container import InputContainer

Source = str | Path
MAX_PIXELS = 100_000_000
MAX_FRAME_PIXELS = 36_000_000  # of a video, of which several are held at once; 8K has 33
CONTAINER_OPTIONS: dict[str, str] = {}  # FFmpeg's, for every file; a process that reads strangers' files narrows them


@dataclass
class Sound:
    """Mono samples (n,) in [-1, 1] and their rate in Hz, for sound that is already in memory."""

    samples: Tensor
    rate: int


@dataclass
class Clip:
    """What is taken from a video: its sampled frames and, if it has a sound track, the sound.

    Attributes:
        problems: why there are no frames, or no sound of a sound track, by `video` and `audio`.
        notes: what is wrong with a file that was read nevertheless.
    """

    frames: list[Image.Image]
    sound: Tensor | None
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
def opened(source: Source, threads: str = "AUTO") -> Iterator[InputContainer]:
    """An open container, every FFmpeg failure inside turned into an `InputError`.

    Frames of more than `MAX_FRAME_PIXELS` are refused before memory is taken for them.
    """
    import av

    path = check_file(source)
    av.logging.set_level(av.logging.PANIC)
    try:
        with av.open(str(path), metadata_errors="replace", options=dict(CONTAINER_OPTIONS)) as container:
            for stream in container.streams.video:
                stream.thread_type = threads
                stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
            yield container
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        reason = str(error).split(":")[0]
        raise InputError(f"{source} is not a sound or video file that can be read ({reason})") from error


def has_sound(source: Source) -> bool:
    """Whether a sound or video file has a sound track; nothing is decoded.

    Raises:
        InputError: the file cannot be opened.
    """
    with opened(source) as container:
        return bool(container.streams.audio)


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
            samples = Reading(container, [], None, str(source)).sound(container.streams.audio[0], rate)
    if float(samples.abs().max()) < 1e-4:
        note("silent", f"{source if not isinstance(source, Sound) else 'the sound'} is silent")
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
    clip = load_clip(source, frames, rate)
    if "video" in clip.problems:
        raise InputError(clip.problems["video"])
    if "audio" in clip.problems:
        warnings.warn(f"{clip.problems['audio']}; its pictures are used alone", stacklevel=2)
    return clip


def load_clip(source: Source, frames: int = 8, rate: int | None = None, patience: float | None = None) -> Clip:
    """The same in one pass through the file, where one of the two may fail and the other be given.

    The decoders run on one thread each, so that many files can be decoded side by side and a damaged one always gives
    the same. A file of up to 32 MB is read once and its packets kept; a larger one is sought through.

    Args:
        frames: how many pictures; 0 for sound alone.
        rate: of the sound in Hz; None for pictures alone.
        patience: seconds after which a file is given up.

    Raises:
        InputError: the file cannot be opened at all, or takes too long.
    """
    clip = Clip([], None)
    with opened(source, threads="NONE") as container:
        video = next(iter(videos_of(container)), None) if frames else None
        audio = container.streams.audio[0] if rate is not None and container.streams.audio else None
        reading = Reading(container, [s for s in (video, audio) if s is not None], patience, str(source))
        # before the pictures: in a large file these move the place from which a short sound is read on
        if rate is not None and audio is not None:
            try:
                clip.sound = reading.sound(audio, rate)
            except InputError as error:
                clip.problems["audio"] = str(error)
        if frames:
            try:
                if video is None:
                    raise InputError(f"{source} has no video")
                clip.frames = reading.pictures(video, frames)
            except InputError as error:
                clip.problems["video"] = str(error)
        clip.notes = reading.notes()
    return clip
