"""Pictures and sound out of an open container, one pass over it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import InputError
from .playhead import Playhead, times_of

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from PIL import Image

LISTEN_SECONDS = 30.0
WINDOWS = 3
KEEP_BYTES = 32_000_000  # files up to this size are read once
RUN_BYTES = 64_000_000  # between two keyframes of a larger file
MAX_PACKETS = 20_000  # decoded for the pictures of one file
STEPS_BACK = (0, 2, 10)  # seconds before a wanted time that a seek may have to start at
REORDER = 32  # packets after the wanted one, since the order of decoding is not that of showing
RUN_UP = 1.0  # seconds of sound decoded before a stretch, for codecs whose frames overlap


class Reading:
    """One pass over some streams of a container.

    Args:
        streams: those whose packets are kept if the file is small enough; none to seek in any case.
        patience: seconds until an `InputError`, for files that decode without end.
        name: of the file, for messages.
    """

    def __init__(self, container: InputContainer, streams: Sequence[Any], patience: float | None, name: str):
        self.container, self.streams, self.name = container, streams, name
        self.patience, self.began = patience, time.monotonic()
        self.fed = 0
        self.kept = self.keep() if streams and container.size <= KEEP_BYTES else None

    def keep(self) -> dict[int, list[Any]]:
        """The packets of the streams in the order of the file, as far as there are any."""
        kept: dict[int, list[Any]] = {stream.index: [] for stream in self.streams}
        for packet in self.demux(*self.streams):
            kept[packet.stream.index].append(packet)
        return kept

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
        """Those at the middles of `count` equal stretches.

        Raises:
            InputError: there is none that can be decoded.
        """
        frames = self.from_kept(stream, count) if self.kept is not None else self.by_seeking(stream, count)
        if not frames:
            raise InputError(f"{self.name}: no frame can be decoded (damaged or cut off)")
        return [upright(frame) for frame in frames]

    def from_kept(self, stream: Any, count: int) -> list[av.VideoFrame]:
        packets = (self.kept or {})[stream.index]
        if not packets:
            return []
        times = times_of(packets)
        first, last = min(times), max(times)
        step = 1.0 if isinstance(times, range) else packets[times.index(last)].duration
        step = step or (last - first) / max(1, len(times) - 1) or 1
        wants = [first + (last + step - first) * (i + 0.5) / count for i in range(count)]
        head = Playhead(stream, packets, times, wants, self.count)
        return [frame for frame in map(head.at, wants) if frame is not None]

    def by_seeking(self, stream: Any, count: int) -> list[av.VideoFrame]:
        length = seconds_of(self.container, stream)
        if length is None:
            raise InputError(f"{self.name} does not say how long it is, and is too large to be read whole")
        frames = []
        for i in range(count):
            want = (stream.start_time or 0) + length * (i + 0.5) / count / float(stream.time_base)
            packets = self.run(stream, want)
            if packets:
                frame = Playhead(stream, packets, times_of(packets), [want], self.count).at(want)
                frames += [] if frame is None else [frame]
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

    def sound(self, stream: Any, rate: int) -> Tensor:
        """Mono samples (n,) at `rate` Hz: all of up to 30 s, of a longer sound 10 s at its start, middle and end.

        Raises:
            InputError: none can be decoded.
        """
        length = self.reach([stream]) if self.kept is not None else seconds_of(self.container, stream)
        if length is None or length <= LISTEN_SECONDS + 1:
            samples = stretch(self.heard(stream, None), rate, LISTEN_SECONDS)
        else:
            window = LISTEN_SECONDS / WINDOWS
            starts = [i * (length - window) / (WINDOWS - 1) for i in range(WINDOWS)]
            samples = torch.cat([stretch(self.heard(stream, at), rate, window) for at in starts])
        if len(samples) == 0:
            raise InputError(f"{self.name}: its sound cannot be decoded (damaged or cut off)")
        return samples

    def heard(self, stream: Any, start: float | None) -> Iterator[av.AudioFrame]:
        """Decoded sound from `start` seconds on, packets that cannot be decoded left out, as players do."""
        import av

        begin = None if start is None else start + float((stream.start_time or 0) * stream.time_base)
        packets: Iterable[Any]
        if self.kept is not None:
            stream.codec_context.flush_buffers()
            packets = self.kept[stream.index]
            if begin is not None:
                packets = [p for p in packets if p.pts is None or float(p.pts * stream.time_base) >= begin - RUN_UP]
        else:
            if begin is not None:
                self.container.seek(int(max(0, begin - RUN_UP) / stream.time_base), stream=stream)
            packets = self.demux(stream)
        for packet in chain_end(packets):
            self.check()
            try:
                frames = stream.codec_context.decode(packet)
            except (av.FFmpegError, ValueError):
                continue
            for frame in frames:
                if begin is None or frame.time is None or frame.time + frame.samples / frame.sample_rate > begin:
                    yield frame

    def reach(self, streams: Sequence[Any]) -> float:
        """Seconds from the first packet of the streams to the end of the last."""
        spans = []
        for stream in streams:
            packets = (self.kept or {})[stream.index]
            if packets and any(p.pts is not None for p in packets):
                timed = [p for p in packets if p.pts is not None]
                spans.append((min(p.pts for p in timed), max(p.pts + (p.duration or 0) for p in timed), stream.time_base))
        return max((float((end - begin) * base) for begin, end, base in spans), default=0.0)

    def notes(self) -> list[str]:
        """What is wrong with a file that could be read: that it ends before it says it does."""
        stated = self.container.duration
        if self.kept is None or not stated:
            return []
        reach, seconds = self.reach(self.streams), stated / 1_000_000
        short = 0 < reach < seconds - max(1.0, 0.1 * seconds)
        few = any(s.type == "video" and len(self.kept[s.index]) < 0.9 * s.frames for s in self.streams)
        return [f"cut off: {reach:.1f} of {seconds:.1f} s are there"] if short or few else []


def upright(frame: av.VideoFrame) -> Image.Image:
    picture = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if getattr(frame, "rotation", 0) else picture


def chain_end(packets: Iterable[Any]) -> Iterator[Any]:
    """The packets and then None, which makes a decoder give what it holds back."""
    yield from packets
    yield None


def videos_of(container: InputContainer) -> list[Any]:
    """The video streams; the picture of a cover in a sound file is none."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def seconds_of(container: InputContainer, stream: Any) -> float | None:
    """Length in seconds, from the stream or the container, where either says."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def stretch(frames: Iterable[av.AudioFrame], rate: int, seconds: float) -> Tensor:
    """Up to `seconds` of sound as mono samples (n,) at `rate` Hz."""
    import av

    resampler = av.AudioResampler("fltp", "mono", rate)
    pieces: list[av.AudioFrame] = []
    wanted = int(seconds * rate)
    got = 0
    try:
        for frame in frames:
            for piece in resampler.resample(frame):
                pieces.append(piece)
                got += piece.samples
            if got >= wanted:
                break
        else:
            pieces += resampler.resample(None)
    except (av.FFmpegError, ValueError):  # the format changes on the way: what came before counts
        pass
    return gather(pieces)[:wanted]


def gather(frames: Sequence[av.AudioFrame]) -> Tensor:
    parts = [torch.from_numpy(f.to_ndarray().copy()).reshape(-1) for f in frames]
    return torch.nan_to_num(torch.cat(parts)) if parts else torch.zeros(0)
