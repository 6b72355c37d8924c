"""Create: a mix of prompts to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from .. import __version__
from ..settings_png import Prompt, Settings
from .decode_worker import DecodeWorker
from .engine import Engine, Job, Progress
from .limits import choice, prior_strength, steps_and_guidance, whole
from .preview import Previewer
from .prompts import Part, embed_parts, method_for, nearest, tiles

MIXES = ("lerp", "slerp")


@dataclass
class Drawn:
    """What was drawn, what makes it again, and what the prompts were taken for.

    `nearest` are concepts with cosines of the mix; `apart` the same of each part by its number.
    """

    pictures: list[Image.Image]
    settings: list[Settings]
    nearest: list[tuple[str, float]]
    apart: list[list[tuple[str, float]]]
    parts: list[Part]


@dataclass
class Create:
    """A request, as it came; `run` checks it. Steps, guidance and prior are the model's own where they are None."""

    text: Any = None
    files: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    kept: Sequence[Prompt] = ()
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
        parts = tiles(decode_worker, limits, self.text, self.files, self.weights, self.kept, rate)
        method = method_for(asked, parts)

        def work(job: Job[Drawn]) -> Drawn:
            pipeline = engine.pipeline(model.label)
            job.report(Progress(0, steps, "reading the prompt"))
            found = embed_parts(pipeline, parts, method, prior)
            images = sample(pipeline, job, found.mixed, seed, steps, guidance, pictures)
            prompts = tuple(part.prompt(vector) for part, vector in zip(parts, found.own, strict=True))
            one = Settings(
                prompts,
                method,
                seed,
                steps,
                guidance,
                pictures,
                checkpoint=model.checkpoint,
                decoder=model.decoder or "",
                version=__version__,
                prior_strength=prior,
            )
            settings = [Settings(**{**vars(one), "index": i}) for i in range(pictures)]
            table = engine.concepts(model.label)
            return Drawn(images, settings, nearest(table, found.mixed), [nearest(table, v, 3) for v in found.drawn], parts)

        yield from engine.run(work, session, "create")


def sample(
    pipeline: Any, job: Job[Any], vector: Any, seed: int, steps: int, guidance: float, pictures: int
) -> list[Image.Image]:
    """Pictures of one unit embedding (d,); each step is reported, with a preview where there is time for one."""
    previewer = Previewer(pipeline)

    def step_end(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        job.report(Progress(step + 1, steps, "drawing", previewer.look(step, tensors["latents"])))
        return tensors

    return pipeline(
        image_embeds=pipeline.embed_scale(vector[None]),
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=guidance,
        num_images_per_prompt=pictures,
        callback_on_step_end=step_end,
    ).images
