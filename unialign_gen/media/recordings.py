"""Sound and video through PyAV (FFmpeg), animated pictures through Pillow."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..notes import Note, collected, tell
from .arrays import to_tensor
from .files import Excerpt, binary, choose_track, name_of, opened, tracks
from .inputs import Frames, as_sound, as_video, is_file
from .pictures import flatten, is_heif, load_image, opened_picture
from .reading import Reading, cut_off
from .sound import Downmix, Listener, Piece, Sound, check_rate, from_memory, gathered, resampled, samples_of, until

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # formats of pictures that may move; Pillow lays their parts over each other
BLOCK = 0.1  # seconds of sound in a block


@dataclass
class Clip:
    """What is taken from a video: its sampled frames and, if it has a sound track, the sound.

    Attributes:
        frames: pictures.
        sound: mono samples (n,), None if there is no sound.
        problems: why there are no frames, or no sound of a sound track, by `video` and `audio`.
        notes: what was lost or guessed, of a file that was read nevertheless.
        name: of the file.
    """

    frames: list[Image.Image]
    sound: Tensor | None
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    name: str = "the video"


def has_sound(source: Any) -> bool:
    """Whether a sound or video file has a sound track; nothing is decoded.

    Raises:
        InputError: the file cannot be opened.
    """
    with opened(Excerpt.of(source).source) as container:
        return bool(tracks(container, "audio"))


def load_sound(source: Any, rate: int, downmix: Downmix = "mean") -> Tensor:
    """Mono samples (n,) at `rate` Hz, in [-1, 1]; at most 30 s.

    Of a longer recording three stretches of 10 s are decoded, at its start, middle and end, so that an hour costs what
    half a minute does. What was lost or guessed on the way is a note (see `notes`): silence, a part heard, samples that
    are no numbers, channels that cancel out.

    Args:
        source: a path, bytes, a file object, `(rate, array)`, a mapping with `array` and `sampling_rate`, a `Sound`, a
            torchcodec decoder, or an `Excerpt` of one.
        downmix: `mean` of the channels, or the `left` one alone, as some encoders were trained.

    Raises:
        InputError: no sound in the file, it cannot be decoded, or it is too short to be heard.
    """
    return to_tensor(read_sound(source, rate, downmix))


def read_sound(source: Any, rate: int, downmix: Downmix = "mean") -> NDArray[np.float32]:
    """`load_sound`, without torch."""
    part = Excerpt.of(source)
    found = as_sound(part.source)
    if isinstance(found, Sound):
        return from_memory(found, rate, part.start, part.seconds, downmix)
    name = name_of(found, "the sound")
    with opened(found) as container:
        stream = choose_track(container, "audio", name, part.track)
        if stream is None:
            raise InputError(f"{name} has no sound")
        reading = Reading(container, [stream], None, name, part)
        samples = reading.sound(stream, rate, downmix)
        reading.tell()
        return samples


def sound_blocks(source: Any, rate: int, channels: int = 1, seconds: float | None = None) -> Iterator[Tensor]:
    """The sound from its start in blocks (channels, n) at `rate` Hz, one or two channels, at most `seconds` of it.

    Holds one block at a time; stops where the data stops, as players do, with a note.

    Raises:
        InputError: no sound in the file, or none of it can be decoded.
    """
    return map(to_tensor, read_blocks(source, rate, channels, seconds))


def read_blocks(source: Any, rate: int, channels: int = 1, seconds: float | None = None) -> Iterator[NDArray[np.float32]]:
    """`sound_blocks`, without torch."""
    part = Excerpt.of(source)
    found = as_sound(part.source)
    name = name_of(found, getattr(found, "name", "the sound"))
    listener = Listener(name)
    wanted = min(math.inf if seconds is None else seconds, math.inf if part.seconds is None else part.seconds)
    left = math.inf if wanted == math.inf else round(wanted * rate)
    got = False

    def mixed() -> Iterator[Piece]:
        for samples, native in gathered(until(pieces_of(found, name, part), wanted + 1), BLOCK):
            mono = listener.mix(samples)[None]
            own = channels == 2 and len(samples) == 2
            yield np.nan_to_num(samples).clip(-1, 1) if own else mono.repeat(channels, 0), native

    for block in resampled(mixed(), rate, channels):
        got = True
        yield block[:, : int(min(left, block.shape[1]))]
        left -= block.shape[1]
        if left <= 0:
            break
    if not got:
        raise InputError(f"{name}: its sound cannot be decoded, or there is none in it")
    listener.tell()


def pieces_of(found: Any, name: str, part: Excerpt) -> Iterator[Piece]:
    """Decoded sound (channels, n) and its rate, from the start of the part on."""
    if isinstance(found, Sound):
        rate = check_rate(found.rate, found.name)
        yield samples_of(found)[:, round(part.start * rate) :], rate
        return
    with opened(found) as container:
        stream = choose_track(container, "audio", name, part.track)
        if stream is None:
            raise InputError(f"{name} has no sound")
        reading, there = Reading(container, [], None, name, part), 0.0
        for samples, rate in reading.heard(stream, part.start or None):
            there += samples.shape[1] / rate
            yield samples, rate
        reading.tell()
        stated = float((stream.duration or 0) * stream.time_base) - part.start
        if cut_off(there, stated):
            tell("cut", name=name, there=f"{there:.1f} s", stated=f"{stated:.1f} s")


def load_video(source: Any, frames: int = 8, rate: int | None = None, downmix: Downmix = "mean") -> Clip:
    """`frames` pictures at the middles of equal stretches of the video, and its sound at `rate` Hz if it has any.

    Args:
        source: a path, bytes, a file object, a list of pictures, an array (T, H, W, C) or (T, C, H, W), a torchcodec
            decoder, an `Excerpt` of one, or a `Clip`, which is given back.

    Raises:
        InputError: no picture in the file, or it cannot be decoded.
    """
    clip = load_clip(source, frames, rate, downmix=downmix)
    tell_problems(clip)
    return clip


def tell_problems(clip: Clip) -> None:
    """An `InputError` for a clip without pictures, a note for one without its sound."""
    if "video" in clip.problems:
        raise InputError(clip.problems["video"])
    if "audio" in clip.problems:
        tell("no sound", reason=clip.problems["audio"])


def load_clip(
    source: Any, frames: int = 8, rate: int | None = None, patience: float | None = None, downmix: Downmix = "mean"
) -> Clip:
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
    if isinstance(source, Clip):
        return source
    clip, sound = read_clip(source, frames, rate, patience, downmix)
    clip.sound = None if sound is None else to_tensor(sound)
    return clip


def read_clip(
    source: Any, frames: int = 8, rate: int | None = None, patience: float | None = None, downmix: Downmix = "mean"
) -> tuple[Clip, NDArray[np.float32] | None]:
    """`load_clip`, without torch: a clip, and its sound apart."""
    part = Excerpt.of(source)
    found, sound = as_video(part.source), None
    with collected() as notes:
        if isinstance(found, Frames):
            clip = Clip(sampled(found, frames, part), None)
        else:
            moving = animation(found, frames, patience, part)
            clip, sound = (moving, None) if moving else decoded(found, frames, rate, patience, downmix, part)
            clip.name = name_of(found, clip.name)
    clip.notes = notes
    return clip, sound


def decoded(
    found: Any, frames: int, rate: int | None, patience: float | None, downmix: Downmix, part: Excerpt
) -> tuple[Clip, NDArray[np.float32] | None]:
    """A clip out of a file, by FFmpeg, and its sound."""
    clip, sound, name = Clip([], None), None, name_of(found, "the video")
    if is_heif(binary(found)):
        raise InputError(f"{name} is a picture, not a video: give it as an image")
    with opened(found, threads="NONE") as container:
        chosen: dict[str, Any] = {}
        for kind in [kind for kind, asked in (("video", frames > 0), ("audio", rate is not None)) if asked]:
            try:
                chosen[kind] = choose_track(container, kind, name, part.track if len(tracks(container, kind)) > 1 else None)
            except InputError as error:
                clip.problems[kind] = str(error)
        video, audio = chosen.get("video"), chosen.get("audio")
        reading = Reading(container, [s for s in (video, audio) if s is not None], patience, name, part)
        # before the pictures: in a large file these move the place from which a short sound is read on
        if rate is not None and audio is not None:
            try:
                sound = reading.sound(audio, rate, downmix)
            except InputError as error:
                clip.problems["audio"] = str(error)
        if frames and "video" not in clip.problems:
            try:
                if video is None:
                    raise InputError(f"{name} has no video")
                clip.frames = reading.pictures(video, frames)
            except InputError as error:
                clip.problems["video"] = str(error)
        reading.tell()
    return clip, sound


def sampled(video: Frames, count: int, part: Excerpt) -> list[Image.Image]:
    """Pictures at the middles of `count` equal stretches."""
    first, last = 0, len(video)
    if part.start or part.seconds:
        if not video.rate:
            raise InputError("a part of a video in memory needs its rate of pictures: give Frames(pictures, rate)")
        first = round(part.start * video.rate)
        if first >= last:
            raise InputError(f"the video has {last / video.rate:g} s, no part of it can begin at {part.start:g} s")
        last = last if part.seconds is None else min(last, max(first + 1, round((part.start + part.seconds) * video.rate)))
    places = [first + int((last - first) * (i + 0.5) / count) for i in range(count)]
    made = {place: load_image(video[place]) for place in dict.fromkeys(places)}
    return [made[place] for place in places]


def animation(found: Any, count: int, patience: float | None, part: Excerpt) -> Clip | None:
    """A clip out of an animated picture; None for any other file, an `InputError` for a picture that does not move."""
    if not count or not is_file(found):
        return None
    name, file = name_of(found, "the video"), binary(found)
    try:
        opened_file = Image.open(file, formats=ANIMATED)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large a picture") from error
    except Exception:  # not one of these, or damaged: FFmpeg says which
        return None
    with opened_file as picture:
        total = getattr(picture, "n_frames", 1)
        if total == 1 and picture.format != "GIF":
            raise InputError(f"{name} is a picture, not a video: give it as an image")
    with opened_picture(found) as (picture, _):
        if total == 1:
            tell("still", name=name)
        begun = time.monotonic()
        ends, at = [], 0.0
        for i in range(total):
            picture.seek(i)
            picture.load()
            at += max(1.0, float(picture.info.get("duration", 0) or 100))
            ends.append(at)
            if patience is not None and time.monotonic() - begun > patience:
                raise InputError(f"{name} takes more than {patience:g} s to decode")
        start = part.start * 1000
        if start and start >= at:
            raise InputError(f"{name} is {at / 1000:.1f} s long: no part of it can begin at {part.start:g} s")
        length = min(at - start, math.inf if part.seconds is None else part.seconds * 1000)
        places = [int(np.searchsorted(ends, start + length * (i + 0.5) / count, "right")) for i in range(count)]
        frames = {}
        for place in dict.fromkeys(places):
            picture.seek(place)
            frames[place] = flatten(picture.copy(), name)
    return Clip([frames[place] for place in places], None)
