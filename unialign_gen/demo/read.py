"""Read, Place: a file as an encoded prompt with the settings in it, and where a prompt lies among the concepts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..concepts import ConceptTable
from ..errors import InputError
from ..loading import DECODERS
from ..notes import note
from ..request import Request
from ..request.picture_settings import PictureSettings, parse
from ..request.request import MODALITIES, write_prompt
from . import html
from .action import Action, Upload, Work, named, nearest, weight_of
from .engine import AppContext, Job
from .limits import choice, decimal

SOUND_IN_VIDEO = 0.3  # as in `Aligner.embed_video`
NEIGHBOURS, SHARPNESS = 5, 0.05  # of a place on the map


@dataclass
class Read(Action):
    """A file as an encoded prompt, what it is understood as, and how the page drew it, if it did, as parameters of `/create`.

    `kind` is `audio`, `video`, `image`, or `any`; `video_sound` the share of a video's sound beside its frames.
    """

    file: Upload | None = None
    kind: str = "any"
    video_sound: float = SOUND_IN_VIDEO
    outputs: ClassVar[dict[str, Any]] = {"part": dict, "concepts": list, "notes": list, "settings": dict | None, "seen": str}

    def prepare(self, context: AppContext) -> Work:
        share = decimal(self.video_sound, "the sound of a video", 0, 1)
        if self.file is None:
            raise InputError("nothing to read: add a sound, a video or a picture")
        media = self.decoded(context, choice(self.kind, "kind", ("any", *MODALITIES[1:])), self.file, "file")
        prompt, settings = media.prompt, None
        try:
            settings = restore(parse(media.settings, media.name), context, media.name) if media.settings else None
        except InputError as error:  # still a picture
            note("settings", str(error))

        def work(pipeline: Any, job: Job) -> dict[str, Any]:
            found = prompt
            if prompt.kind == "video" and share != SOUND_IN_VIDEO:
                note("sound of a video", f"{prompt.name} is heard with a share of {share:g}; the command line takes 0.3")
                found = replace(prompt, embedding=pipeline.aligner.embed_video(prompt.value, sound=share))
            ready = pipeline.encoded(Request(((found,),)))
            near = nearest(context.engine.concepts(self.chosen(context).label), pipeline.mixed(ready)[0][0], 3)
            return {
                "part": write_prompt(ready.prompts[0][0]),
                "concepts": named(near),
                "notes": [n.as_dict() for n in job.notes],
                "settings": settings,
                "seen": html.fragment("read", job.notes, near, found),
            }

        return work


def restore(settings: PictureSettings, context: AppContext, name: str) -> dict[str, Any]:
    """The parameters of `/create` for these settings, with files by their embeddings, and what is `said` of it.

    Raises:
        InputError: the page cannot draw this: prompts of a batch, a number beyond the limits, a model that is not here.
    """
    request = settings.request
    prompts = request.prompts[0] if len(request.prompts) == 1 else ()
    if not prompts or {p.kind for p in prompts} - {*MODALITIES, "embeds"}:
        raise InputError(f"{name} mixes prompts in a way that this page cannot: use the command line")
    for p in prompts:
        weight_of(p.weight, f"{p.kind} in {name}", context)
    if request.options or request.height != request.width:
        what = ", ".join(request.options) or f"a size of {request.width} x {request.height}"
        raise InputError(f"{name} was drawn with {what}, which this page does not know: use Python")
    wanted = (settings.checkpoint, "" if settings.decoder == DECODERS[0] else settings.decoder)
    model = next((m for m in context.engine.models.values() if (m.checkpoint, m.decoder or "") == wanted), None)
    if model is None:
        raise InputError(f"{name} was drawn with a model that is not here")
    if request.prior_strength and model.prior is None:
        raise InputError(f"{name} was drawn with a prior, which {model.label} has not here")
    try:
        same = {n: v for n, v in request.to_dict().items() if n in ("seed", "steps", "guidance", "prior_strength")}
        drawn = Action(model=model.label, **same).request(context)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    files = ", ".join(f"{p.name} ({html.KINDS[p.kind].lower()})" for p in prompts if p.kind != "text")
    said = f"Settings of {name} are back." + (f" The picture itself stands for {files}." if files else "")
    if request.seed is None:
        said += " It names no seed: the same settings draw another."
    if settings.edit:
        said += f" It was edited ({settings.edit}): they alone draw another."
    return {
        "kept": [write_prompt(p) for p in prompts],
        **{n: getattr(drawn, n) for n in ("seed", "steps", "guidance", "prior_strength")},
        **{n: getattr(request, n) for n in ("mix", "upscale", "prior_temperature")},
        "best_of": request.best_of or 1,
        "size": request.height,
        "model": model.label,
        "said": said,
    }


@dataclass
class Place(Action):
    """Where a prompt lies among the concepts of the first model that has a map."""

    outputs: ClassVar[dict[str, Any]] = {"details": dict, "map": str, "understood": str}

    def prepare(self, context: AppContext) -> Work:
        prompts = self.prompts(context)
        if not prompts:
            raise InputError("nothing to place: write words, or add a file")

        table = context.engine.concepts(self.chosen(context).label)
        if table is None or table.places is None:
            raise InputError("this model has no map of concepts")

        def work(pipeline: Any, _: Job) -> dict[str, Any]:
            vector = pipeline.mixed(Request((prompts,)))[0][0].cpu()
            (spot, numbers), found = place(table, vector), nearest(table, vector)
            return {
                "details": {"place": spot, "concepts": named(found)},
                "map": html.fragment("map", table, spot, numbers, " + ".join(p.name for p in prompts)),
                "understood": html.fragment("understood", found),
            }

        return work


def place(table: ConceptTable, vector: Tensor) -> tuple[list[float], list[int]]:
    """Where a unit embedding (d,) lies on the map of concepts, (2,) in [0, 1], and the numbers of those that say so.

    It was not there when the map was made: it is put at the mean of the positions of its nearest concepts, with weights
    softmax(cosine / `SHARPNESS`): near one concept it lies on it, between two it lies between them.
    """
    assert table.places is not None
    found = nearest(table, vector, NEIGHBOURS)
    numbers = [table.names.index(name) for name, _ in found]
    shares = (torch.tensor([cosine for _, cosine in found]) / SHARPNESS).softmax(0)
    return [round(v, 4) for v in (shares @ table.places[numbers].float()).tolist()], numbers
