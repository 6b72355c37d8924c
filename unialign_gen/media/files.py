"""Opening files: a local name is a local file, and its content says what it is.

Every place that hands FFmpeg a name or bytes goes through `opened` or `ffmpeg_name`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InputError, as_input_error
from ..notes import tell

if TYPE_CHECKING:
    from av.container import InputContainer

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
MAX_FRAME_PIXELS = 36_000_000  # of a video, of which several are held at once; 8K has 33
# FFmpeg's demuxers that know their format by its content. Not those that open other files (playlists, concat), that go by
# the name alone (tty, raw samples), or that read a still picture.
DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,apng,asf,ast,au,avi,caf,dsf,dts,dtshd,dv,eac3,flac,flv,gif,gxf,h264,hevc,iff,ircam,ivf,"
    "live_flv,loas,m4v,matroska,mjpeg,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,oma,qcp,rm,smjpeg,sox,"
    "swf,tak,truehd,tta,vc1,voc,w64,wav,webm,wtv,wv,xwma,yuv4mpegpipe"
)
KINDS = {"audio": "sound", "video": "video"}


@dataclass(frozen=True)
class Excerpt:
    """A part of a sound or video, taken wherever a sound or video is.

    Attributes:
        source: a file, or anything else that is a sound or a video.
        start: in seconds.
        seconds: how much from there on; to the end by default.
        track: which of several tracks of a kind, counted from 0; the file's default one if None.

    Raises:
        InputError: a start below 0, or a length that is not above 0.
    """

    source: Any
    start: float = 0.0
    seconds: float | None = None
    track: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < float("inf"):
            raise InputError(f"start must be a number of seconds from 0 on, got {self.start}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(f"seconds must be a number above zero, got {self.seconds}")
        if self.track is not None and self.track < 0:
            raise InputError(f"track must be a whole number from 0 on, got {self.track}")

    @classmethod
    def of(cls, source: Any) -> Excerpt:
        """All of a source; an excerpt stays what it is."""
        return source if isinstance(source, Excerpt) else cls(source)


def name_of(source: Any, default: str = "the file") -> str:
    """What messages call a source."""
    if isinstance(source, Excerpt):
        return name_of(source.source, default)
    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return os.fspath(name) if isinstance(name, str | os.PathLike) and os.fspath(name) else default


def check_file(source: str | os.PathLike[str]) -> Path:
    """The path, if it is a file that holds something, else an `InputError`."""
    # a name that no file can have, or a folder that may not be entered
    with as_input_error(f"{os.fspath(source)[:200]!r} cannot be read: {{reason}}", OSError, ValueError, RuntimeError):
        path = Path(source).expanduser()
        there, folder, regular = path.exists(), path.is_dir(), path.is_file()
        size = path.stat().st_size if there else 0
    if not there:
        raise InputError(f"no such file: {source}")
    if folder:
        raise InputError(f"{source} is a folder, not a file")
    if not regular:  # a pipe would be waited for
        raise InputError(f"{source} is not a regular file")
    if size == 0:
        raise InputError(f"{source} is empty (0 bytes)")
    return path


def binary(source: Source) -> Path | BinaryIO:
    """A path, checked, or a file object at its start; an `InputError` if it is empty, unreadable, or nothing that is a file."""
    if isinstance(source, str | os.PathLike):
        return check_file(source)
    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(bytes(source))
    if not callable(getattr(source, "read", None)):
        raise InputError(f"a file must be a path, bytes or a file object, got {type(source).__name__}")
    if not getattr(source, "seekable", lambda: False)():
        data = source.read()
        if not isinstance(data, bytes):
            raise InputError(f"{name_of(source)} is open as text: open it with mode 'rb'")
        source = io.BytesIO(data)
    source.seek(0)
    start = source.read(1)
    source.seek(0)
    if not isinstance(start, bytes):
        raise InputError(f"{name_of(source)} is open as text: open it with mode 'rb'")
    if not start:
        raise InputError(f"{name_of(source)} is empty (0 bytes)")
    return source


def ffmpeg_name(path: str | os.PathLike[str]) -> str:
    """A local file's name for FFmpeg, which would take `10:30.wav` for a protocol."""
    return f"file:{os.path.abspath(path)}"


@contextmanager
def opened(source: Source, threads: str = "AUTO") -> Iterator[InputContainer]:
    """An open container, every FFmpeg failure inside turned into an `InputError`.

    Frames of more than `MAX_FRAME_PIXELS` are refused before memory is taken for them.

    Raises:
        InputError: no file, or none that FFmpeg reads.
    """
    import av

    name, found = name_of(source), binary(source)
    av.logging.set_level(av.logging.PANIC)
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    try:
        if isinstance(found, Path):
            file: Any = ffmpeg_name(found)
        else:  # without its name, which FFmpeg would guess from
            file = SimpleNamespace(read=found.read, seek=found.seek, tell=found.tell)
        with av.open(file, metadata_errors="replace", options=options) as container:
            for stream in container.streams.video:
                if stream.codec_context is not None:
                    stream.thread_type = threads
                    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
            yield container
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError, EOFError, OverflowError) as error:
        log = getattr(error, "log", None) or ("", "", "")
        if "whitelist" in log[2]:
            raise InputError(f"{name} is not a sound or video file that is read here (FFmpeg calls it {log[1]})") from error
        reason = str(error).split(":")[0].removeprefix("[Errno 1094995529] ")
        raise InputError(f"{name} is not a sound or video file that can be read ({reason})") from error


def tracks(container: InputContainer, kind: str) -> list[Any]:
    """The streams of `audio` or `video`; the picture of a cover in a sound file is none."""
    from av.stream import Disposition

    return [s for s in getattr(container.streams, kind) if not s.disposition & Disposition.attached_pic]


def choose_track(container: InputContainer, kind: str, name: str, track: int | None = None) -> Any | None:
    """The default stream of `audio` or `video`, or the first that there is a decoder for; None where there is no stream.

    Args:
        track: another one, counted from 0 among those of the kind.

    Raises:
        InputError: no decoder for any, or no such track.
    """
    streams = tracks(container, kind)
    if not streams:
        return None
    if track is not None:
        if track >= len(streams):
            raise InputError(f"{name} has {len(streams)} tracks of {KINDS[kind]}, counted from 0: there is no number {track}")
        order = [streams[track]]
    else:
        best = container.streams.best(kind)  # type: ignore[arg-type]
        order = sorted(streams, key=lambda s: best is None or s.index != best.index)
    usable = next((s for s in order if s.codec_context is not None), None)
    if usable is None:
        raise InputError(f"{name}: there is no decoder for its {KINDS[kind]} ({codec_of(container, order[0])})")
    number = next(i for i, s in enumerate(streams) if s.index == usable.index)
    if track is None and order[0].codec_context is None:
        tell("skipped track", name=name, what=KINDS[kind], codec=codec_of(container, order[0]), track=number)
    elif track is None and len(streams) > 1:
        tell("track", name=name, what=KINDS[kind], count=len(streams), track=number)
    return usable


def codec_of(container: InputContainer, stream: Any) -> str:
    """The codec of a stream without a decoder, as the container names it."""
    import av

    av.logging.set_level(av.logging.INFO)  # what follows is given as log lines
    try:
        lines = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(av.logging.PANIC)
    found = re.search(rf"Stream #0:{stream.index}\b.*?: \w+: (\w+)(?: \((.{{4}}) /)?", lines)
    names = [n for n in found.groups() if n and n != "none"] if found else []
    names = names or matroska_codecs(container, stream.type)
    return f"codec {' '.join(names)}" if names else f"an unknown codec in {container.format.name.split(',')[0]}"


def matroska_codecs(container: InputContainer, kind: str) -> list[str]:
    """The codecs of a kind as Matroska's header names them, which FFmpeg keeps to itself where it knows none."""
    if "matroska" not in container.format.name:
        return []
    given = getattr(container.file, "file", None)  # what `av.open` was handed
    with nullcontext(given) if given else open(container.name.removeprefix("file:"), "rb") as file:
        place = file.tell()
        file.seek(0)
        head = file.read(100_000)
        file.seek(place)
    letter = kind[0].upper()
    return [found.decode() for found in re.findall(rf"\x86.({letter}_[A-Z0-9_./]+)".encode(), head)]
