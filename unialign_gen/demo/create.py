"""Create: a mix of prompts to pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from ..notes import Note, collected
from ..request import Prompt, Request, checked
from ..request.picture_settings import PictureSettings
from .decode_worker import DecodeWorker
from .engine import Engine, Job, Progress
from .limits import choice, prior_strength, steps_and_guidance, whole
from .preview import Previewer
from .prompts import kept_prompts, method_for, nearest, prompts_of_page

MIXES = ("lerp", "slerp")


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
    notes: list[Note]


@dataclass
class Create:
    """A request, as it came; `run` checks it. Steps, guidance and prior are the model's own where they are None."""

    text: Any = None
    files: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    kept: Any = None
    mix: Any = "lerp"
    seed: Any = 0
    steps: Any = None
    guidance: Any = None
    pictures: Any = 1
    model: Any = "starter"
    prior: Any = None

    def run(self, engine: Engine, decode_worker: DecodeWorker, session: str = "") -> Iterator[Progress | Drawn]:
        """Progress with previews, then what was drawn.

        Raises:
            InputError: a prompt or a number that cannot be used.
            CancelledError: the session stopped it.
        """
        limits = engine.limits
        model = engine.model(self.model)
        asked = choice(self.mix, "mix", MIXES)
        pictures = whole(self.pictures, "pictures", 1, limits.pictures)
        steps, guidance = steps_and_guidance(limits, model, self.steps, self.guidance)
        prior = prior_strength(model, self.prior)
        seed = whole(self.seed, "seed", 0, limits.seed)
        rate = engine.rate(model.label) if any(v is not None for v in self.files.values()) else 0
        with collected() as told:
            prompts = prompts_of_page(decode_worker, limits, self.text, self.files, self.weights, kept_prompts(self.kept), rate)
        request = checked(
            Request,
            prompts=(prompts,),
            mix=method_for(asked, prompts),
            prior_strength=prior,
            seed=seed,
            steps=steps,
            guidance=guidance,
            pictures=pictures,
        )

        def work(job: Job[Drawn]) -> Drawn:
            pipeline = engine.pipeline(model.label)
            job.report(Progress(0, steps, "reading the prompt"))
            with collected() as notes:
                ready = pipeline.encoded(request)
                mixed = pipeline.mixed(ready)[0][0]
                each = pipeline.alone(ready)
                drawn = pipeline.draw(replace(ready, callback_on_step_end=step_reporter(pipeline, job, steps)))
            made = [drawn.request.picture(i) for i in range(pictures)]
            settings = [PictureSettings(r, model.checkpoint, model.decoder or "") for r in made]
            table = engine.concepts(model.label)
            near_each = [nearest(table, v, 3) for v in each]
            return Drawn(
                drawn.images, settings, nearest(table, mixed), near_each, prompts, list(dict.fromkeys([*told, *notes]))
            )

        yield from engine.run(work, session, "create")


def step_reporter(pipeline: Any, job: Job[Any], steps: int) -> Callable[..., None]:
    """A callback that reports each step, with a preview where there is time for one."""
    previewer = Previewer(pipeline)

    def step_end(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> None:
        job.report(Progress(step + 1, steps, "drawing", previewer.look(step, tensors["latents"])))

    return step_end
