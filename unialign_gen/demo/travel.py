"""Travel: the way from prompt to prompt, all from one noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..film.sheets import save_sequence
from ..mixing import mix, path
from ..notes import Note, collected
from ..request import Prompt, Request
from . import html
from .action import Action, Upload
from .context import AppContext
from .engine import Job, Progress
from .film import save_webm
from .limits import choice, whole

BATCH = 4  # pictures drawn at a time: what is seen of the work, and how soon it stops
RATE, SIDE = 8, 384  # pictures a second and pixels of what is exported


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
    """Pictures from station to station: each has words, a file of any kind, or both in equal shares, or is one of `kept`,
    which stand in place of these."""

    text_1: str = "a cat"
    text_2: str = "a lion"
    text_3: str = ""
    text_4: str = ""
    file_1: Upload | None = None
    file_2: Upload | None = None
    file_3: Upload | None = None
    file_4: Upload | None = None
    between: int = 8
    closed: bool = False
    mix: str = "slerp"
    outputs: ClassVar[dict[str, Any]] = {"exports": partial(gr.File, file_count="multiple"), "stage": gr.Textbox}

    def run(self, context: AppContext, session: str = "") -> Iterator[Progress | Way]:
        limits, plain = context.limits, self.request(context)
        method = choice(self.mix, "mix", ("lerp", "slerp"))
        between = whole(self.between, "pictures from stop to stop", 1, limits.frames)
        closed = bool(self.closed)
        with collected() as told:
            stations = self.stations(context)
        total = (len(stations) if closed else len(stations) - 1) * between + (0 if closed else 1)
        if total > limits.frames:
            raise InputError(f"this way has {total} pictures: at most {limits.frames}, so ask for fewer from stop to stop")

        def work(pipeline: Any, job: Job[Way]) -> Way:
            points = list(pipeline.mixed(Request(tuple(stations), prior_strength=plain.prior_strength))[0])
            pictures: list[Image.Image] = []
            for part in route(points, between, closed, method).split(BATCH):
                request = Request(
                    image_embeds=pipeline.embed_scale(part),
                    seed=(int(self.seed),) * len(part),
                    steps=plain.steps,
                    guidance=plain.guidance,
                    callback_on_step_end=lambda *_: job.check(),
                )
                pictures += pipeline.draw(request).images
                job.report(Progress(len(pictures), total, "drawing the way", pictures[-BATCH:]))
            names = [" + ".join(p.name for p in prompts) for prompts in stations]
            return Way(pictures, names, [i * between for i in range(len(stations))], closed)

        yield from self.job(context, session, work, told, "reading the prompts")

    def stations(self, context: AppContext) -> list[tuple[Prompt, ...]]:
        """The stations that hold something."""
        if self.kept:
            out: list[tuple[Prompt, ...]] = [(replace(p, weight=1.0),) for p in self.prompts(context)]
        else:
            each = [replace(self, text=getattr(self, f"text_{i}")) for i in range(1, 5)]
            files = [{"any": getattr(self, f"file_{i}")} for i in range(1, 5)]
            out = [s for s in (one.prompts(context, file) for one, file in zip(each, files, strict=True)) if s]
        if len(out) < 2:
            raise InputError("a way needs two stations or more: write words, or add a file, in at least two of them")
        return out

    def answer(self, result: Way, context: AppContext) -> dict[str, Any]:
        folder = context.folder()
        large = [p.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for p in result.pictures]
        files = [folder / "way.gif", folder / "way.mp4"]
        for file in files:
            save_sequence(large, file, RATE, back=not result.closed)
        files.append(save_webm(files[1], folder / "way.webm"))
        frames = [(i / RATE, *both) for i, both in enumerate(zip(result.labels, result.pictures, strict=True))]
        return {"exports": [str(f) for f in files], "stage": html.fragment("moving", "", result.notes, frames, files)}


def route(points: Sequence[Tensor], between: int, closed: bool, method: Any) -> Tensor:
    """Unit embeddings (n, d) along the way, `between` of them from each station (d,) to the next; the last one ends it."""
    ring = [*points, points[0]] if closed else list(points)
    legs = [path(a, b, between + 1, method)[:-1] for a, b in pairwise(ring)]
    return torch.cat([*legs, *([] if closed else [mix([points[-1]])[None]])])
