"""Read, Place: a file as an encoded prompt with the settings in it, and where a prompt lies among the concepts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..concepts import ConceptTable
from ..errors import InputError
from ..notes import note
from ..request import Prompt, Request
from ..request.picture_settings import PictureSettings, parse
from ..request.request import MODALITIES, write_prompt
from . import html
from .action import Action, Result, Upload, Work, named, nearest, weight_of
from .context import AppContext
from .engine import Job
from .limits import choice, decimal

SOUND_IN_VIDEO = 0.3  # as in `Aligner.embed_video`
NEIGHBOURS, SHARPNESS = 5, 0.05  # of a place on the map


@dataclass
class Encoded(Result):
    """A prompt with its embedding, where it lies once the prior has moved it, (d,), and the settings in its file."""

    prompt: Prompt
    vector: Tensor
    settings: dict[str, Any] | None = None


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

        def work(pipeline: Any, _: Job) -> Encoded:
            found = prompt
            if prompt.kind == "video" and share != SOUND_IN_VIDEO:
                note("sound of a video", f"{prompt.name} is heard with a share of {share:g}; the command line takes 0.3")
                found = replace(prompt, embedding=pipeline.aligner.embed_video(prompt.value, sound=share))
            ready = pipeline.encoded(Request(((found,),)))
            return Encoded(ready.prompts[0][0], pipeline.mixed(ready)[0][0].cpu(), settings)

        return work

    def answer(self, result: Encoded, context: AppContext) -> dict[str, Any]:
        near = nearest(context.engine.concepts(self.chosen(context).label), result.vector, 3)
        return {
            "part": write_prompt(result.prompt),
            "concepts": named(near),
            "notes": [n.as_dict() for n in result.notes],
            "settings": result.settings,
            "seen": html.fragment("read", result.notes, near, result.prompt),
        }


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
    wanted = (settings.checkpoint, settings.decoder)
    model = next((m for m in context.engine.models.values() if (m.checkpoint, m.decoder or "") == wanted), None)
    if model is None:
        raise InputError(f"{name} was drawn with a model that is not here")
    if request.prior_strength and model.prior is None:
        raise InputError(f"{name} was drawn with a prior, which {model.label} has not here")
    try:
        same = {n: getattr(request, n) for n in ("steps", "guidance", "prior_strength")}
        drawn = Action(seed=request.seed or 0, model=model.label, **same).request(context)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    files = ", ".join(f"{p.name} ({html.KINDS[p.kind].lower()})" for p in prompts if p.kind != "text")
    said = f"Settings of {name} are back." + (f" The picture itself stands for {files}." if files else "")
    if settings.edit:
        said += f" It was edited ({settings.edit}): they alone draw another."
    return {
        "kept": [write_prompt(p) for p in prompts],
        **{n: getattr(drawn, n) for n in ("seed", "steps", "guidance", "prior_strength")},
        **{n: getattr(request, n) for n in ("mix", "upscale", "prior_temperature")},
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
        name = " + ".join(p.name for p in prompts)

        return lambda pipeline, _: Encoded(Prompt("text", name), pipeline.mixed(Request((prompts,)))[0][0].cpu())

    def answer(self, result: Encoded, context: AppContext) -> dict[str, Any]:
        table = context.engine.concepts(self.chosen(context).label)
        if table is None or table.places is None:
            raise InputError("this model has no map of concepts")
        spot, numbers = place(table, result.vector)
        found = nearest(table, result.vector)
        return {
            "details": {"place": spot, "concepts": named(found)},
            "map": html.fragment("map", table, spot, numbers, result.prompt.name),
            "understood": html.fragment("understood", found),
        }


def place(table: ConceptTable, vector: Tensor) -> tuple[list[float], list[int]]:
    """Where a unit embedding (d,) lies on the map of concepts, (2,) in [0, 1], and the numbers of those that say so.

    It was not there when the map was made: it is put at the mean of the positions of its nearest concepts, with weights
    softmax(cosine / `SHARPNESS`): near one concept it lies on it, between two it lies between them.
    """
    assert table.places is not None
    cosines = table.cosines(vector.cpu().unsqueeze(0))[0]
    best = cosines.topk(min(NEIGHBOURS, len(cosines)))
    spot = (best.values / SHARPNESS).softmax(0) @ table.places[best.indices].float()
    return [round(v, 4) for v in spot.tolist()], best.indices.tolist()
