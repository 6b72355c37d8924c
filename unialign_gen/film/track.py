"""Sound to film: a recording's embedding is followed through time, and every moment of it drawn from the same noise.

Windows of the recording are embedded; between them the path is a kernel regression on the sphere: the point at time t is

    z(t) = sum_i exp(-(t - t_i)^2 / 2 s^2) r_i z_i,  brought back to norm 1,

with t_i the middle of window i, r_i its loudness (so that a pause does not steer the picture) and s `smooth`. It is
defined, and smooth, at any t: the pictures need no other interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..media import sound_blocks
from ..media.files import Excerpt, name_of
from ..media.sound import SILENT, check_length
from .plan import Plan

if TYPE_CHECKING:
    from ..aligner import Aligner


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


def listen(aligner: Aligner, source: Any, plan: Plan, check: Callable[[], None] | None = None) -> Track:
    """The recording's windows, embedded; `check` is called before each, and may raise to stop.

    Raises:
        InputError: no sound, a silent recording, or more than `plan.longest` seconds where no part is asked for.
    """
    rate, part = aligner.sound_rate, Excerpt.of(source).seconds if plan.seconds is None else plan.seconds
    # decoded once before: embedding takes minutes, after which nobody wants to hear that it was too long
    blocks = sound_blocks(source, rate, seconds=plan.longest + 1 if part is None else part)
    seconds = sum(block.shape[1] for block in blocks) / rate
    if part is None and seconds > plan.longest:
        raise InputError(f"{name_of(source)} is longer than {plan.longest:g} s: ask for a part of it, so many seconds")
    check_length(name_of(source), seconds)
    times, loudness, points = [], [], []
    for window in windows((block[0] for block in sound_blocks(source, rate, seconds=part)), rate, plan):
        if check is not None:
            check()
        audible = float(window.samples.abs().max()) >= SILENT
        times.append(window.middle)
        loudness.append(float(window.samples.square().mean().sqrt()) if audible else 0.0)
        points.append(aligner("audio", [window.samples])[0].cpu() if audible else torch.zeros(aligner.embed_dim))
    if not any(loudness):
        raise InputError(f"{name_of(source)} is silent: there is nothing to draw")
    return Track(torch.tensor(times), torch.tensor(loudness), torch.stack(points), seconds)
