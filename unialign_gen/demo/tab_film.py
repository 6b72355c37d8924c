"""The tab Film: a recording plays while the picture follows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from . import html
from .components import SoundTile
from .context import DRAWING, AppContext, session_of
from .drawing import drawing_sliders, follow_model, model_choice
from .engine import Progress
from .errors import guarded_stream
from .film import Animate
from .stop import stopping

SAMPLES = ("cow.flac", "guitar.flac", "train.flac")


def film_tab(context: AppContext) -> None:
    limits = context.limits
    models = list(context.engine.models)
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            sound = SoundTile(
                label=f"A recording; its first {limits.film_seconds:.0f} s",
                sources=["upload", "microphone"],
                type="filepath",
                buttons=["download"],
                elem_id="film-sound",
            )
            examples = gr.Dataset(
                label="Try one",
                components=[gr.Textbox(visible=False)],
                samples=[[name.split(".")[0]] for name in SAMPLES],
                type="index",
                elem_id="film-examples",
            )
            with gr.Row():
                text = gr.Textbox(
                    "",
                    label="Words that stay in the mix, if you like",
                    placeholder="a robot",
                    max_length=limits.text,
                    elem_id="film-text",
                    scale=3,
                )
                weight = gr.Slider(0, 1, 0.3, step=0.05, label="Their weight", scale=2)
            with gr.Row():
                go = gr.Button("Make the film", variant="primary", elem_id="film", scale=3, min_width=120)
                stop = gr.Button("Stop", elem_id="film-stop", scale=1, min_width=80)
            with gr.Accordion("Settings", open=False, elem_id="film-settings"):
                with gr.Row():
                    pictures = gr.Slider(1, limits.film_pictures, 4, step=1, label="Pictures a second", elem_id="film-pictures")
                    smooth = gr.Slider(0.1, 3, 0.5, step=0.1, label="Smoothness, in seconds")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=limits.seed)
                    steps, guidance = drawing_sliders(context, "film-")
                model = model_choice(context, "film-model")
        with gr.Column(scale=5, min_width=320):
            stage = gr.HTML(
                html.note("The picture follows the sound through time, and the sound plays along."),
                label="progress",
                elem_id="film-stage",
            )
            film = gr.Video(
                label="Film",
                interactive=False,
                autoplay=True,
                loop=True,
                height=420,
                elem_id="film-video",
                elem_classes="ua-filled",
            )

    @guarded_stream
    def animate(
        sound: str | None = None,
        text: str = "",
        text_weight: float = 0.3,
        pictures: float = 4,
        smooth: float = 0.5,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        model: str = models[0],
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[Any]:
        asked = Animate(sound, text, text_weight, pictures, smooth, seed, steps, guidance, model)
        for found in asked.run(context.engine, context.decode_worker, context.folder(), session_of(request)):
            if isinstance(found, Progress):
                yield {stage: html.stage(found)}
            else:
                yield {film: str(found.path), stage: html.note(found.said)}

    inputs = [sound, text, weight, pictures, smooth, seed, steps, guidance, model]
    going = go.click(animate, inputs, [film, stage], api_name="animate", show_progress="hidden", **DRAWING)

    follow_model(context, model, steps, guidance)
    stopping(stop, stage, [going])

    def example(index: int) -> str | None:
        return context.sample(SAMPLES[index])

    examples.click(example, examples, sound, api_visibility="private", show_progress="hidden")
