"""The page: one HTML file from a template, its style and script, and what they ask for beside the endpoints."""

from __future__ import annotations

import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import InputError
from ..eval.results import unpacked
from ..eval.tables import charts
from ..loading import describe, shipped_folder
from .concept_map import ConceptMap
from .context import AppContext
from .html import environment
from .opening import Opening

HERE = Path(__file__).parent
PAPER = "https://arxiv.org/abs/2602.09507"
BARS = 10  # of a chart
CARDS = ("starter", "samples", "judge", "kandinsky", "stable-unclip")


def page_routes(context: AppContext, opening: Opening) -> list[Any]:
    """What stands before Gradio's own routes."""
    cards = {name: shipped_folder() / name / "README.md" for name in CARDS}
    cards |= {f"{name}-licences": shipped_folder() / name / "ATTRIBUTION.tsv" for name in CARDS[:2]}

    async def home(request: Request) -> Response:
        app = request.app
        logged_in = app.auth is None or any(app.tokens.get(token) for token in request.cookies.values())
        engine = context.engine
        values = {
            "url": str(request.base_url),
            "paper": PAPER,
            "models": engine.models,
            "model": next(iter(engine.models.values())),
            "limits": context.limits,
        }
        name = "page.html.j2" if logged_in else "login.html.j2"
        return HTMLResponse(environment().get_template(name).render(values))

    def explore(request: Request) -> Response:
        return HTMLResponse(environment().get_template("explore.html.j2").render(explore_values(context)))

    def card(request: Request) -> Response:
        file = cards.get(request.path_params["name"])
        return PlainTextResponse(file.read_text("utf-8") if file and file.is_file() else "no such card", 200 if file else 404)

    def sample(request: Request) -> Response:
        return FileResponse(str(context.sample(Path(request.path_params["name"]).name)))

    def preview(request: Request) -> Response:
        data = io.BytesIO()
        opening.card().save(data, "PNG")
        return Response(data.getvalue(), media_type="image/png")

    return [
        Route("/", home),
        Route("/page/explore", explore),
        Route("/page/preview.png", preview),
        Route("/page/card/{name}", card),
        Mount("/page", StaticFiles(directory=HERE / "static")),
    ]


def explore_values(context: AppContext) -> dict[str, Any]:
    """The map of concepts, the evaluation's charts and the models."""
    label = next((name for name in context.engine.models if context.engine.concepts(name) is not None), None)
    table = context.engine.concepts(label) if label is not None else None
    models = [
        [row["name"], "on this disk" if row["on_disk"] else "not complete", str(row["pipeline"] or ""), megabytes(row)]
        for row in describe()
    ]
    placed = None if table is None or table.places is None else ConceptMap(table, table.places)
    return {"map": placed, "results": results(), "models": models}


def megabytes(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / 1e6:.0f} MB" if row.get("bytes") else ""


def results(checkpoint: str = "starter") -> list[tuple[str, list[dict[str, Any]]]]:
    """The charts of each protocol of a checkpoint's `report.json`; none where none is shipped, or it is damaged."""
    file = resources.files("unialign_gen.eval") / "results" / checkpoint / "report.json"
    try:
        found = json.loads(file.read_text("utf-8"))["results"]
        return [(result_title(r), charts(unpacked(r["rows"]), BARS)) for r in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        return []


def result_title(result: dict[str, Any]) -> str:
    about = result.get("about") or {}
    where = ", ".join(str(about[k]) for k in ("dataset", "subset") if about.get(k) and about[k] != "all")
    return f"{str(result['protocol']).capitalize()}{': ' + where if where else ''}"
