"""Travel: the way from prompt to prompt, all from one noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..mixing import mix, path
from ..notes import Note, collected
from ..request import Prompt, Request
from .decode_worker import DecodeWorker
from .engine import Engine, Job, Progress
from .limits import choice, whole, words
from .prompts import given_parts, words_and_file
from .runner import Action

BATCH = 4  # pictures drawn at a time: what is seen of the work, and how soon it stops


@dataclass
class Way:
    """Pictures in order; `names` of the stations and `stops`, the number of each one's picture."""

    pictures: list[Image.Image]
    names: list[str]
    stops: list[int]
    closed: bool
    notes: list[Note] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """For each picture where it lies, such as `a cat 0.75, a lion 0.25`."""
        ring = [*self.names, self.names[0]] if self.closed else self.names
        between = self.stops[1] - self.stops[0]
        out = []
        for i in range(len(self.pictures)):
            leg, share = i // between, (i % between) / between
            out.append(ring[leg] if share == 0 else f"{ring[leg]} {1 - share:.2f}, {ring[leg + 1]} {share:.2f}")
        return out


@dataclass
class Travel(Action):
    """A request, as it came; `run` checks it. A station has words, a file of any kind, or both in equal shares; `parts` are
    encoded prompts in JSON, a station each, in place of both."""

    texts: Sequence[Any] = ()
    files: Sequence[Any] = ()
    parts: Any = None
    between: Any = 8
    closed: Any = False
    mix: Any = "slerp"

    def run(self, engine: Engine, decode_worker: DecodeWorker, session: str = "") -> Iterator[Progress | Way]:
        """Progress with the pictures so far, then the way.

        Raises:
            InputError: fewer than two stations, or something that cannot be used.
            CancelledError: the session stopped it.
        """
        limits, plain = engine.limits, self.request(engine)
        method = choice(self.mix, "mix", ("lerp", "slerp"))
        between = whole(self.between, "pictures from stop to stop", 1, limits.frames)
        closed = bool(self.closed)
        rate = engine.rate(self.chosen(engine).label) if any(f is not None for f in self.files) else 0
        with collected() as self.told:
            stations = self.stations(decode_worker, limits, rate)
        total = (len(stations) if closed else len(stations) - 1) * between + (0 if closed else 1)
        if total > limits.frames:
            raise InputError(f"this way has {total} pictures: at most {limits.frames}, so ask for fewer from stop to stop")

        def work(pipeline: Any, job: Job[Way]) -> Way:
            points = list(pipeline.mixed(Request(tuple(stations), prior_strength=plain.prior_strength))[0])
            pictures: list[Image.Image] = []

            def step_end(*_: Any) -> None:
                job.check()

            for part in route(points, between, closed, method).split(BATCH):
                request = Request(
                    image_embeds=pipeline.embed_scale(part),
                    seed=(plain.seed,) * len(part),
                    steps=plain.steps,
                    guidance=plain.guidance,
                    callback_on_step_end=step_end,
                )
                pictures += pipeline.draw(request).images
                job.report(Progress(len(pictures), total, "drawing the way", pictures[-BATCH:]))
            names = [" + ".join(p.name for p in prompts) for prompts in stations]
            return Way(pictures, names, [i * between for i in range(len(stations))], closed)

        yield from self.do(engine, session, work, "reading the prompts")

    def stations(self, decode_worker: DecodeWorker, limits: Any, rate: int) -> list[tuple[Prompt, ...]]:
        """The stations that hold something."""
        if self.parts:
            out = [(p,) for p in given_parts(self.parts, limits)]
        else:
            said = [words(text, "a station's text", limits.text) for text in self.texts]
            found = zip(said, self.files, strict=True)
            out = [s for s in (words_and_file(decode_worker, t, f, "a station's file", rate) for t, f in found) if s]
        if len(out) < 2:
            raise InputError("a way needs two stations or more: write words, or add a file, in at least two of them")
        return out


def route(points: Sequence[Tensor], between: int, closed: bool, method: Any) -> Tensor:
    """Unit embeddings (n, d) along the way, `between` of them from each station (d,) to the next; the last one ends it."""
    ring = [*points, points[0]] if closed else list(points)
    legs = [path(a, b, between + 1, method)[:-1] for a, b in pairwise(ring)]
    return torch.cat([*legs, *([] if closed else [mix([points[-1]])[None]])])
