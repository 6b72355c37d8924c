"""Pictures and sound out of an open container, one pass over it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..notes import tell
from .display import shown
from .files import MAX_FRAME_PIXELS, Excerpt, tracks
from .playhead import Playhead, times_of
from .sound import LISTEN_SECONDS, Downmix, Listener, Piece, listened, waveform, windows

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from numpy.typing import NDArray
    from PIL import Image

KEEP_BYTES = 32_000_000  # files up to this size are read once
RUN_BYTES = 64_000_000  # between two keyframes of a larger file
MAX_PACKETS = 20_000  # decoded for the pictures of one file
STEPS_BACK = (0, 2, 10)  # seconds before a wanted time that a seek may have to start at
REORDER = 32  # packets after the wanted one, since the order of decoding is not that of showing
RUN_UP = 1.0  # seconds of sound decoded before a stretch, for codecs whose frames overlap


class Reading:
    """One pass over some streams of a container.

    Args:
        streams: those whose packets are kept if the file is small enough.
        patience: seconds until an `InputError`, for files that decode without end.
        name: of the file, for messages.
        part: what of the file is wanted.
    """

    def __init__(self, container: InputContainer, streams: Sequence[Any], patience: float | None, name: str, part: Excerpt):
        self.container, self.streams, self.name, self.part = container, streams, name, part
        self.patience, self.began = patience, time.monotonic()
        self.fed, self.failed = 0, 0
        self.kept: dict[int, list[Any]] = {}  # packets by stream in the order of the file, as far as there are any
        if streams and container.size <= KEEP_BYTES:
            self.kept = {stream.index: [] for stream in streams}
            for packet in self.demux(*streams):
                self.kept[packet.stream.index].append(packet)

    def demux(self, *streams: Any) -> Iterator[Any]:
        """Packets from here on; where the data stops or is damaged they end."""
        import av

        try:
            for packet in self.container.demux(*streams):
                self.check()
                if packet.size:
                    yield packet
        except av.FFmpegError:
            return

    def check(self) -> None:
        if self.patience is not None and time.monotonic() - self.began > self.patience:
            raise InputError(f"{self.name} takes more than {self.patience:g} s to decode")

    def count(self) -> None:
        """Called for each packet of pictures that is decoded."""
        self.check()
        self.fed += 1
        if self.fed > MAX_PACKETS:
            raise InputError(f"{self.name} takes more than {MAX_PACKETS} decoded frames: it has too few keyframes to seek to")

    def pictures(self, stream: Any, count: int) -> list[Image.Image]:
        """Those at the middles of `count` equal stretches."""
        frames = self.from_kept(stream, count) if self.kept else self.by_seeking(stream, count)
        if not frames:
            raise InputError(f"{self.name}: no frame can be decoded (damaged or cut off)")
        return [shown(frame, stream.sample_aspect_ratio) for frame in frames]

    def span(self, length: float) -> tuple[float, float]:
        """(start, length) in seconds of the wanted part of a stream of so many seconds."""
        start = self.part.start
        if start and start >= length:
            raise InputError(f"{self.name} is {length:.1f} s long: no part of it can begin at {start:g} s")
        return start, min(length - start, self.part.seconds or length)

    def from_kept(self, stream: Any, count: int) -> list[av.VideoFrame]:
        packets = self.kept[stream.index]
        if not packets:
            return []
        times = times_of(packets)
        first, last = min(times), max(times)
        step = 1.0 if isinstance(times, range) else packets[times.index(last)].duration
        step = step or (last - first) / max(1, len(times) - 1) or 1
        begin, whole = first, last + step - first
        if not isinstance(times, range):
            start, length = (t / float(stream.time_base) for t in self.span(whole * float(stream.time_base)))
            begin, whole = first + start, length
        wants = [begin + whole * (i + 0.5) / count for i in range(count)]
        return self.frames_at(decoder_for(stream), packets, wants)

    def frames_at(self, codec: Any, packets: Sequence[Any], wants: Sequence[float]) -> list[av.VideoFrame]:
        """Those on the screen at wanted times, see `Playhead`, as far as they can be decoded."""
        head = Playhead(codec, packets, wants, self.count)
        frames = [frame for frame in map(head.at, wants) if frame is not None]
        self.failed += head.failed
        return frames

    def by_seeking(self, stream: Any, count: int) -> list[av.VideoFrame]:
        length = seconds_of(self.container, stream)
        if length is None:
            raise InputError(f"{self.name} does not say how long it is, and is too large to be read whole")
        start, length = self.span(length)
        codec = decoder_for(stream)
        first: list[Any] = []
        if codec.pix_fmt == "pal8":  # whose first packet may carry a palette for all that follow
            self.container.seek(0)
            first.append(next(self.demux(stream)))
        frames: list[av.VideoFrame] = []
        for i in range(count):
            want = (stream.start_time or 0) + (start + length * (i + 0.5) / count) / float(stream.time_base)
            packets = self.run(stream, want)
            if packets:
                if first and first[0].dts != packets[0].dts:
                    packets = [*first, *packets]
                frames += self.frames_at(codec, packets, [want])
        return frames

    def run(self, stream: Any, want: float) -> list[Any]:
        """Packets from a keyframe at or before a time to a little behind it."""
        import av

        packets: list[Any] = []
        for back in STEPS_BACK:  # containers without an index land anywhere
            try:
                self.container.seek(int(max(0, want - back / stream.time_base)), stream=stream)
            except av.FFmpegError:
                continue
            packets = list(self.until(stream, want))
            times = times_of(packets)
            if any(p.is_keyframe and t <= want for p, t in zip(packets, times, strict=True)):
                break
        return packets

    def until(self, stream: Any, want: float) -> Iterator[Any]:
        """Packets from here to a little behind a time, at most `RUN_BYTES` of them."""
        size, behind = 0, 0
        for packet in self.demux(stream):
            yield packet
            size += packet.size
            at = packet.pts if packet.pts is not None else packet.dts
            behind += at is None or at > want
            if behind > REORDER or size > RUN_BYTES:
                return

    def sound(self, stream: Any, rate: int, downmix: Downmix = "mean") -> NDArray[np.float32]:
        """Mono samples (n,) at `rate` Hz: all of up to 30 s, of a longer sound 10 s at its start, middle and end."""
        start, length = self.span(self.length(stream))
        listener = Listener(self.name, downmix)
        plan = windows(length)
        limit = LISTEN_SECONDS if self.part.seconds is None else min(self.part.seconds, LISTEN_SECONDS)
        if len(plan) > 1:
            parts = [listened(self.heard(stream, start + at), rate, wanted, listener) for at, wanted in plan]
            samples = np.concatenate(parts)
            if len(samples) < limit * rate / 2:  # its times are wrong: what comes first, then
                self.rewind(stream)
                samples, plan = listened(self.heard(stream, None), rate, limit, listener), []
        else:
            samples = listened(self.heard(stream, start or None), rate, limit, listener)
        if len(samples) == 0 and self.failed:  # pictures come later
            raise InputError(f"{self.name}: its sound cannot be decoded (damaged or cut off)")
        if len(plan) > 1:
            tell("part heard", name=self.name, length=length, heard=len(samples) / rate)
        return listener.checked(samples)

    def length(self, stream: Any) -> float:
        """Seconds from the first to the last sample of a stream: from its packets, or as the file states it."""
        if self.kept:
            return self.reach([stream])
        stated = seconds_of(self.container, stream)
        if stated is not None:
            return stated
        ends = [(p.pts or 0) + (p.duration or 0) for p in self.demux(stream)]  # of a large file, read to its end for this
        self.rewind(stream)
        return float((max(ends, default=0) - (stream.start_time or 0)) * stream.time_base)

    def rewind(self, stream: Any) -> None:
        import av

        with suppress(av.FFmpegError):
            self.container.seek(0)
        stream.codec_context.flush_buffers()

    def heard(self, stream: Any, start: float | None) -> Iterator[Piece]:
        """Decoded sound (channels, n) and its rate, from `start` seconds on.

        Packets that cannot be decoded are left out, as players do.
        """
        import av

        first = self.ends(stream)[0] if self.kept else (stream.start_time or 0) * stream.time_base
        begin = None if start is None else start + float(first)
        run_up = -math.inf if begin is None else begin - RUN_UP
        packets: Iterable[Any]
        if self.kept:
            packets = [p for p in self.kept[stream.index] if p.pts is None or float(p.pts * stream.time_base) >= run_up]
        else:
            if begin is not None:
                self.container.seek(int(max(0, run_up) / stream.time_base), stream=stream)
            packets = self.demux(stream)
        stream.codec_context.flush_buffers()
        for packet in chain(packets, [None]):  # after which a decoder gives what it holds back
            self.check()
            try:
                frames = stream.codec_context.decode(packet)
            except (av.FFmpegError, ValueError):
                self.failed += begin is None  # behind a seek the first packets may lack what comes before them
                continue
            for frame in frames:
                late = 0 if begin is None or frame.time is None else round((begin - frame.time) * frame.sample_rate)
                if late < frame.samples:
                    yield waveform(frame)[:, max(0, late) :], frame.sample_rate

    def ends(self, stream: Any) -> tuple[Fraction, Fraction]:
        """When the first kept packet of a stream begins and the last one ends, in seconds."""
        timed = [p for p in self.kept[stream.index] if p.pts is not None]
        first, last = min((p.pts for p in timed), default=0), max((p.pts + (p.duration or 0) for p in timed), default=0)
        return first * stream.time_base, last * stream.time_base

    def reach(self, streams: Sequence[Any]) -> float:
        """Seconds from the first packet to the end of the last, of the longest of the streams."""
        return max((float(end - begin) for begin, end in map(self.ends, streams)), default=0.0)

    def tell(self) -> None:
        """Notes of a file that could be read although something is wrong: damaged packets, an end before the stated one."""
        if self.failed:
            tell("damaged", name=self.name, count=self.failed)
        if not self.kept:
            return
        spans = [(self.reach([s]), float(s.duration * s.time_base)) for s in self.streams if s.duration]
        used = {s.index for s in self.streams}
        whole = all(s.index in used for kind in ("audio", "video") for s in tracks(self.container, kind))
        if len(spans) < len(used) and whole and self.container.duration:  # only the whole, as long as its longest stream, says
            spans.append((self.reach(self.streams), self.container.duration / 1_000_000))
        cut = [(f"{there:.1f} s", f"{stated:.1f} s") for there, stated in spans if cut_off(there, stated)]
        videos = [s for s in self.streams if s.type == "video" and len(self.kept[s.index]) < 0.9 * s.frames]
        cut += [(f"{len(self.kept[s.index])}", f"{s.frames} frames") for s in videos]
        for there, stated in cut[:1]:
            tell("cut", name=self.name, there=there, stated=stated)


def cut_off(there: float, stated: float) -> bool:
    """Whether of the stated seconds so many are missing that it is no rounding."""
    return 0 < there < stated - max(1.0, 0.1 * stated)


def decoder_for(stream: Any) -> Any:
    """The stream's decoder; for VP8 and VP9 with transparency, which FFmpeg's own leave out, that of libvpx."""
    import av

    codec = stream.codec_context
    library = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(codec.name)
    if library is None or stream.metadata.get("alpha_mode") != "1" or library not in av.codecs_available:
        return codec
    made = av.CodecContext.create(library, "r")
    made.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return made


def seconds_of(container: InputContainer, stream: Any) -> float | None:
    """Length in seconds, from the stream or the container, where either says."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None
