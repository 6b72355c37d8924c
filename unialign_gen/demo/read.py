"""Read, Restore, Place: a file as an encoded prompt, the settings in a picture, and where a prompt lies among the concepts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
from torch import Tensor

from ..errors import InputError
from ..notes import Note, collected, note
from ..request import Prompt, Request
from ..request.picture_settings import PictureSettings, parse
from ..request.request import MODALITIES, write_prompt
from . import html
from .action import Action, Upload, named, nearest, weight_of
from .concept_map import ConceptMap
from .context import AppContext
from .engine import Job, Progress
from .limits import choice, decimal, whole

SOUND_IN_VIDEO = 0.3  # as in `Aligner.embed_video`
NUMBERS = ("mix", "seed", "steps", "guidance", "model", "prior")


@dataclass
class Encoded:
    """A prompt with its embedding, where it lies once the prior has moved it, (d,), and the settings in its file."""

    prompt: Prompt
    vector: Tensor
    settings: Restored | None = None
    notes: list[Note] = field(default_factory=list)


@dataclass
class Read(Action):
    """A file as an encoded prompt, what it is understood as, and how the page drew it, if it did.

    `kind` is `audio`, `video`, `image`, or `any`; `video_sound` the share of a video's sound beside its frames.
    """

    file: Upload | None = None
    kind: str = "any"
    video_sound: float = SOUND_IN_VIDEO
    outputs: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("part", "concepts", "notes", "settings"), gr.JSON),
        "seen": gr.Textbox,
    }

    def run(self, context: AppContext, session: str = "") -> Iterator[Progress | Encoded]:
        share = decimal(self.video_sound, "the sound of a video", 0, 1)
        if self.file is None:
            raise InputError("nothing to read: add a sound, a video or a picture")
        with collected() as told:
            prompt = self.decoded(context, choice(self.kind, "kind", ("any", *MODALITIES[1:])), self.file, "file")
            settings = None
            if prompt.kind == "image":
                try:
                    settings = restored(self.file, context)
                except InputError as error:  # still a picture
                    note("settings", str(error))

        def work(pipeline: Any, _: Job[Encoded]) -> Encoded:
            found = prompt
            if prompt.kind == "video" and share != SOUND_IN_VIDEO:
                note("sound of a video", f"{prompt.name} is heard with a share of {share:g}; the command line takes 0.3")
                found = replace(prompt, embedding=pipeline.aligner.embed_video(prompt.value, sound=share))
            ready = pipeline.encoded(Request(((found,),)))
            return Encoded(ready.prompts[0][0], pipeline.mixed(ready)[0][0].cpu(), settings)

        yield from self.job(context, session, work, told)

    def answer(self, result: Encoded, context: AppContext) -> dict[str, Any]:
        return {
            "part": write_prompt(result.prompt),
            "concepts": named(nearest(context.engine.concepts(self.chosen(context).label), result.vector, 3)),
            "notes": [n.as_dict() for n in result.notes],
            "settings": None if result.settings is None else asdict(result.settings),
            "seen": html.seen((result.prompt,)),
        }


@dataclass
class Restored:
    """Values of the page's controls, the prompts in JSON, files by their embeddings, and what to say."""

    kept: list[dict[str, Any]]
    mix: str
    seed: int
    steps: int
    guidance: float
    prior: float
    size: int | None
    upscale: int | None
    prior_temperature: float | None
    model: str
    said: str


@dataclass
class Restore(Action):
    """Settings of a picture that was drawn here, as the parameters of `/create`."""

    file: Upload | None = None
    outputs: ClassVar[dict[str, Any]] = {
        "text": gr.Textbox,
        **dict.fromkeys(MODALITIES[1:], gr.JSON),
        **dict.fromkeys((f"{kind}_weight" for kind in MODALITIES), gr.Number),
        "mix": gr.Textbox,
        **dict.fromkeys(("seed", "steps", "guidance", "pictures"), gr.Number),
        "model": gr.Textbox,
        "prior": gr.Number,
        "note": gr.Textbox,
        "kept": gr.JSON,
    }

    def run(self, context: AppContext, session: str = "") -> Iterator[Restored | None]:
        back = None if self.file is None else restored(self.file, context)
        if self.file is not None and back is None:
            raise InputError(f"{Path(self.file).name} holds no settings of this program")
        yield back

    def answer(self, result: Restored | None, context: AppContext) -> dict[str, Any]:
        empty = dict.fromkeys(self.outputs)
        if result is None:
            return {**empty, "kept": []}
        texts = [p for p in result.kept if p["kind"] == "text"]
        words = texts[0] if len(texts) == 1 else {"value": "", "weight": 1.0}
        kept = [p for p in result.kept if p is not words]
        weights = {f"{p['kind']}_weight": p["weight"] for p in (words | {"kind": "text"}, *kept) if p["kind"] in MODALITIES}
        numbers = {name: getattr(result, name) for name in NUMBERS}
        shown = {"text": words["value"], "pictures": 1, "note": html.note(result.said), "kept": kept}
        return {**empty, **{f"{kind}_weight": 1.0 for kind in MODALITIES}, **weights, **numbers, **shown}


def restored(file: str, context: AppContext) -> Restored | None:
    """The controls for the settings that an upload keeps; None where it keeps none."""
    text = context.decode_worker.settings(file)
    return None if text is None else restore(parse(text, Path(file).name), context, Path(file).name)


def restore(settings: PictureSettings, context: AppContext, name: str) -> Restored:
    """The controls for these settings.

    Raises:
        InputError: the page cannot draw this: prompts of a batch, a number beyond the limits, a model that is not here.
    """
    limits, request = context.limits, settings.request
    prompts = request.prompts[0] if len(request.prompts) == 1 else ()
    if not prompts or {p.kind for p in prompts} - {*MODALITIES, "embeds"}:
        raise InputError(f"{name} mixes prompts in a way that this page cannot: use the command line")
    for p in prompts:
        weight_of(p.weight, f"{p.kind} in {name}", context)
    wanted = (settings.checkpoint, settings.decoder)
    model = next((m for m in context.engine.models.values() if (m.checkpoint, m.decoder or "") == wanted), None)
    if model is None:
        raise InputError(f"{name} was drawn with a model that is not here")
    steps = whole(request.steps or model.steps, f"{name}: steps", 1, limits.steps)
    asked = model.guidance if request.guidance is None else request.guidance
    guidance = decimal(asked, f"{name}: guidance", 0, limits.guidance)
    prior = model.prior or 0.0 if request.prior_strength is None else request.prior_strength
    if prior and model.prior is None:
        raise InputError(f"{name} was drawn with a prior, which {model.label} has not here")
    seed = whole(request.seed or 0, f"{name}: seed", 0, limits.seed)
    files = ", ".join(f"{p.name} ({html.KINDS[p.kind].lower()})" for p in prompts if p.kind != "text")
    said = f"Settings of {name} are back." + (f" The picture itself stands for {files}." if files else "")
    if settings.edit:
        said += f" It was edited ({settings.edit}): they alone draw another."
    kept, free = [write_prompt(p) for p in prompts], (request.height, request.upscale, request.prior_temperature)
    return Restored(kept, request.mix, seed, steps, guidance, prior, *free, model.label, said)


@dataclass
class Place(Action):
    """Where a prompt lies among the concepts of the first model that has a map."""

    file: Upload | None = None
    outputs: ClassVar[dict[str, Any]] = {"details": gr.JSON, "map": gr.Textbox, "understood": gr.Textbox}

    def run(self, context: AppContext, session: str = "") -> Iterator[Progress | Encoded]:
        prompts = self.prompts(context, {"any": self.file})
        if not prompts:
            raise InputError("nothing to place: write words, or add a file")
        name = " + ".join(p.name for p in prompts)

        def work(pipeline: Any, _: Job[Encoded]) -> Encoded:
            return Encoded(Prompt("text", name), pipeline.mixed(Request((prompts,)))[0][0].cpu())

        yield from self.job(context, session, work)

    def answer(self, result: Encoded, context: AppContext) -> dict[str, Any]:
        concepts = ConceptMap.of(context.engine.concepts(self.chosen(context).label))
        if concepts is None:
            raise InputError("this model has no map of concepts")
        spot, numbers = concepts.place(result.vector)
        found, where = nearest(concepts.table, result.vector), [round(v, 4) for v in spot.tolist()]
        return {
            "details": {"place": where, "concepts": named(found)},
            "map": html.fragment("map", concepts, where, numbers, result.prompt.name),
            "understood": html.understood(found, (), ()),
        }
