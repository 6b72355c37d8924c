"""The tab Create: tiles for text, sound, video and picture, and what was drawn of their mix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ..request.picture_settings import save_picture
from . import html
from .components import FileTile, PictureTile, SoundTile, VideoTile
from .context import DRAWING, AppContext, session_of
from .create import Create, Drawn
from .drawing import drawing_sliders, follow_model, model_choice, prior_slider
from .engine import Progress
from .errors import guarded, guarded_stream
from .examples import EXAMPLES
from .restore import restore, settings_of
from .snippets import command, python
from .stop import stopping

KINDS = ("text", "audio", "video", "image")
RANDOM = "() => Math.floor(Math.random() * 2147483647)"
SHOW_STAGE = "() => { if (innerWidth < 768) document.querySelector('#stage').scrollIntoView({behavior: 'smooth'}); }"


def create_tab(context: AppContext) -> None:
    limits = context.limits
    models = list(context.engine.models)
    weights: dict[str, gr.Slider] = {}

    def weight(kind: str) -> None:
        weights[kind] = gr.Slider(
            -limits.weight / 2,
            limits.weight / 2,
            1,
            step=0.05,
            label="Weight",
            elem_classes="ua-weight",
            elem_id=f"weight-{kind}",
        )

    kept = gr.JSON([], visible="hidden", label="kept", elem_id="kept-prompts")  # no state: who draws names them
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            with gr.Group():
                text = gr.Textbox(
                    "", label="Words", placeholder="a red car", lines=2, max_length=limits.text, elem_id="text", autofocus=True
                )
                weight("text")
            with gr.Row():
                draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3, min_width=120)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
            examples = gr.Dataset(
                label="Try one",
                components=[gr.Textbox(visible=False)],
                samples=[[e.label] for e in EXAMPLES],
                type="index",
                elem_id="examples",
            )
            with gr.Group():
                audio = SoundTile(
                    label="Sound",
                    sources=["upload", "microphone"],
                    type="filepath",
                    buttons=["download"],
                    elem_id="audio",
                    elem_classes="ua-tile",
                )
                weight("audio")
            with gr.Row():
                with gr.Group():
                    video = VideoTile(label="Video", sources=["upload"], height=190, elem_id="video", elem_classes="ua-tile")
                    weight("video")
                with gr.Group():
                    image = PictureTile(
                        label="Picture",
                        sources=["upload", "clipboard"],
                        type="filepath",
                        height=190,
                        elem_id="image",
                        elem_classes="ua-tile",
                    )
                    weight("image")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=limits.seed, elem_id="seed", scale=3)
                    dice = gr.Button("New seed", size="sm", scale=1, min_width=90)
                    pictures = gr.Slider(1, limits.pictures, 1, step=1, label="Pictures", elem_id="pictures", scale=4)
                with gr.Row():
                    steps, guidance = drawing_sliders(context, "")
                prior = prior_slider(context)
                with gr.Row():
                    mix = gr.Radio(
                        [("Straight (lerp)", "lerp"), ("Along the sphere (slerp)", "slerp")],
                        value="lerp",
                        label="Mix",
                        elem_id="mix",
                    )
                    model = model_choice(context, "model")
                restorer = FileTile(
                    label="Settings from a picture that was drawn here",
                    file_types=[".png", ".jpg", ".jpeg", ".webp"],
                    height=92,
                    elem_classes="ua-file",
                    elem_id="restore",
                )
            with gr.Row(visible=False, elem_id="kept") as kept_row:
                kept_note = gr.HTML(label="kept", elem_id="kept-note")
                forget = gr.Button("Forget them", size="sm", scale=0, min_width=120)
        with gr.Column(scale=5, min_width=320):
            stage = gr.HTML(html.note("Write something, add a sound, or try an example."), label="progress", elem_id="stage")
            gallery = gr.Gallery(
                label="Pictures",
                height=420,
                object_fit="contain",
                format="png",
                columns=4,
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="gallery",
                elem_classes="ua-filled",
            )
            understood = gr.HTML(label="understood", elem_id="understood")
            with gr.Accordion("What was heard and seen", open=False, elem_id="seen-box"):
                seen = gr.HTML(label="seen", elem_id="seen")
            with gr.Accordion("The same pictures from a terminal or from Python", open=False, elem_id="recipe"):
                shell = gr.Code(
                    label="Command line", language="shell", interactive=False, lines=1, elem_id="shell", wrap_lines=True
                )
                script = gr.Code(label="Python", language="python", interactive=False, lines=1, elem_id="python")
            details = gr.JSON(label="details", visible=False)

    @guarded_stream
    def create(
        text: str = "",
        audio: str | None = None,
        video: str | None = None,
        image: str | None = None,
        text_weight: float = 1.0,
        audio_weight: float = 1.0,
        video_weight: float = 1.0,
        image_weight: float = 1.0,
        mix: str = "lerp",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        pictures: int = 1,
        model: str = models[0],
        prior_strength: float | None = None,
        kept: Any = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[Any]:
        shares = dict(zip(KINDS, (text_weight, audio_weight, video_weight, image_weight), strict=True))
        files = {"audio": audio, "video": video, "image": image}
        asked = Create(text, files, shares, kept, mix, seed, steps, guidance, pictures, model, prior_strength)
        for found in asked.run(context.engine, context.decode_worker, session_of(request)):
            if isinstance(found, Progress):
                yield {stage: html.stage(found)}
            else:
                yield shown(found)

    def shown(drawn: Drawn) -> dict[Any, Any]:
        folder, files = context.folder(), []
        for settings, picture in zip(drawn.settings, drawn.pictures, strict=True):
            seed = settings.request.seed
            save_picture(picture, folder / f"picture-{seed}.png", settings)
            files.append((str(folder / f"picture-{seed}.png"), f"seed {seed}"))
        first = drawn.settings[0]
        return {
            gallery: files,
            details: summary(drawn),
            shell: command(first, len(files)),
            script: python(first, len(files)),
            stage: "",
            understood: html.notes(drawn.notes) + html.understood(drawn.nearest, drawn.prompts, drawn.nearest_each),
            seen: html.seen(drawn.prompts),
        }

    inputs = [text, audio, video, image, *weights.values(), mix, seed, steps, guidance, pictures, model, prior, kept]
    outputs = [gallery, details, shell, script, stage, understood, seen]
    options: Any = {"show_progress": "hidden", **DRAWING}
    drawing = gr.on([draw.click, text.submit], create, inputs, outputs, api_name="create", **options)

    follow_model(context, model, steps, guidance, prior)
    dice.click(None, None, seed, js=RANDOM, api_visibility="private")
    gr.on([draw.click, examples.click], None, js=SHOW_STAGE, api_visibility="private")

    def example(index: int) -> list[Any]:
        chosen = EXAMPLES[index]
        shares = [chosen.weights.get(kind, 1) for kind in KINDS]
        files = [context.sample(chosen.files.get(kind)) for kind in ("audio", "video", "image")]
        return [chosen.text, *files, *shares, [], gr.Row(visible=False)]

    fill = examples.click(
        example,
        examples,
        [text, audio, video, image, *weights.values(), kept, kept_row],
        api_visibility="private",
        show_progress="hidden",
    )
    drawing_example = fill.then(create, inputs, outputs, api_visibility="private", **options)
    stopping(stop, stage, [drawing, drawing_example])
    for event in (drawing, drawing_example):  # the first picture large, with its download
        event.success(
            lambda: gr.Gallery(selected_index=0), None, gallery, api_visibility="private", show_progress="hidden", queue=False
        )

    @guarded
    def bring_back(file: str | None = None) -> dict[Any, Any]:
        if file is None:
            return {kept: [], kept_row: gr.Row(visible=False)}
        back = restore(settings_of(file, context.decode_worker), context.engine, Path(file).name)
        return {
            text: back.text,
            **dict.fromkeys((audio, video, image)),
            **{weights[kind]: back.weights.get(kind, 1.0) for kind in KINDS},
            mix: back.mix,
            seed: back.seed,
            steps: back.steps,
            guidance: back.guidance,
            prior: back.prior,
            pictures: back.pictures,
            model: back.model,
            kept: back.kept,
            kept_row: gr.Row(visible=bool(back.kept)),
            kept_note: html.note(back.said),
            stage: html.note(back.said),
            restorer: None,
        }

    controls = [text, audio, video, image, *weights.values(), mix, seed, steps, guidance, pictures, model, prior]
    restored = restorer.upload(
        bring_back,
        restorer,
        [*controls, kept_row, kept_note, stage, restorer, kept],
        api_name="restore",
        show_progress="hidden",
    )
    restored.then(
        lambda label: gr.Slider(visible=context.engine.model(label).prior is not None),
        model,
        prior,
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
    forget.click(lambda: ([], gr.Row(visible=False)), None, [kept, kept_row], api_visibility="private", show_progress="hidden")


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
        "concepts": [{"name": n, "cosine": round(c, 4)} for n, c in drawn.nearest],
        "prompts": [
            {"kind": p.kind, "value": p.name, "weight": p.weight, "concepts": [n for n, _ in near]}
            for p, near in zip(drawn.prompts, drawn.nearest_each, strict=True)
        ],
    }
