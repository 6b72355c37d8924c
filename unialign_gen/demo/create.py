"""Create and Edit: a mix of prompts to pictures, or to what is painted out of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from gradio_client import handle_file
from PIL import Image

from ..errors import InputError
from ..request import Prompt
from ..request.picture_settings import PictureSettings, save_picture
from ..request.request import MIXES, MODALITIES, Mix, write_prompt
from . import html
from .action import Action, Result, Upload, Work, named, nearest
from .context import AppContext
from .engine import Job, Progress
from .limits import choice, decimal, whole
from .preview import Previewer
from .snippets import command, python

CANDIDATES = 16  # of best-of, at most
SIDES = (64, 512)  # pixels, in steps of the first


@dataclass
class Drawn(Result):
    """What was drawn, what makes each picture again, and what the prompts were understood as.

    `nearest` are concepts with cosines of the mix; `nearest_each` the same of each prompt by its number.
    """

    pictures: list[Image.Image]
    settings: list[PictureSettings]
    nearest: list[tuple[str, float]]
    nearest_each: list[list[tuple[str, float]]]
    prompts: tuple[Prompt, ...]

    def summary(self) -> dict[str, Any]:
        """For programs: what made the pictures, and what the prompts were understood as."""
        first, request = self.settings[0], self.settings[0].request
        near = zip(self.prompts, self.nearest_each, strict=True)
        return {
            "seeds": [s.request.seed for s in self.settings],
            **{name: getattr(request, name) for name in ("mix", "steps", "guidance", "prior_strength")},
            "checkpoint": first.checkpoint,
            "decoder": first.decoder,
            "notes": [n.as_dict() for n in self.notes],
            "concepts": named(self.nearest),
            "prompts": [{"kind": p.kind, "value": p.name, "weight": p.weight, "concepts": [n for n, _ in c]} for p, c in near],
            "kept": [write_prompt(p) for p in request.prompts[0]],
        }


@dataclass
class Create(Action):
    """Pictures of a mix: one input of each kind, and any number of `kept` ones; `best_of` keeps the best of so many.

    `size`, `upscale` and `prior_temperature` are those of a call: the model's own where they are None.
    """

    audio: Upload | None = None
    video: Upload | None = None
    image: Upload | None = None
    text_weight: float = 1.0
    audio_weight: float = 1.0
    video_weight: float = 1.0
    image_weight: float = 1.0
    mix: str = "lerp"
    pictures: int = 1
    best_of: int = 1
    size: int | None = None
    upscale: int | None = None
    prior_temperature: float | None = None
    outputs: ClassVar[dict[str, Any]] = {
        "pictures": list,
        "details": dict,
        **dict.fromkeys(("command", "python", "stage", "understood", "seen"), str),
    }

    def ready(self, context: AppContext) -> tuple[Callable[[Any, Any], Any], str]:
        """Checks what is not in the request, and says how it is drawn; and what is edited, in words."""
        best = whole(self.best_of, "best of", 1, CANDIDATES)
        if best > 1 and self.pictures != 1:
            raise InputError("best of keeps one picture: ask for one picture, or leave best of at 1")
        return lambda pipeline, request: pipeline.draw_best(best, request) if best > 1 else pipeline.draw(request), ""

    def changes(self) -> dict[str, Any] | None:
        """The arguments of an edit beside the prompts, None where nothing is edited."""
        return None

    def prepare(self, context: AppContext) -> Work:
        engine, model = context.engine, self.chosen(context)
        pictures = whole(self.pictures, "pictures", 1, context.limits.pictures)
        method = choice(self.mix, "mix", MIXES)
        side = None if self.size is None else whole(self.size, "size", *SIDES)
        if side is not None and side % SIDES[0]:
            raise InputError(f"size must be a multiple of {SIDES[0]} pixels, got {side}")
        self.request(context)  # its numbers, before any file is read
        given = {kind: (getattr(self, kind), getattr(self, f"{kind}_weight")) for kind in MODALITIES}
        prompts, (draw, edited) = self.prompts(context, given), self.ready(context)
        if not prompts:
            raise InputError("nothing to draw: write a prompt, or add a sound, a video or a picture")
        prompts = tuple(sorted(prompts, key=lambda p: (*MODALITIES, "embeds").index(p.kind)))  # as arguments are ordered
        free = {"prior_temperature": self.prior_temperature, "upscale": self.upscale, "height": side, "width": side}
        mix = method_for(method, prompts)
        request = self.request(context, prompts=(prompts,), mix=mix, pictures=pictures, **free)
        steps = request.steps or 1

        def work(pipeline: Any, job: Job) -> Drawn:
            previewer = Previewer(pipeline)

            def step_end(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> None:
                job.report(Progress(min(step + 1, steps), steps, "drawing", previewer.look(step, tensors["latents"])))

            ready = pipeline.encoded(request)
            mixed, each = pipeline.mixed(ready)[0][0], pipeline.alone(ready)
            drawn = draw(pipeline, replace(ready, callback_on_step_end=step_end))
            made = [drawn.request.picture(i) for i in range(pictures)]
            settings = [PictureSettings(r, model.checkpoint, model.decoder or "", edit=edited) for r in made]
            table = engine.concepts(model.label)
            return Drawn(drawn.images, settings, nearest(table, mixed), [nearest(table, v, 3) for v in each], prompts)

        return work

    def answer(self, result: Drawn, context: AppContext) -> dict[str, Any]:
        folder, files = context.folder(), []
        for settings, picture in zip(result.settings, result.pictures, strict=True):
            seed = settings.request.seed
            save_picture(picture, folder / f"picture-{seed}.png", settings)
            files.append({"image": handle_file(folder / f"picture-{seed}.png"), "caption": f"seed {seed}"})
        return {
            "pictures": files,
            "details": result.summary(),
            "command": command(result.settings[0], len(files), self.changes()),
            "python": python(result.settings[0], len(files), self.changes()),
            "stage": "",
            "understood": html.fragment("understood", result.nearest, result.prompts, result.nearest_each, result.notes),
            "seen": html.fragment("seen", result.prompts),
        }


@dataclass
class Edit(Create):
    """A picture changed by a mix: where `mask` is white, or all over without one; `strength` as in the library."""

    picture: Upload | None = None
    mask: Upload | None = None
    strength: float | None = None

    def ready(self, context: AppContext) -> tuple[Callable[[Any, Any], Any], str]:
        from ..pipelines.editing import Edit as Change

        if self.picture is None:
            raise InputError("nothing to edit: add a picture")
        strength = None if self.strength is None else decimal(self.strength, "strength", 0, 1)
        picture, mask = (None if f is None else self.decoded(context, "image", f).value for f in (self.picture, self.mask))
        change = Change(picture, mask, strength)
        return lambda pipeline, request: pipeline.draw_edit(change, request), change.described

    def changes(self) -> dict[str, Any] | None:
        found = {"mask": None if self.mask is None else "mask.png", "strength": self.strength}
        return {name: value for name, value in found.items() if value is not None}


def method_for(asked: str, prompts: Sequence[Prompt]) -> Mix:
    """`lerp`; for `slerp` its own form for two prompts, the spherical mean for more, nothing for one."""
    if asked == "lerp" or len(prompts) == 1:
        return "lerp"
    return "slerp" if asked == "slerp" and len(prompts) == 2 else "spherical_mean"
