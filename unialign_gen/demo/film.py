"""Film: a recording plays while the picture follows it. Travel: the way from prompt to prompt. All from one noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from gradio_client import handle_file
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..film import FilmWriter, Plan, make_film
from ..film.sheets import save_sequence
from ..mixing import mix, path
from ..notes import Note
from . import html
from .action import Action, Upload, Work, watched
from .engine import AppContext, Job, Progress
from .limits import choice, decimal, whole

GIF_SIDE, THUMBS = 320, 48
BATCH = 4  # pictures drawn at a time: what is seen of the work, and how soon it stops
RATE, SIDE = 8, 384  # pictures a second and pixels of the films of a way
OUTPUTS = {"film": dict, "exports": list, "stage": str}
Frames = list[tuple[str, Image.Image]]  # labels and pictures


def exported(film: Path, frames: Frames, rate: float, notes: list[Note], said: str = "", back: bool = False) -> dict[str, Any]:
    """The outputs of an MP4 with a WebM beside it: its frames, so many a second, as a GIF, there and `back`, and a timeline."""
    files = [film.with_suffix(suffix) for suffix in (".gif", ".mp4", ".webm")]
    save_sequence([p.resize((GIF_SIDE, GIF_SIDE)) for _, p in frames], files[0], max(1, round(rate)), back)
    timed = [(i / rate, *frame) for i, frame in enumerate(frames)]
    stage = html.fragment("moving", said, notes, timed[:: -(-len(timed) // THUMBS)], files)
    return {"film": handle_file(files[1]), "exports": [handle_file(f) for f in files], "stage": stage}


@dataclass
class Animate(Action):
    """A film of a recording: `pictures` a second, `smooth` in seconds; the prompt stays in the mix with `text_weight`."""

    sound: Upload | None = None
    text_weight: float = 0.3
    pictures: float = 4
    smooth: float = 0.5
    outputs: ClassVar[dict[str, Any]] = OUTPUTS
    first: ClassVar[str] = "listening"

    def prepare(self, context: AppContext) -> Work:
        limits, plain, stay = context.limits, self.request(context), self.prompts(context)
        share = decimal(self.text_weight, "the weight of the words", 0, 1)
        rate = decimal(self.pictures, "pictures a second", 1, limits.film_pictures)
        smooth = decimal(self.smooth, "smoothness", 0.1, 5)
        plan = Plan(pictures=rate, smooth=smooth, longest=limits.film_seconds + 1, batch=BATCH)
        if not isinstance(self.sound, str):
            raise InputError("nothing to play: add a recording, or record one")
        track = context.decode_worker.decode("track", self.sound)
        recording, out = track.value, context.folder() / "film.mp4"

        def work(pipeline: Any, job: Job) -> dict[str, Any]:
            base = pipeline.mixed(pipeline.sampled(replace(plain, prompts=(stay,))))[0][0] if stay else None
            frames: Frames = []

            def progress(done: int, total: int, batch: list[Image.Image]) -> None:
                frames.extend((f"picture {i}", picture) for i, picture in enumerate(batch, len(frames) + 1))
                job.report(Progress(done, total, "drawing the film", batch))

            options: dict[str, Any] = {"progress": progress, "check": job.check, "prior_strength": plain.prior_strength}
            made = make_film(pipeline, recording, out, plan, int(self.seed), base, share, **options, **watched(plain, job))
            with FilmWriter(out.with_suffix(".webm"), recording, made["seconds"], plan) as webm:
                webm.add([picture for _, picture in frames])
            said = f"{made['seconds']:.1f} s, {made['pictures']} pictures"
            if track.seconds is not None and track.seconds > made["seconds"] + 0.1:
                said += f"; the first {limits.film_seconds:.0f} s of {track.name}"
            return exported(out, frames, rate, job.notes, said)

        return work


@dataclass
class Travel(Action):
    """Pictures from stop to stop, each one of `kept`."""

    between: int = 8
    closed: bool = False
    mix: str = "slerp"
    outputs: ClassVar[dict[str, Any]] = OUTPUTS
    first: ClassVar[str] = "reading the prompts"

    def prepare(self, context: AppContext) -> Work:
        limits, plain = context.limits, self.request(context)
        method = choice(self.mix, "mix", ("lerp", "slerp"))
        between = whole(self.between, "pictures from stop to stop", 1, limits.frames)
        closed = bool(self.closed)
        stops = [(replace(p, weight=1.0),) for p in self.prompts(context)]
        if len(stops) < 2:
            raise InputError("a way needs two stops or more: write words, or add a file, for each")
        names = labels([p.name for (p,) in stops], between, closed)
        if len(names) > limits.frames:
            raise InputError(f"this way has {len(names)} pictures: at most {limits.frames}, so ask for fewer from stop to stop")
        out = context.folder() / "way.mp4"

        def work(pipeline: Any, job: Job) -> dict[str, Any]:
            way = replace(plain, prompts=tuple(stops), seed=(int(self.seed),) * len(stops))
            points = list(pipeline.mixed(pipeline.sampled(way))[0])
            pictures: list[Image.Image] = []
            for part in route(points, between, closed, method).split(BATCH):
                pictures += pipeline(embeds=part, seed=[int(self.seed)] * len(part), **watched(plain, job)).images
                job.report(Progress(len(pictures), len(names), "drawing the way", pictures[-BATCH:]))
            large = [p.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for p in pictures]
            for file in (out, out.with_suffix(".webm")):
                save_sequence(large, file, RATE)
            return exported(out, list(zip(names, pictures, strict=True)), RATE, job.notes, back=not closed)

        return work


def labels(names: Sequence[str], between: int, closed: bool) -> list[str]:
    """For each picture of a way where it lies, such as `a cat 0.75, a lion 0.25`."""
    ring, out = [*names, names[0]] if closed else names, []
    for a, b in pairwise(ring):
        out += [a, *(f"{a} {1 - i / between:.2f}, {b} {i / between:.2f}" for i in range(1, between))]
    return out if closed else [*out, names[-1]]


def route(points: Sequence[Tensor], between: int, closed: bool, method: Any) -> Tensor:
    """Unit embeddings (n, d) along the way, `between` of them from each stop (d,) to the next; the last one ends it."""
    ring = [*points, points[0]] if closed else list(points)
    legs = [path(a, b, between + 1, method)[:-1] for a, b in pairwise(ring)]
    return torch.cat([*legs, *([] if closed else [mix([points[-1]])[None]])])
