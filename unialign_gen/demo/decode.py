"""The process that opens strangers' files: of bounded memory, unable to write, and told of one file at a time.

Its answers are JSON and plain arrays, never a pickle. Time is bounded by its parent, `decode_worker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from .. import decoding, media
from ..errors import InputError
from .limits import Limits

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")
# no playlists and no concat: such a file would make FFmpeg open others
CONTAINERS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,gif,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,webm"
FILM_RATE = 44100


def narrow(limits: Limits) -> None:
    """Bounds this process for good: its memory, no writing, and what FFmpeg may open."""
    torch.set_num_threads(1)
    media.CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        import resource
    except ImportError:  # Windows: the parent's clock still applies
        return
    with contextlib.suppress(OSError, ValueError):  # where there is no /proc, memory is not bounded by the system
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + limits.decode_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serves one parent: a line of JSON in, a line of JSON and the arrays it names out, until the parent is gone.

    A request has `kind` (`image`, `audio`, `video`; `any`, which is found out; `track`, a recording for a film), `path`
    and `rate`, of the sound in Hz.
    """
    limits = Limits(**json.loads(sys.argv[1]))
    narrow(limits)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    out.write(b"{}\n")
    out.flush()
    for line in sys.stdin.buffer:
        answer(json.loads(line), limits, out)


def answer(request: dict[str, Any], limits: Limits, out: BinaryIO) -> None:
    path = request["path"]
    name = Path(path).name
    arrays: list[np.ndarray] = []
    try:
        kind, arrays, extra = decode(request["kind"], path, request["rate"], limits)
        header = {"kind": kind, "arrays": [[list(a.shape), str(a.dtype)] for a in arrays], **extra}
    except InputError as error:
        header = {"error": str(error).replace(path, name)}
    except Exception:  # out of memory, or a decoder's own mistake
        header = {"error": f"{name} cannot be decoded within this page's limits of memory"}
    out.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    out.flush()


def decode(kind: str, path: str, rate: int, limits: Limits) -> tuple[str, list[np.ndarray], dict[str, Any]]:
    """What was found, its arrays, and what else is to be said of it."""
    if kind == "any":
        kind = kind_of(path)
    if kind == "image":
        check_picture(path, limits)
        return kind, [np.asarray(media.load_image(path))], {}
    seconds = check_container(path, kind, limits)
    if kind == "track":
        blocks = list(media.sound_blocks(path, FILM_RATE, channels=2, seconds=limits.film_seconds))
        whole = (torch.cat(blocks, 1).clamp(-1, 1) * 32767).round().to(torch.int16)
        return kind, [whole.T.numpy()], {"seconds": seconds}
    if kind == "audio":
        return kind, [media.load_sound(path, rate).numpy()], {"seconds": seconds}
    clip = media.load_video(path, rate=rate)
    sound = [] if clip.sound is None else [clip.sound.numpy()]
    return "video", [*(np.asarray(f) for f in clip.frames), *sound], {"sound": clip.sound is not None, "seconds": seconds}


def kind_of(path: str) -> str:
    """`image`, `video` or `audio`, by the content."""
    media.check_file(path)
    with contextlib.suppress(Exception), Image.open(path, formats=PICTURES) as picture:
        if not (picture.format == "GIF" and getattr(picture, "n_frames", 1) > 1):
            return "image"
    with media.opened(path) as container:
        moving = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        return "video" if moving else "audio"


def check_picture(path: str, limits: Limits) -> None:
    """Its format and size, before it is decoded."""
    media.check_file(path)
    try:
        with Image.open(path, formats=PICTURES) as picture:
            width, height = picture.size
    except Exception as error:
        raise InputError(f"{path} is not a picture that can be read") from error
    if width * height > limits.pixels:
        raise InputError(
            f"{path} has {width} x {height} pixels: at most {limits.pixels // 1_000_000} megapixels are taken here"
        )


def check_container(path: str, kind: str, limits: Limits) -> float | None:
    """Length and frame size as the file states them, before anything is decoded; the length in seconds, if stated."""
    with media.opened(path) as container:
        streams = container.streams.video if kind == "video" else container.streams.audio
        if not streams:
            raise InputError(f"{path} has no {'video' if kind == 'video' else 'sound'}")
        seconds = decoding.seconds_of(container, streams[0])
        if seconds is not None and seconds > limits.media_seconds:
            raise InputError(f"{path} is {seconds:.0f} s long: at most {limits.media_seconds:.0f} s are taken here")
        if kind == "video":
            width, height = container.streams.video[0].width, container.streams.video[0].height
            if width * height > limits.frame_pixels:
                raise InputError(f"{path} has frames of {width} x {height} pixels: that is too large here")
    return seconds
