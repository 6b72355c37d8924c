"""Film: a recording plays while the picture follows it, and the forms in which moving pictures are handed out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gradio_client import handle_file
from PIL import Image

from ..errors import InputError
from ..film import FilmWriter, Plan, make_film
from ..film.sheets import save_sequence
from ..media import Sound
from ..request import Request
from . import html
from .action import Action, Result, Upload, Work, watched
from .context import AppContext
from .engine import Job, Progress
from .limits import decimal

GIF_SIDE, THUMBS = 320, 48


@dataclass
class Film(Result):
    """Pictures with a label each, their number a second, the MP4 that was made of them, a WebM beside it, and what to say."""

    pictures: list[Image.Image]
    labels: list[str]
    rate: float
    path: Path
    said: str = ""
    back: bool = False  # whether the GIF returns to its start


class Moving(Action):
    """An action whose result is a film."""

    outputs: ClassVar[dict[str, Any]] = {"film": dict, "exports": list, "stage": str}

    def answer(self, result: Film, context: AppContext) -> dict[str, Any]:
        files = [result.path.with_suffix(suffix) for suffix in (".gif", ".mp4", ".webm")]
        small = [p.resize((GIF_SIDE, GIF_SIDE)) for p in result.pictures]
        save_sequence(small, files[0], max(1, round(result.rate)), result.back)
        frames = [(i / result.rate, *both) for i, both in enumerate(zip(result.labels, result.pictures, strict=True))]
        stage = html.fragment("moving", result.said, result.notes, frames[:: -(-len(frames) // THUMBS)], files)
        return {"film": handle_file(files[1]), "exports": [handle_file(f) for f in files], "stage": stage}


@dataclass
class Animate(Moving):
    """A film of a recording: `pictures` a second, `smooth` in seconds; the prompt stays in the mix with `text_weight`."""

    sound: Upload | None = None
    text_weight: float = 0.3
    pictures: float = 4
    smooth: float = 0.5
    first: ClassVar[str] = "listening"

    def prepare(self, context: AppContext) -> Work:
        limits, plain, stay = context.limits, self.request(context), self.prompts(context)
        share = decimal(self.text_weight, "the weight of the words", 0, 1)
        rate = decimal(self.pictures, "pictures a second", 1, limits.film_pictures)
        smooth = decimal(self.smooth, "smoothness", 0.1, 5)
        plan = Plan(pictures=rate, smooth=smooth, longest=limits.film_seconds + 1, batch=4)
        if not isinstance(self.sound, str):
            raise InputError("nothing to play: add a recording, or record one")
        track = context.decode_worker.decode("track", self.sound)
        assert isinstance(track.value, Sound)
        recording, path = track.value, context.folder() / "film.mp4"

        def work(pipeline: Any, job: Job) -> Film:
            base = pipeline.mixed(Request((stay,), prior_strength=plain.prior_strength))[0][0] if stay else None
            pictures: list[Image.Image] = []

            def progress(done: int, total: int, batch: list[Image.Image]) -> None:
                pictures.extend(batch)
                job.report(Progress(done, total, "drawing the film", batch))

            options = {"progress": progress, "check": job.check, "prior_strength": plain.prior_strength}
            made = make_film(pipeline, recording, path, plan, int(self.seed), base, share, **options, **watched(plain, job))
            with FilmWriter(path.with_suffix(".webm"), recording, made["seconds"], plan) as webm:
                webm.add(pictures)
            said = f"{made['seconds']:.1f} s, {made['pictures']} pictures"
            if track.seconds is not None and track.seconds > made["seconds"] + 0.1:
                said += f"; the first {limits.film_seconds:.0f} s of {track.name}"
            return Film(pictures, [f"picture {i + 1}" for i in range(len(pictures))], rate, path, said)

        return work
