"""The tab Explore: the map of concepts with a prompt on it, the evaluation's tables, the models that are here."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from ..errors import InputError
from ..loading import describe
from ..request import Request
from . import html
from .components import FileTile
from .concept_map import ConceptMap
from .context import AppContext, session_of
from .engine import Job, Progress
from .errors import guarded_stream
from .limits import words
from .prompts import nearest, words_and_file
from .results import Table, tables

WIDE, HIGH, EDGE = 1100.0, 760.0, 50.0


def explore_tab(context: AppContext) -> None:
    label = next((name for name in context.engine.models if context.engine.concepts(name) is not None), None)
    table = context.engine.concepts(label) if label is not None else None
    if label is not None and table is not None and table.places is not None:
        map_of(context, label, ConceptMap(table, table.places))
    with gr.Accordion("How well it works", open=False, elem_id="results"):
        found = tables()
        gr.HTML("".join(table_html(t) for t in found) or html.note("This installation carries no evaluation results."))
    with gr.Accordion("Models", open=False, elem_id="models"):
        gr.HTML(table_html(models_table()))
    labels = list(context.engine.models)

    def models() -> list[str]:
        """The models that `model` may name."""
        return labels

    gr.api(models, api_name="models")


def map_of(context: AppContext, label: str, concepts: ConceptMap) -> None:
    with gr.Row(equal_height=False):
        text = gr.Textbox(
            "",
            label="Place a prompt on the map",
            placeholder="a pony",
            max_length=context.limits.text,
            elem_id="place-text",
            scale=4,
        )
        file = FileTile(label="or a sound, video, picture", height=92, elem_classes="ua-file", scale=3, elem_id="place-file")
        go = gr.Button("Place it", variant="primary", scale=1, min_width=120, elem_id="place")
    plane = gr.HTML(map_svg(concepts), label="map", elem_id="map")
    near = gr.HTML(label="understood", elem_id="map-near")
    details = gr.JSON(label="details", visible=False)

    @guarded_stream
    def place(
        text: str = "",
        file: str | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[Any]:
        said = words(text, "the words", context.limits.text)
        rate = context.engine.rate(label) if file is not None else 0
        prompts = words_and_file(context.decode_worker, said, file, "file", rate)
        if not prompts:
            raise InputError("nothing to place: write words, or add a file")

        def work(job: Job[Any]) -> Any:
            return context.engine.pipeline(label).mixed(Request((prompts,)))[0][0].cpu()

        for vector in context.engine.run(work, session_of(request), "place"):
            if not isinstance(vector, Progress):
                spot, numbers = concepts.place(vector)
                found = nearest(context.engine.concepts(label), vector)
                yield {
                    plane: map_svg(concepts, spot.tolist(), numbers, " + ".join(p.name for p in prompts)),
                    near: html.understood(found, prompts[:1], [found]),
                    details: {
                        "place": [round(v, 4) for v in spot.tolist()],
                        "concepts": [{"name": n, "cosine": round(c, 4)} for n, c in found],
                    },
                }

    options: Any = {"api_name": "place", "show_progress": "minimal", "concurrency_limit": 1}
    gr.on([go.click, text.submit], place, [text, file], [details, plane, near], **options)


def map_svg(concepts: ConceptMap, spot: list[float] | None = None, numbers: list[int] | None = None, name: str = "") -> str:
    """The map as an SVG; a prompt's place with lines to the concepts that gave it."""

    def at(place: list[float]) -> tuple[float, float]:
        return EDGE + place[0] * 1000, 20 + place[1] * 720

    chosen, lines, dots = set(numbers or []), "", ""
    places = concepts.places.tolist()
    for i, (word, place) in enumerate(zip(concepts.table.names, places, strict=True)):
        x, y = at(place)
        style = ' class="ua-near"' if i in chosen else ""
        dot = f'<circle cx="{x - 3.2 * len(word) - 5:.0f}" cy="{y:.0f}" r="3"/>'
        dots += f'<g{style}>{dot}<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(word)}</text></g>'
    star = ""
    if spot is not None:
        x, y = at(spot)
        for i in chosen:
            to = at(places[i])
            lines += f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{to[0]:.0f}" y2="{to[1]:.0f}"/>'
        short = name if len(name) <= 40 else name[:39] + "…"
        star = f'<circle class="ua-spot" cx="{x:.0f}" cy="{y:.0f}" r="13"/>'
        star += f'<text class="ua-spot-name" x="{x:.0f}" y="{y - 19:.0f}" text-anchor="middle">{escape(short)}</text>'
    head = f'<svg viewBox="0 0 {WIDE:.0f} {HIGH:.0f}" role="img" aria-label="map of {len(places)} concepts">'
    return f'<div class="ua-map">{head}{lines}{dots}{star}</svg></div>'


def table_html(table: Table) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(v)}</td>" for v in row) + "</tr>" for row in table.rows)
    return f'<div class="ua-table"><h4>{escape(table.title)}</h4><table><tr>{head}</tr>{body}</table></div>'


def models_table() -> Table:
    rows = []
    for row in describe():
        size = f"{row['bytes'] / 1e6:.0f} MB" if row.get("bytes") else ""
        rows.append([row["name"], "on this disk" if row["on_disk"] else "not complete", str(row["pipeline"] or ""), size])
    return Table("Checkpoints", ["name", "state", "pipeline", "size"], rows)
