"""Create and Edit: a mix of prompts to pictures, or to what is painted out of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from gradio_client import handle_file
from PIL import Image

from ..errors import InputError
from ..notes import Note
from ..request import Prompt
from ..request.picture_settings import PictureSettings, save_picture
from ..request.request import MIXES, MODALITIES, Mix, write_prompt
from . import html
from .action import Action, Near, Upload, Work, named, nearest
from .engine import AppContext, Job, Progress
from .limits import choice, decimal, whole
from .preview import Previewer
from .snippets import command, python

CANDIDATES = 16  # of best-of, at most
SIDES = (128, 1024)  # pixels, in steps of the first
Way = tuple[Callable[[Any, Any], Any], str, dict[str, Any] | None]  # how to draw; of an edit what, in words and as arguments


@dataclass
class Create(Action):
    """Pictures of a mix: one input of each kind, and any number of `kept` ones.

    `size`, `upscale`, `best_of` and `prior_temperature` are those of a call: the model's own where they are None.
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
    best_of: int | None = None
    size: int | None = None
    upscale: int | None = None
    prior_temperature: float | None = None
    outputs: ClassVar[dict[str, Any]] = {
        "pictures": list,
        "details": dict,
        **dict.fromkeys(("command", "python", "stage", "understood", "seen"), str),
    }

    def ready(self, context: AppContext) -> Way:
        """Checks what is not in the request, and says how it is drawn."""
        return (lambda pipeline, request: pipeline.draw(request)), "", None

    def prepare(self, context: AppContext) -> Work:
        engine, model = context.engine, self.chosen(context)
        pictures = whole(self.pictures, "pictures", 1, context.limits.pictures)
        best = model.best_of if self.best_of is None else whole(self.best_of, "best of", 1, CANDIDATES)
        if pictures * best > max(CANDIDATES, pictures * model.best_of):
            raise InputError(f"{pictures} pictures, each the best of {best}, are too many: together at most {CANDIDATES}")
        method = choice(self.mix, "mix", MIXES)
        side = None if self.size is None else whole(self.size, "size", *SIDES)
        if side is not None and side % SIDES[0]:
            raise InputError(f"size must be a multiple of {SIDES[0]} pixels, got {side}")
        self.request(context)  # its numbers, before any file is read
        given = {kind: (getattr(self, kind), getattr(self, f"{kind}_weight")) for kind in MODALITIES}
        prompts, (draw, edited, options) = self.prompts(context, given), self.ready(context)
        if not prompts:
            raise InputError("nothing to draw: write a prompt, or add a sound, a video or a picture")
        prompts = tuple(sorted(prompts, key=lambda p: (*MODALITIES, "embeds").index(p.kind)))  # as arguments are ordered
        free = {"prior_temperature": self.prior_temperature, "upscale": self.upscale, "height": side, "width": side}
        free["best_of"] = None if edited else best
        mix = method_for(method, prompts)
        request = self.request(context, prompts=(prompts,), mix=mix, pictures=pictures, **free)
        steps = request.steps or 1

        def work(pipeline: Any, job: Job) -> dict[str, Any]:
            previewer = Previewer(pipeline)

            def step_end(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> None:
                job.report(Progress(min(step + 1, steps), steps, "drawing", previewer.look(step, tensors["latents"])))

            ready = pipeline.encoded(request)
            apart = not edited  # an edit draws one point
            mixed, each = pipeline.mixed(ready, apart)[0][0], pipeline.alone(ready, apart)
            drawn = draw(pipeline, replace(ready, callback_on_step_end=step_end))
            made = [drawn.request.picture(i) for i in range(pictures)]
            settings = [PictureSettings(r, model.checkpoint, model.decoder or "", edit=edited) for r in made]
            table = engine.concepts(model.label)
            near = nearest(table, mixed)
            near_each = [(p, nearest(table, v, 3)) for p, v in zip(prompts, each, strict=True)]
            return {
                "pictures": saved(drawn.images, settings, context.folder()),
                "details": details(settings, near, near_each, job.notes),
                "command": command(settings[0], pictures, options),
                "python": python(settings[0], pictures, options),
                "stage": "",
                "understood": html.fragment("understood", near, near_each, job.notes),
                "seen": html.fragment("seen", prompts),
            }

        return work


@dataclass
class Edit(Create):
    """A picture changed by a mix: where `mask` is white, or all over without one; `strength` as in the library."""

    picture: Upload | None = None
    mask: Upload | None = None
    strength: float | None = None

    def ready(self, context: AppContext) -> Way:
        from ..pipelines.editing import Edit as Change

        if self.picture is None:
            raise InputError("nothing to edit: add a picture")
        strength = None if self.strength is None else decimal(self.strength, "strength", 0, 1)
        picture, mask = (None if f is None else self.decoded(context, "image", f).value for f in (self.picture, self.mask))
        change = Change(picture, mask, strength)
        options = ({} if mask is None else {"mask": "mask.png"}) | ({} if strength is None else {"strength": strength})
        return (lambda pipeline, request: pipeline.draw_edit(change, request)), change.described, options


def saved(pictures: Sequence[Image.Image], settings: Sequence[PictureSettings], folder: Path) -> list[dict[str, Any]]:
    """The pictures as files that clients fetch, each with what makes it again."""
    files = []
    for picture, made in zip(pictures, settings, strict=True):
        file = folder / f"picture-{made.request.seed}.png"
        save_picture(picture, file, made)
        files.append({"image": handle_file(file), "caption": f"seed {made.request.seed}"})
    return files


def details(settings: list[PictureSettings], near: Near, each: list[tuple[Prompt, Near]], notes: list[Note]) -> dict[str, Any]:
    """For programs: what made the pictures, and what the prompts together, and each of them, were understood as."""
    first, request = settings[0], settings[0].request
    return {
        "seeds": [s.request.seed for s in settings],
        **{name: getattr(request, name) for name in ("mix", "steps", "guidance", "prior_strength")},
        "checkpoint": first.checkpoint,
        "decoder": first.decoder,
        "notes": [n.as_dict() for n in notes],
        "concepts": named(near),
        "prompts": [{"kind": p.kind, "value": p.name, "weight": p.weight, "concepts": [n for n, _ in c]} for p, c in each],
        "kept": [write_prompt(p) for p in request.prompts[0]],
    }


def method_for(asked: str, prompts: Sequence[Prompt]) -> Mix:
    """`lerp` for one prompt; what is asked for, but for `slerp` of more than two the spherical mean."""
    if asked == "lerp" or len(prompts) == 1:
        return "lerp"
    if asked == "beside":
        return "beside"
    return "slerp" if asked == "slerp" and len(prompts) == 2 else "spherical_mean"
