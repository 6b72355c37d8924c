"""Sound to film: a recording's embedding is followed through time, and every moment of it drawn from the same noise.

Windows of the recording are embedded; between them the path is a kernel regression on the sphere: the point at time t is

    z(t) = sum_i exp(-(t - t_i)^2 / 2 s^2) r_i z_i,  brought back to norm 1,

with t_i the middle of window i, r_i its loudness (so that a pause does not steer the picture) and s `smooth`. It is
defined, and smooth, at any t: the pictures need no other interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .media import Source, sound_blocks

if TYPE_CHECKING:
    from PIL import Image

    from .aligner import Aligner

SILENT = 1e-4  # a peak below this is no sound
LONGEST = 600.0  # seconds


@dataclass(frozen=True)
class Plan:
    """How a recording becomes a film; times in seconds.

    Attributes:
        window, hop: length of what is heard for one moment, and the time from one moment to the next.
        smooth: standard deviation of the kernel over time; larger is calmer.
        pictures: pictures drawn for each second; between them the film fades.
        fps: frames a second of the film.
        side: width and height of the film in pixels.
        seconds: only so much of the recording, from its start; all of it by default.
        longest: a recording that is longer is refused.
        batch: pictures drawn at a time, which bounds the memory.
    """

    window: float = 2.3
    hop: float = 0.5
    smooth: float = 0.5
    pictures: float = 6.0
    fps: int = 24
    side: int = 512
    seconds: float | None = None
    longest: float = LONGEST
    batch: int = 8

    def __post_init__(self) -> None:
        for name in ("window", "hop", "smooth", "pictures", "fps", "side", "longest", "batch"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a number above zero, got {value}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise InputError(f"seconds must be a number above zero, got {self.seconds}")
        if self.pictures > self.fps:
            raise InputError(f"{self.pictures:g} pictures a second need at least as many frames a second, got {self.fps}")
        if self.side % 2:
            raise InputError(f"side must be an even number of pixels, got {self.side}")


@dataclass
class Track:
    """A recording as embeddings: window middles (n,) in seconds, loudness (n,), unit vectors (n, d), and its length."""

    times: Tensor
    loudness: Tensor
    points: Tensor
    seconds: float

    def at(self, moments: Tensor, smooth: float) -> Tensor:
        """Unit embeddings (m, d) at times (m,), see the top of this file."""
        heard = self.loudness > 0
        times, points, loudness = self.times[heard], self.points[heard], self.loudness[heard]
        log_weights = -((moments[:, None] - times) ** 2) / (2 * smooth**2) + loudness.log()
        weights = log_weights.softmax(1)
        total = weights @ points
        nearest = points[log_weights.argmax(1)]  # stands in where the neighbours cancel out
        return F.normalize(torch.where(total.norm(dim=1, keepdim=True) < SILENT, nearest, total), dim=1)


@dataclass
class Window:
    """Mono samples (n,) around a moment, in seconds from the start."""

    middle: float
    samples: Tensor


def windows(blocks: Iterable[Tensor], rate: int, plan: Plan) -> Iterator[Window]:
    """What is heard around 0, hop, 2 hop ... seconds of a sound that comes in blocks (n,); cut off at both ends.

    Holds one window and one block in memory.
    """
    half, hop = round(plan.window * rate / 2), plan.hop * rate
    buffer, start, moment = torch.zeros(0), 0, 0
    for block in blocks:
        buffer = torch.cat([buffer, block])
        while (middle := round(moment * hop)) + half <= start + len(buffer):
            yield Window(middle / rate, buffer[max(0, middle - half) - start : middle + half - start])
            moment += 1
        done = min(max(0, round(moment * hop) - half - start), len(buffer))
        buffer, start = buffer[done:], start + done
    while (middle := round(moment * hop)) < start + len(buffer):
        yield Window(middle / rate, buffer[max(0, middle - half - start) :])
        moment += 1


def listen(aligner: Aligner, source: Source, plan: Plan, check: Callable[[], None] | None = None) -> Track:
    """The recording's windows, embedded; `check` is called before each, and may raise to stop.

    Raises:
        InputError: no sound, a silent recording, or more than `plan.longest` seconds where no part is asked for.
    """
    rate, length = aligner.sound_rate, 0

    def blocks() -> Iterator[Tensor]:
        nonlocal length
        for block in sound_blocks(source, rate, seconds=plan.seconds):
            length += block.shape[1]
            if plan.seconds is None and length > plan.longest * rate:
                raise InputError(f"{source} is longer than {plan.longest:g} s: ask for a part of it")
            yield block[0]

    times, loudness, points = [], [], []
    for window in windows(blocks(), rate, plan):
        if check is not None:
            check()
        audible = float(window.samples.abs().max()) >= SILENT
        times.append(window.middle)
        loudness.append(float(window.samples.square().mean().sqrt()) if audible else 0.0)
        points.append(aligner("audio", [window.samples])[0].cpu() if audible else torch.zeros(aligner.embed_dim))
    if not any(loudness):
        raise InputError(f"{source} is silent: there is nothing to draw")
    return Track(torch.tensor(times), torch.tensor(loudness), torch.stack(points), length / rate)


def draw_track(
    pipeline: Any,
    track: Track,
    plan: Plan,
    seed: int = 0,
    base: Tensor | None = None,
    share: float = 0.3,
    **options: Any,
) -> Iterator[list[Image.Image]]:
    """Pictures at `plan.pictures` a second, in batches, all from one noise.

    `base` (d,) is a prompt that stays: it has weight `share` beside the sound's `1 - share`. Points are drawn where
    they are; `make_film` moves them by the prior before. `options` are those of a call.
    """
    from .mixing import mix

    moments = torch.arange(picture_count(track.seconds, plan)) / plan.pictures
    path = track.at(moments, plan.smooth)
    if base is not None:
        path = mix([path, base.cpu().expand_as(path)], [1 - share, share])
    for part in path.split(plan.batch):
        yield pipeline(embeds=part, seed=[seed] * len(part), **options).images


def picture_count(seconds: float, plan: Plan) -> int:
    """How many pictures a film of so many seconds takes, the last one at or after its end."""
    return math.ceil(seconds * plan.pictures - 1e-6) + 1


def make_film(
    pipeline: Any,
    source: Source,
    out: Path,
    plan: Plan | None = None,
    seed: int = 0,
    base: Tensor | None = None,
    share: float = 0.3,
    progress: Callable[[int, int, list[Image.Image]], None] | None = None,
    check: Callable[[], None] | None = None,
    prior_strength: float | None = None,
    **options: Any,
) -> dict[str, float]:
    """Writes the film of a recording to `out`, an MP4 with H.264 and the recording as AAC.

    Args:
        base, share: a prompt's unit embedding (d,) that stays in the mix, and its weight; see `draw_track`.
        progress: called after each batch with pictures drawn, pictures in all, and the batch.
        check: called between windows; may raise to stop. An unfinished file is removed.
        prior_strength: how far windows move towards what the decoder knows; the checkpoint's own by default.
        options: those of a call of the pipeline, such as `num_inference_steps`.

    Returns:
        `seconds` of the film, `pictures` drawn, `windows` heard.

    Raises:
        InputError: the recording cannot be read, is silent or too long; or a bad option.
    """
    from .film_writer import FilmWriter
    from .pipelines.prior import move_to_known

    plan = plan or Plan()
    move = move_to_known(pipeline.prior, prior_strength)
    track = listen(pipeline.aligner, source, plan, check)
    if move is not None:
        track.points = move(track.points)
    total, done = picture_count(track.seconds, plan), 0
    try:
        with FilmWriter(out, source, track.seconds, plan) as writer:
            for batch in draw_track(pipeline, track, plan, seed, base, share, **options):
                writer.add(batch)
                done += len(batch)
                if progress is not None:
                    progress(done, total, batch)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return {"seconds": round(track.seconds, 3), "pictures": total, "windows": len(track.times)}
