"""Moving through a video to wanted times.

The picture at a time is the one on the screen then, the last that was shown at or before it, so a variable frame rate needs
no care. Only the packets from the last keyframe before it are decoded, and of those not the ones that nothing refers to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av


class Playhead:
    """Moves forwards through a video's packets and stops at wanted times, which never go back.

    Args:
        codec: the decoder.
        packets: in the order of decoding.
        wants: every time that `at` will be called with, in units of the stream's time base.
        count: called for each packet that is decoded.
    """

    def __init__(self, codec: Any, packets: Sequence[Any], wants: Sequence[float], count: Callable[[], None]):
        self.codec, self.packets, self.times, self.count = codec, packets, times_of(packets), count
        self.timed = not isinstance(self.times, range)
        self.keys = [i for i, p in enumerate(packets) if p.is_keyframe] if self.timed else []
        # packets that bring a palette, which those behind them need; one is often at the start alone
        self.palettes = [i for i, p in enumerate(packets) if p.has_sidedata("palette") or (i == 0 and codec.pix_fmt == "pal8")]
        self.targets = {self.target(want) for want in wants}
        self.next, self.numbered, self.ended = 0, 0, False
        self.failed = 0  # packets that cannot be decoded
        self.ahead: deque[tuple[float, av.VideoFrame]] = deque()
        self.shown: av.VideoFrame | None = None
        self.codec.flush_buffers()

    def target(self, want: float) -> float:
        """When what is on the screen at a time was first shown."""
        return max((t for t in self.times if t <= want), default=min(self.times))

    def at(self, want: float) -> av.VideoFrame | None:
        """The frame on the screen at a time; None if none can be decoded."""
        target = self.target(want)
        place = self.times.index(target)
        key = max((k for k in self.keys if k <= place and self.times[k] <= target), default=0)
        if key > self.next:
            self.jump(key)
        while True:
            while self.ahead:
                moment, frame = self.ahead[0]
                if moment > want and self.shown is not None:
                    return self.shown
                self.ahead.popleft()
                self.shown = frame
                if moment >= target:
                    return frame
            if self.ended:
                return self.shown
            self.feed()

    def jump(self, key: int) -> None:
        """Goes on at a later keyframe, past the last palette before it."""
        passed = [i for i in self.palettes if self.next <= i < key]
        if passed:
            self.next = passed[-1]
            self.feed()
        self.codec.flush_buffers()
        self.ahead.clear()
        self.next, self.shown = key, None

    def feed(self) -> None:
        """Decodes one packet more, or what the decoder holds back at the end."""
        import av

        packet = self.packets[self.next] if self.next < len(self.packets) else None
        if packet is not None:
            wanted = not self.timed or self.times[self.next] in self.targets
            self.codec.skip_frame = "DEFAULT" if wanted else "NONREF"
            self.count()
        self.next, self.ended = self.next + 1, packet is None
        try:
            frames = self.codec.decode(packet)
        except (av.FFmpegError, ValueError):
            self.failed += 1
            return
        for frame in frames:
            self.failed += frame.is_corrupt
            if not frame.is_corrupt:
                moment = frame.pts if self.timed and frame.pts is not None else self.numbered
                self.ahead.append((moment, frame))
            self.numbered += 1


def times_of(packets: Sequence[Any]) -> Sequence[float]:
    """When each packet is shown, in units of its time base; its number where the file has no times."""
    times = [p.pts if p.pts is not None else p.dts for p in packets]
    return range(len(packets)) if any(t is None for t in times) else times
