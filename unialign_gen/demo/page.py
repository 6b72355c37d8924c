"""The page: one HTML file from a template, its style and script, and what they ask for beside the endpoints."""

from __future__ import annotations

import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from ..errors import InputError
from ..eval.results import unpacked
from ..eval.tables import bars
from ..loading import describe, shipped_folder
from .api import ACTIONS, parameters
from .engine import AppContext
from .html import ENVIRONMENT, KINDS
from .opening import Opening

BARS = 10  # of a chart
TEXT = "text/plain; charset=utf-8"


def page_routes(context: AppContext, opening: Opening) -> list[Any]:
    """What stands before Gradio's own routes: the page, its files, and the cards and licences of what it draws with."""
    models, templates = context.engine.models, Jinja2Templates(env=ENVIRONMENT)
    cards = {"card": "starter/README.md", "licences": "starter/ATTRIBUTION.tsv", "samples": "samples/README.md"}
    facts = {
        "kinds": KINDS,
        "file_bytes": context.limits.file_bytes,
        "pixels": context.limits.pixels,
        "models": {
            n: {"steps": m.steps, "guidance": m.guidance, "best_of": m.best_of, "prior_strength": m.prior}
            for n, m in models.items()
        },
        "inputs": {action.__name__.lower(): list(parameters(action)) for action in ACTIONS},
        "outputs": {action.__name__.lower(): list(action.outputs) for action in ACTIONS},
    }

    async def home(request: Request) -> Response:
        app = request.app
        if app.auth is not None and not any(app.tokens.get(token) for token in request.cookies.values()):
            return templates.TemplateResponse(request, "login.html.j2")
        known = {
            "facts": facts,
            "limits": context.limits,
            "names": [(n, n) for n in models],
            "model": next(iter(models.values())),
            "url": request.base_url,
        }
        return templates.TemplateResponse(request, "page.html.j2", known)

    def explore(request: Request) -> Response:
        table = context.engine.concepts(next(iter(models)))
        known = {"table": table, "results": results(), "models": describe()}
        return templates.TemplateResponse(request, "explore.html.j2", known)

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
        *(Route(f"/page/{name}", FileResponse(shipped_folder() / file, media_type=TEXT)) for name, file in cards.items()),
        Mount("/page", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


def results(checkpoint: str = "starter") -> list[tuple[str, list[dict[str, Any]]]]:
    """The charts of each protocol of a checkpoint's `report.json`; none where none is shipped, or it is damaged."""
    file = resources.files("unialign_gen.eval") / "results" / checkpoint / "report.json"
    try:
        found = json.loads(file.read_text("utf-8"))["results"]
        titles = [f"{r['protocol'].capitalize()}: {r['about']['dataset']}: {', '.join(r['about']['methods'])}" for r in found]
        return [(title, bars(unpacked(r["rows"]), BARS)) for title, r in zip(titles, found, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        return []
