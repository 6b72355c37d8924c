"""The page: one HTML file from a template, its style and script, and what they ask for beside the endpoints."""

from __future__ import annotations

import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import InputError
from ..eval.results import unpacked
from ..eval.tables import bars
from ..loading import describe, shipped_folder
from .api import ACTIONS, parameters
from .context import AppContext
from .html import KINDS, environment
from .opening import Opening

PAPER = "https://arxiv.org/abs/2602.09507"
BARS = 10  # of a chart
TEXT = "text/plain; charset=utf-8"


def page_routes(context: AppContext, opening: Opening) -> list[Any]:
    """What stands before Gradio's own routes: the page, its files, and the cards and licences of what it draws with."""
    models, starter = context.engine.models, shipped_folder() / "starter"
    cards = {
        "card": starter / "README.md",
        "licences": starter / "ATTRIBUTION.tsv",
        "samples": shipped_folder() / "samples" / "README.md",
    }
    facts = {
        "kinds": KINDS,
        "models": {n: {"steps": m.steps, "guidance": m.guidance, "prior_strength": m.prior} for n, m in models.items()},
        "inputs": {action.__name__.lower(): parameters(action) for action in ACTIONS},
        "outputs": {action.__name__.lower(): list(action.outputs) for action in ACTIONS},
    }

    def rendered(name: str, **values: Any) -> Response:
        return HTMLResponse(environment().get_template(name).render(values))

    async def home(request: Request) -> Response:
        app = request.app
        if app.auth is not None and not any(app.tokens.get(token) for token in request.cookies.values()):
            return rendered("login.html.j2")
        named = {"model": next(iter(models.values())), "models": [(name, name) for name in models]}
        return rendered("page.html.j2", url=request.base_url, paper=PAPER, facts=facts, limits=context.limits, **named)

    def explore(_: Request) -> Response:
        table = context.engine.concepts(next(iter(models)))
        known = table if table is not None and table.places is not None else None
        return rendered("explore.html.j2", table=known, results=results(), models=describe())

    def opened(_: Request) -> Response:
        return JSONResponse({"answers": opening.answers, "done": opening.done}, headers={"cache-control": "no-store"})

    def preview(_: Request) -> Response:
        data = io.BytesIO()
        opening.card().save(data, "PNG")
        return Response(data.getvalue(), media_type="image/png")

    return [
        Route("/", home),
        Route("/page/explore", explore),
        Route("/page/opening", opened),
        Route("/page/preview.png", preview),
        *(Route(f"/page/{name}", FileResponse(file, media_type=TEXT)) for name, file in cards.items()),
        Mount("/page", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


def results(checkpoint: str = "starter") -> list[tuple[str, list[dict[str, Any]]]]:
    """The charts of each protocol of a checkpoint's `report.json`; none where none is shipped, or it is damaged."""
    file = resources.files("unialign_gen.eval") / "results" / checkpoint / "report.json"
    try:
        found = json.loads(file.read_text("utf-8"))["results"]
        titles = [f"{r['protocol'].capitalize()}: {r['about']['dataset']}" for r in found]
        return [(title, bars(unpacked(r["rows"]), BARS)) for title, r in zip(titles, found, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        return []
