"""The process that opens strangers' files, with nothing but the bytes that it is handed.

Before the first file it gives up, for good, what a file could misuse it for: no file, socket or pipe can be opened any more
(`RLIMIT_NOFILE` 0), nothing can be written but the answer, memory is bounded, and where the kernel has Landlock no file can
be made, renamed or removed either. It can still compute and read the clock. On Windows none of this holds.

Its answers are JSON and plain arrays, never a pickle. Time is bounded by its parent, `decode_worker`.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms

from .. import media
from ..errors import InputError
from ..loading import shipped_folder
from ..media.files import choose_track, tracks
from ..media.pictures import listed, opened_picture
from ..media.reading import seconds_of
from ..media.recordings import read_blocks, read_clip, read_sound, tell_problems
from ..media.settings import FORMATS, read_settings
from ..notes import collected, note
from .limits import Limits

PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "MPO")
RECORDINGS = "WAV, MP3, FLAC, OGG, Opus, M4A, AAC, AIFF, MP4, MOV, WebM, MKV or AVI"
MOVING = ("GIF", "WEBP", "PNG", "AVIF")


def narrow(limits: Limits) -> None:
    """Gives up what decoding does not need, see the top of this file; file descriptors above 3 are closed."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock still applies
        return
    with contextlib.suppress(OSError, ValueError):  # where there is no /proc, memory is not bounded by the system
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + limits.decode_bytes,) * 2)
    os.closerange(4, 1024)
    no_file_changes()
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))


def no_file_changes() -> None:
    """Landlock, where the kernel has it: every right to files that its first version knows is given up.

    The numbers are those of Linux's `landlock_create_ruleset` and `landlock_restrict_self`, the same on every machine, and
    of `PR_SET_NO_NEW_PRIVS`.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    rights = ctypes.c_uint64((1 << 13) - 1)
    ruleset = libc.syscall(444, ctypes.byref(rights), ctypes.c_size_t(8), 0)
    if ruleset >= 0:
        libc.prctl(38, 1, 0, 0, 0)
        libc.syscall(446, ruleset, 0)
        os.close(ruleset)


def warm_up() -> None:
    """Decodes something of each kind, so that all code is loaded before files can be opened no more."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        made = io.BytesIO()
        with contextlib.suppress(Exception):  # this Pillow may lack one
            Image.new("RGB", (8, 8)).save(made, form, icc_profile=profile, exif=Image.Exif())
            media.load_image(made.getvalue())
    with collected():
        read_sound((shipped_folder() / "samples" / "cow.flac").read_bytes(), 16000)
        read_clip((shipped_folder() / "samples" / "sheep.mp4").read_bytes(), rate=16000)
    for encoding in ("ascii", "latin-1", "utf-16-be", "utf-16-le", "idna"):
        "".encode(encoding)


def main() -> None:
    """Serves one parent: a line of JSON and a file in, a line of JSON and the arrays it names out, until the parent is gone.

    A request has `kind` (`image`, `audio`, `video`; `any`, which is found out; `track`, a recording for a film), `name`,
    `size` of the file in bytes, and `rate`, of the sound in Hz.
    """
    limits = Limits(**json.loads(sys.argv[1]))
    warm_up()
    out = os.fdopen(os.dup2(1, 3), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    narrow(limits)
    out.write(b"{}\n")
    out.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer(request, sys.stdin.buffer.read(request["size"]), limits, out)


def answer(request: dict[str, Any], data: bytes, limits: Limits, out: BinaryIO) -> None:
    file, arrays = io.BytesIO(data), list[np.ndarray]()
    name = file.name = request["name"]  # that messages call it by
    with collected() as notes:
        try:
            kind, arrays, extra = decode(request["kind"], file, request["rate"], limits)
            header = {"kind": kind, "arrays": [[list(a.shape), str(a.dtype)] for a in arrays], **extra}
        except InputError as error:
            header = {"error": str(error)}
        except MemoryError:
            header = {"error": f"{name} needs more memory to be decoded than this page gives to one file"}
        except Exception as error:  # a decoder's own mistake
            header = {"error": f"{name} cannot be decoded: its decoder failed ({type(error).__name__})"}
    header["notes"] = [note.as_dict() for note in notes]
    out.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    out.flush()


def decode(kind: str, file: io.BytesIO, rate: int, limits: Limits) -> tuple[str, list[np.ndarray], dict[str, Any]]:
    """What was found, its arrays, and what else is to be said of it."""
    if kind == "any":
        kind = kind_of(file)
    if kind == "image":
        text = check_picture(file, limits)
        return kind, [np.asarray(media.load_image(file, PICTURES))], {"settings": text}
    seconds = check_container(file, kind, limits)
    if kind == "track":
        blocks = list(read_blocks(file, rate, channels=2, seconds=limits.film_seconds))
        return "audio", [np.concatenate(blocks, 1)], {"seconds": seconds}
    if kind == "audio":
        return kind, [read_sound(file, rate)], {"seconds": seconds}
    clip, sound = read_clip(file, rate=rate)
    tell_problems(clip)
    arrays = [*map(np.asarray, clip.frames), *([] if sound is None else [sound])]
    return "video", arrays, {"sound": sound is not None, "seconds": seconds}


def kind_of(file: io.BytesIO) -> str:
    """`image`, `video` or `audio`, by the content; an `InputError` for none of them, or a format that is not taken."""
    taken = f"give a picture ({listed(PICTURES)}), a sound or a video ({RECORDINGS})"
    try:
        with opened_picture(file) as (picture, _):
            if picture.format not in PICTURES:
                raise InputError(f"{file.name} is a {picture.format} picture, which this page does not take: {taken}")
            return "video" if picture.format in MOVING and getattr(picture, "n_frames", 1) > 1 else "image"
    except InputError as error:
        if "not a picture" not in str(error):
            raise
    try:
        with media.opened(file) as container:
            return "video" if tracks(container, "video") else "audio"
    except InputError as error:
        raise InputError(f"{error}; {taken}") from error


def check_picture(file: io.BytesIO, limits: Limits) -> str | None:
    """Its format and size, before it is decoded; the text that this program left in it, if it did."""
    with opened_picture(file, PICTURES) as (picture, _):
        (width, height), ours = picture.size, picture.format in FORMATS
    if width * height > limits.pixels:
        most = f"at most {limits.pixels // 1_000_000} megapixels are taken here"
        raise InputError(f"{file.name} has {width} x {height} pixels: {most}")
    try:
        return read_settings(file) if ours else None
    except InputError as error:  # still a picture
        note("settings", str(error))
    return None


def check_container(file: io.BytesIO, kind: str, limits: Limits) -> float | None:
    """Length and frame size as the file states them, before anything is decoded; the length in seconds, if stated."""
    size, seconds, moving = (0, 0), None, kind == "video"
    if moving:
        with contextlib.suppress(InputError), opened_picture(file, MOVING) as (picture, _):
            size = picture.size  # of an animation
    if size == (0, 0):
        with media.opened(file) as container, collected():
            stream = choose_track(container, "video" if moving else "audio", file.name)
            if stream is None:
                raise InputError(f"{file.name} has no {'video' if moving else 'sound'}")
            seconds = seconds_of(container, stream)
            size = (stream.width, stream.height) if moving else size
    if seconds is not None and seconds > limits.media_seconds:
        raise InputError(f"{file.name} is {seconds:.0f} s long: at most {limits.media_seconds:.0f} s are taken here")
    if size[0] * size[1] > limits.frame_pixels:
        raise InputError(f"{file.name} has frames of {size[0]} x {size[1]} pixels: that is too large here")
    return seconds
