"""The tab Travel: stations of any kind, and the way between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from ..film.sheets import save_sequence
from . import html
from .components import FileTile
from .context import DRAWING, AppContext, session_of
from .drawing import drawing_sliders, follow_model, model_choice
from .engine import Progress
from .errors import guarded_stream
from .player import SCRIPT, TEMPLATE, film_strip
from .stop import stopping
from .travel import Travel, Way

FIRST = ("a cat", "a lion", "", "")  # what the stations say at first
SIDE = 384  # of what is exported, in pixels


def travel_tab(context: AppContext) -> None:
    limits = context.limits
    models = list(context.engine.models)
    texts, files = [], []
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            for i in range(len(FIRST)):
                with gr.Group(elem_classes="ua-station"), gr.Row():
                    texts.append(
                        gr.Textbox(
                            FIRST[i],
                            label=f"Station {i + 1}",
                            placeholder="words" if i < 2 else "if you like",
                            max_length=limits.text,
                            elem_id=f"station-{i + 1}",
                            scale=3,
                        )
                    )
                    files.append(
                        FileTile(
                            label="or a file",
                            height=92,
                            elem_classes="ua-file",
                            scale=2,
                            elem_id=f"station-file-{i + 1}",
                        )
                    )
            with gr.Row():
                go = gr.Button("Travel", variant="primary", elem_id="travel", scale=3, min_width=120)
                stop = gr.Button("Stop", elem_id="travel-stop", scale=1, min_width=80)
            with gr.Accordion("Settings", open=False, elem_id="travel-settings"):
                with gr.Row():
                    between = gr.Slider(2, 16, 8, step=1, label="Pictures from stop to stop", elem_id="between")
                    closed = gr.Checkbox(False, label="Back to the start", elem_id="closed")
                with gr.Row():
                    mix = gr.Radio(
                        [("Straight (lerp)", "lerp"), ("Along the sphere (slerp)", "slerp")], value="slerp", label="Mix"
                    )
                    model = model_choice(context, "travel-model")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=limits.seed)
                    steps, guidance = drawing_sliders(context, "travel-")
        with gr.Column(scale=5, min_width=320):
            stage = gr.HTML(
                html.note("Every picture of the way starts from the same noise: only the prompt moves."),
                label="progress",
                elem_id="travel-stage",
            )
            player = gr.HTML("", html_template=TEMPLATE, js_on_load=SCRIPT, label="player", elem_id="player")
            exports = gr.File(
                label="To keep", file_count="multiple", interactive=False, elem_id="exports", elem_classes="ua-filled"
            )

    @guarded_stream
    def travel(
        text_1: str = FIRST[0],
        text_2: str = FIRST[1],
        text_3: str = FIRST[2],
        text_4: str = FIRST[3],
        file_1: str | None = None,
        file_2: str | None = None,
        file_3: str | None = None,
        file_4: str | None = None,
        between: int = 8,
        closed: bool = False,
        mix: str = "slerp",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        model: str = models[0],
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[Any]:
        words, uploads = (text_1, text_2, text_3, text_4), (file_1, file_2, file_3, file_4)
        asked = Travel(words, uploads, between, closed, mix, seed, steps, guidance, model)
        for found in asked.run(context.engine, context.decode_worker, session_of(request)):
            if isinstance(found, Progress):
                yield {stage: html.stage(found)}
            else:
                yield finished(found)

    def finished(way: Way) -> dict[Any, Any]:
        folder = context.folder()
        large = [p.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for p in way.pictures]
        save_sequence(large, folder / "way.gif", back=not way.closed)
        save_sequence(large, folder / "way.mp4")
        return {
            exports: [str(folder / "way.gif"), str(folder / "way.mp4")],
            stage: html.notes(way.notes),
            player: film_strip(way),
        }

    inputs = [*texts, *files, between, closed, mix, seed, steps, guidance, model]
    going = go.click(travel, inputs, [exports, stage, player], api_name="travel", show_progress="hidden", **DRAWING)

    follow_model(context, model, steps, guidance)
    stopping(stop, stage, [going])
