"""Travel: the way from prompt to prompt, all from one noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..film.sheets import save_sequence
from ..mixing import mix, path
from ..request import Request
from .action import Work, watched
from .context import AppContext
from .engine import Job, Progress
from .film import Film, Moving
from .limits import choice, whole

BATCH = 4  # pictures drawn at a time: what is seen of the work, and how soon it stops
RATE, SIDE = 8, 384  # pictures a second and pixels of what is exported


@dataclass
class Travel(Moving):
    """Pictures from station to station, each one of `kept`."""

    between: int = 8
    closed: bool = False
    mix: str = "slerp"
    first: ClassVar[str] = "reading the prompts"

    def prepare(self, context: AppContext) -> Work:
        limits, plain = context.limits, self.request(context)
        method = choice(self.mix, "mix", ("lerp", "slerp"))
        between = whole(self.between, "pictures from stop to stop", 1, limits.frames)
        closed = bool(self.closed)
        stations = [(replace(p, weight=1.0),) for p in self.prompts(context)]
        if len(stations) < 2:
            raise InputError("a way needs two stations or more: write words, or add a file, for each")
        total = (len(stations) if closed else len(stations) - 1) * between + (0 if closed else 1)
        if total > limits.frames:
            raise InputError(f"this way has {total} pictures: at most {limits.frames}, so ask for fewer from stop to stop")
        out = context.folder() / "way.mp4"

        def work(pipeline: Any, job: Job) -> Film:
            points = list(pipeline.mixed(Request(tuple(stations), prior_strength=plain.prior_strength))[0])
            pictures: list[Image.Image] = []
            for part in route(points, between, closed, method).split(BATCH):
                pictures += pipeline(embeds=part, seed=[int(self.seed)] * len(part), **watched(plain, job)).images
                job.report(Progress(len(pictures), total, "drawing the way", pictures[-BATCH:]))
            names = [p.name for (p,) in stations]
            large = [p.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for p in pictures]
            for file in (out, out.with_suffix(".webm")):
                save_sequence(large, file, RATE)
            return Film(pictures, labels(names, between, closed, total), RATE, out, back=not closed)

        return work


def labels(names: Sequence[str], between: int, closed: bool, total: int) -> list[str]:
    """For each picture where it lies, such as `a cat 0.75, a lion 0.25`."""
    ring, out = [*names, names[0]] if closed else names, []
    for i in range(total):
        leg, share = i // between, (i % between) / between
        out.append(ring[leg] if share == 0 else f"{ring[leg]} {1 - share:.2f}, {ring[leg + 1]} {share:.2f}")
    return out


def route(points: Sequence[Tensor], between: int, closed: bool, method: Any) -> Tensor:
    """Unit embeddings (n, d) along the way, `between` of them from each station (d,) to the next; the last one ends it."""
    ring = [*points, points[0]] if closed else list(points)
    legs = [path(a, b, between + 1, method)[:-1] for a, b in pairwise(ring)]
    return torch.cat([*legs, *([] if closed else [mix([points[-1]])[None]])])
