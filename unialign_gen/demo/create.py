"""Create and Edit: a mix of prompts to pictures, or to what is painted out of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from ..errors import InputError
from ..notes import Note, collected
from ..pipelines import Edit
from ..request import Prompt
from ..request.picture_settings import PictureSettings
from .decode_worker import DecodeWorker
from .engine import Engine, Job, Progress
from .limits import choice, decimal, whole
from .preview import Previewer
from .prompts import decoded, given_parts, kept_prompts, method_for, nearest, prompts_of_page
from .runner import Action

MIXES = ("lerp", "slerp", "spherical_mean")
CANDIDATES = 16  # of best-of, at most


@dataclass
class Drawn:
    """What was drawn, what makes each picture again, and what the prompts were understood as.

    `nearest` are concepts with cosines of the mix; `nearest_each` the same of each prompt by its number.
    """

    pictures: list[Image.Image]
    settings: list[PictureSettings]
    nearest: list[tuple[str, float]]
    nearest_each: list[list[tuple[str, float]]]
    prompts: tuple[Prompt, ...]
    notes: list[Note] = field(default_factory=list)


@dataclass
class Create(Action):
    """A request, as it came; `run` checks it.

    Attributes:
        text, files, weights: one input of each kind. kept: what a picture stands for, in JSON; a file takes its place.
        parts: any number of encoded prompts in JSON, each with its weight, in place of all of the above.
        best: candidates of which the best is kept.
        picture, mask, strength: an upload to be changed, and where and how much; None for the library's own.
    """

    text: Any = None
    files: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    kept: Any = None
    parts: Any = None
    mix: Any = "lerp"
    pictures: Any = 1
    best: Any = 1
    picture: Any = None
    mask: Any = None
    strength: Any = None

    def prompts(self, engine: Engine, decode_worker: DecodeWorker) -> tuple[Prompt, ...]:
        if self.parts:
            return given_parts(self.parts, engine.limits)
        rate = engine.rate(self.chosen(engine).label) if any(v is not None for v in self.files.values()) else 0
        return prompts_of_page(
            decode_worker, engine.limits, self.text, self.files, self.weights, kept_prompts(self.kept), rate
        )

    def edit(self, decode_worker: DecodeWorker) -> Edit | None:
        """What is to be changed; None to draw from nothing."""
        if self.picture is None:
            return None
        strength = None if self.strength is None else decimal(self.strength, "strength", 0, 1)
        picture, mask = (
            None if file is None else decoded(decode_worker, "image", file, 0).value for file in (self.picture, self.mask)
        )
        return Edit(picture, mask, strength)

    def run(self, engine: Engine, decode_worker: DecodeWorker, session: str = "") -> Iterator[Progress | Drawn]:
        """Progress with previews, then what was drawn.

        Raises:
            InputError: a prompt or a number that cannot be used.
            CancelledError: the session stopped it.
        """
        model, best = self.chosen(engine), whole(self.best, "best of", 1, CANDIDATES)
        pictures = whole(self.pictures, "pictures", 1, engine.limits.pictures)
        if best > 1 and (pictures > 1 or self.picture is not None):
            raise InputError("best of keeps one new picture: ask for one picture, or leave best of at 1")
        method = choice(self.mix, "mix", MIXES)
        self.request(engine)  # its numbers, before any file is read
        with collected() as self.told:
            prompts, edit = self.prompts(engine, decode_worker), self.edit(decode_worker)
        request = self.request(engine, prompts=(prompts,), mix=method_for(method, prompts), pictures=pictures)
        steps = request.steps or 1

        def work(pipeline: Any, job: Job[Drawn]) -> Drawn:
            ready = pipeline.encoded(request)
            mixed, each = pipeline.mixed(ready)[0][0], pipeline.alone(ready)
            ready = replace(ready, callback_on_step_end=step_reporter(pipeline, job, steps))
            if edit is not None:
                drawn = pipeline.draw_edit(edit, ready)
            else:
                drawn = pipeline.draw_best(best, ready) if best > 1 else pipeline.draw(ready)
            made = [drawn.request.picture(i) for i in range(pictures)]
            settings = [PictureSettings(r, model.checkpoint, model.decoder or "") for r in made]
            table = engine.concepts(model.label)
            return Drawn(drawn.images, settings, nearest(table, mixed), [nearest(table, v, 3) for v in each], prompts)

        yield from self.do(engine, session, work)


def step_reporter(pipeline: Any, job: Job[Any], steps: int) -> Callable[..., None]:
    """A callback that reports each step, with a preview where there is time for one."""
    previewer = Previewer(pipeline)

    def step_end(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> None:
        job.report(Progress(min(step + 1, steps), steps, "drawing", previewer.look(step, tensors["latents"])))

    return step_end
