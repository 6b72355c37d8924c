"""What the page can do, as endpoints: the page itself calls these, and so does any client."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..errors import InputError
from ..film.sheets import save_sequence
from ..notes import collected, note
from ..request import Prompt, Request
from ..request.picture_settings import parse, save_picture
from ..request.request import write_prompt
from . import html
from .concept_map import ConceptMap
from .context import DRAWING, AppContext, session_of
from .create import Create, Drawn
from .endpoints import Upload, endpoint
from .engine import Job, Progress
from .film import Animate, Film, save_webm
from .limits import decimal, words
from .live import Live
from .prompts import decoded, given_parts, nearest, words_and_file
from .restore import restore as restored, settings_of
from .snippets import command, python
from .travel import Travel, Way

WAY_RATE, WAY_SIDE = 8, 384  # pictures a second and pixels of what a way is exported as
GIF_SIDE, THUMBS = 256, 24
SOUND_IN_VIDEO = 0.3  # as in `Aligner.embed_video`
TEXTS = ("command", "python", "stage", "understood", "seen")  # outputs of /create behind pictures and details
RESTORED = (  # outputs of /restore; a picture brings neither files nor a text of its own on the stage
    *("text", "audio", "video", "image", "text_weight", "audio_weight", "video_weight", "image_weight", "mix", "seed", "steps"),
    *("guidance", "pictures", "model", "prior", "note", "stage", "file", "kept"),
)


def answer_of(drawn: Drawn, context: AppContext) -> dict[str, Any]:
    """The outputs of `/create` and `/edit`."""
    folder, files = context.folder(), []
    for settings, picture in zip(drawn.settings, drawn.pictures, strict=True):
        seed = settings.request.seed
        save_picture(picture, folder / f"picture-{seed}.png", settings)
        files.append((str(folder / f"picture-{seed}.png"), f"seed {seed}"))
    return {
        "pictures": files,
        "details": summary(drawn),
        "command": command(drawn.settings[0], len(files)),
        "python": python(drawn.settings[0], len(files)),
        "stage": "",
        "understood": html.notes(drawn.notes) + html.understood(drawn.nearest, drawn.prompts, drawn.nearest_each),
        "seen": html.seen(drawn.prompts),
    }


def summary(drawn: Drawn) -> dict[str, Any]:
    """For programs: what made the pictures, and what the prompts were understood as."""
    first, request = drawn.settings[0], drawn.settings[0].request
    return {
        "seeds": [s.request.seed for s in drawn.settings],
        "mix": request.mix,
        "steps": request.steps,
        "guidance": request.guidance,
        "prior_strength": request.prior_strength,
        "checkpoint": first.checkpoint,
        "decoder": first.decoder,
        "notes": [n.as_dict() for n in drawn.notes],
        "concepts": named(drawn.nearest),
        "prompts": [
            {"kind": p.kind, "value": p.name, "weight": p.weight, "concepts": [n for n, _ in near]}
            for p, near in zip(drawn.prompts, drawn.nearest_each, strict=True)
        ],
        "parts": [write_prompt(p) for p in request.prompts[0]],
    }


def named(found: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": n, "cosine": round(c, 4)} for n, c in found]


def film_answer(film: Film, rate: float) -> dict[str, Any]:
    """The outputs of `/animate`: the film, and its timeline with the other forms that lie beside it."""
    gif = film.path.with_suffix(".gif")
    save_sequence([p.resize((GIF_SIDE, GIF_SIDE)) for p in film.pictures], gif, max(1, round(rate)), back=False)
    every = -(-len(film.pictures) // THUMBS)
    frames = [(i / rate, f"picture {i + 1}", p) for i, p in enumerate(film.pictures)][::every]
    files = [film.path, save_webm(film.path, film.path.with_suffix(".webm")), gif]
    return {"film": str(film.path), "stage": html.moving(film.said, film.notes, frames, files)}


def way_answer(way: Way, folder: Path) -> dict[str, Any]:
    """The outputs of `/travel`."""
    large = [p.resize((WAY_SIDE, WAY_SIDE), Image.Resampling.LANCZOS) for p in way.pictures]
    gif, film = folder / "way.gif", folder / "way.mp4"
    save_sequence(large, gif, WAY_RATE, back=not way.closed)
    save_sequence(large, film, WAY_RATE)
    files = [gif, film, save_webm(film, folder / "way.webm")]
    frames = [(i / WAY_RATE, label, p) for i, (label, p) in enumerate(zip(way.labels, way.pictures, strict=True))]
    return {"exports": [str(f) for f in files], "stage": html.moving("", way.notes, frames, files)}


def build(context: AppContext) -> gr.Blocks:
    """Every endpoint; nothing of this is shown."""
    limits, age = context.limits, context.limits.cache_seconds
    with gr.Blocks(title="unialign_gen", analytics_enabled=False, delete_cache=(max(60, age // 10), age)) as made:
        drawing_endpoints(context)
        reading_endpoints(context)

        def stop(request: gr.Request) -> int:
            """Stops all that this session has asked for; how many requests that were."""
            return context.engine.cancel(session_of(request))

        def models() -> list[str]:
            """The models that `model` may name."""
            return list(context.engine.models)

        gr.api(stop, api_name="stop", queue=False)
        gr.api(models, api_name="models")
    made.queue(max_size=limits.waiting, default_concurrency_limit=4, api_open=False)
    return made


def drawing_endpoints(context: AppContext) -> None:
    engine, worker, first = context.engine, context.decode_worker, next(iter(context.engine.models))

    def drawn(asked: Create, request: gr.Request) -> Iterator[dict[str, Any]]:
        for found in asked.run(engine, worker, session_of(request)):
            yield {"stage": html.stage(found)} if isinstance(found, Progress) else answer_of(found, context)

    def create(
        text: str = "",
        audio: Upload | None = None,
        video: Upload | None = None,
        image: Upload | None = None,
        text_weight: float = 1.0,
        audio_weight: float = 1.0,
        video_weight: float = 1.0,
        image_weight: float = 1.0,
        mix: str = "lerp",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        pictures: int = 1,
        model: str = first,
        prior_strength: float | None = None,
        kept: Any = None,
        parts: Any = None,
        best_of: int = 1,
        size: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """Pictures of a mix: one input of each kind, or `parts`, any number of prompts as `/read` gives them."""
        weights = {"text": text_weight, "audio": audio_weight, "video": video_weight, "image": image_weight}
        files = {"audio": audio, "video": video, "image": image}
        numbers = (model, seed, steps, guidance, prior_strength, size)
        asked = Create(*numbers, text=text, files=files, weights=weights, kept=kept, parts=parts, mix=mix)
        yield from drawn(replace(asked, pictures=pictures, best=best_of), request)

    def edit(
        picture: Upload | None = None,
        mask: Upload | None = None,
        text: str = "",
        parts: Any = None,
        strength: float | None = None,
        mix: str = "lerp",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        pictures: int = 1,
        model: str = first,
        prior_strength: float | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """A picture changed by words or `parts`: where the mask is white, or all over without one."""
        if picture is None:
            raise InputError("nothing to edit: add a picture")
        numbers = (model, seed, steps, guidance, prior_strength)
        asked = Create(*numbers, text=text, parts=parts, mix=mix, pictures=pictures)
        yield from drawn(replace(asked, picture=picture, mask=mask, strength=strength), request)

    def travel(
        text_1: str = "a cat",
        text_2: str = "a lion",
        text_3: str = "",
        text_4: str = "",
        file_1: Upload | None = None,
        file_2: Upload | None = None,
        file_3: Upload | None = None,
        file_4: Upload | None = None,
        between: int = 8,
        closed: bool = False,
        mix: str = "slerp",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        model: str = first,
        parts: Any = None,
        prior_strength: float | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """Pictures from station to station; each has words, a file, or both, or is one of `parts`."""
        texts, files = (text_1, text_2, text_3, text_4), (file_1, file_2, file_3, file_4)
        asked = Travel(model, seed, steps, guidance, prior_strength, texts=texts, files=files, parts=parts, mix=mix)
        for found in replace(asked, between=between, closed=closed).run(engine, worker, session_of(request)):
            yield {"stage": html.stage(found)} if isinstance(found, Progress) else way_answer(found, context.folder())

    def animate(
        sound: Upload | None = None,
        text: str = "",
        text_weight: float = 0.3,
        pictures: float = 4,
        smooth: float = 0.5,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        model: str = first,
        parts: Any = None,
        prior_strength: float | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """A film of a recording; words or `parts` stay in the mix."""
        asked = Animate(model, seed, steps, guidance, prior_strength, sound=sound, text=text, text_weight=text_weight)
        asked = replace(asked, rate=pictures, smooth=smooth, parts=parts)
        for found in asked.run(engine, worker, context.folder(), session_of(request)):
            yield {"stage": html.stage(found)} if isinstance(found, Progress) else film_answer(found, pictures)

    def live(
        samples: str = "",
        parts: Any = None,
        share: float = 0.3,
        previous: str = "",
        pictures: int = 2,
        elapsed: float = 0.4,
        smooth: float = 0.6,
        seed: int = 0,
        model: str = first,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """The next pictures of what was just heard: see `live.Live`."""
        asked = Live(model, seed, samples=samples, parts=parts, share=share, previous=previous, pictures=pictures)
        for found in replace(asked, elapsed=elapsed, smooth=smooth).run(engine, session_of(request)):
            if not isinstance(found, Progress):
                base = [] if found.base is None else [write_prompt(Prompt("embeds", found.base.tolist()))]
                point = "" if found.point is None else base64.b64encode(found.point.float().numpy().tobytes()).decode()
                pictures_ = [html.data_uri(p, 256) for p in found.pictures]
                heard = [name for name, _ in found.heard]
                yield {"moment": {"pictures": pictures_, "point": point, "base": base, "heard": heard}}

    def outputs() -> dict[str, Any]:
        return {"pictures": gr.Gallery(format="png"), "details": gr.JSON(), **{n: gr.Textbox() for n in TEXTS}}

    endpoint(create, outputs(), **DRAWING)
    endpoint(edit, outputs(), **DRAWING)
    endpoint(travel, {"exports": gr.File(file_count="multiple"), "stage": gr.Textbox()}, **DRAWING)
    endpoint(animate, {"film": gr.Video(), "stage": gr.Textbox()}, **DRAWING)
    endpoint(live, {"moment": gr.JSON()}, queue=False)


def reading_endpoints(context: AppContext) -> None:
    engine, worker, first = context.engine, context.decode_worker, next(iter(context.engine.models))

    def settings(file: str) -> dict[str, Any] | None:
        """What a picture keeps of how it was drawn here; a note says why what it keeps cannot be used."""
        try:
            text = worker.settings(file)
            return None if text is None else asdict(restored(parse(text, Path(file).name), engine, Path(file).name))
        except InputError as error:
            note("settings", str(error))
            return None

    def read(
        file: Upload | None = None,
        kind: str = "any",
        video_sound: float = SOUND_IN_VIDEO,
        model: str = first,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """A file as an encoded prompt, what it was understood as, and the settings inside it where it was drawn here."""
        share = decimal(video_sound, "the sound of a video", 0, 1)
        if file is None or kind not in ("any", "audio", "video", "image"):
            raise InputError("nothing to read: add a sound, a video or a picture")
        label = engine.model(model).label
        rate = engine.rate(label)
        with collected() as notes:
            prompt = decoded(worker, kind, file, rate)
            kept = settings(file) if prompt.kind == "image" else None

        def work(job: Job[Any]) -> Any:
            pipeline = engine.pipeline(label)
            with collected() as more:
                found = prompt
                if prompt.kind == "video" and share != SOUND_IN_VIDEO:
                    note("sound of a video", f"{prompt.name} is heard with a share of {share:g}; elsewhere it is 0.3")
                    found = replace(prompt, embedding=pipeline.aligner.embed_video(prompt.value, sound=share))
                ready = pipeline.encoded(Request(((found,),)))
                return ready.prompts[0][0], pipeline.mixed(ready)[0][0].cpu(), more

        for found in engine.run(work, session_of(request), "read"):
            if not isinstance(found, Progress):
                ready, vector, more = found
                near = nearest(engine.concepts(label), vector, 3)
                yield {
                    "part": write_prompt(ready),
                    "concepts": named(near),
                    "notes": [n.as_dict() for n in dict.fromkeys([*notes, *more])],
                    "settings": kept,
                    "seen": html.seen((prompt,)),
                }

    shown = {n: gr.JSON() for n in ("part", "concepts", "notes", "settings")}
    endpoint(read, {**shown, "seen": gr.Textbox()}, concurrency_limit=2)

    def restore(file: Upload | None = None) -> Iterator[dict[str, Any]]:
        """Settings of a picture that was drawn here, as the parameters of `/create`."""
        empty = dict.fromkeys(RESTORED)
        if file is None:
            yield {**empty, "kept": []}
            return
        back = restored(settings_of(file, worker), engine, Path(file).name)
        numbers = {n: getattr(back, n) for n in ("mix", "seed", "steps", "guidance", "model", "prior")}
        yield {**empty, **back.controls(), **numbers, "pictures": 1, "note": html.note(back.said)}

    endpoint(restore, {n: gr.JSON() for n in RESTORED})

    label = next((name for name in engine.models if engine.concepts(name) is not None), None)
    table = engine.concepts(label) if label is not None else None

    def place(
        text: str = "",
        file: Upload | None = None,
        parts: Any = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[dict[str, Any]]:
        """Where a prompt lies among the concepts."""
        if label is None or table is None or table.places is None:
            raise InputError("no model here has a map of concepts")
        said = words(text, "the words", context.limits.text)
        rate = engine.rate(label) if file is not None else 0
        prompts = given_parts(parts, context.limits) if parts else words_and_file(worker, said, file, "file", rate)
        if not prompts:
            raise InputError("nothing to place: write words, or add a file")
        concepts = ConceptMap(table, table.places)

        def work(job: Job[Any]) -> Any:
            return engine.pipeline(label).mixed(Request((prompts,)))[0][0].cpu()

        for vector in engine.run(work, session_of(request), "place"):
            if not isinstance(vector, Progress):
                spot, numbers = concepts.place(vector)
                found = nearest(table, vector)
                where = [round(v, 4) for v in spot.tolist()]
                name = " + ".join(p.name for p in prompts)
                yield {
                    "details": {"place": where, "concepts": named(found)},
                    "map": html.fragment("map", concepts, where, numbers, name),
                    "understood": html.understood(found, prompts[:1], [found]),
                }

    endpoint(place, {"details": gr.JSON(), "map": gr.Textbox(), "understood": gr.Textbox()}, concurrency_limit=1)
