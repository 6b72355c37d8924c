"""The page's actions as endpoints of Gradio: each field of an action is a parameter, each output a value."""

from __future__ import annotations

import inspect
import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gradio as gr
from gradio.utils import get_upload_folder

from ..errors import InputError
from . import html
from .action import Action, Upload
from .create import Create, Edit
from .engine import AppContext, CancelledError, Progress
from .film import Animate, Travel
from .live import Live
from .read import Place, Read

ACTIONS: dict[type[Action], dict[str, Any]] = {
    **{action: {"concurrency_id": "drawing"} for action in (Create, Edit, Travel, Animate)},  # `Limits.together` at a time
    Live: {"queue": False},  # a few requests a second: the engine alone puts them in turn
    **{action: {"concurrency_limit": 2} for action in (Read, Place)},
}
PLACE = re.compile(r"(?<![\w.])/(?:[^\s/:,;'\"]+/)+[^\s/:,;'\"]*")  # an absolute path: the page shows its last part
log = logging.getLogger("unialign_gen.demo")


def session_of(request: Any) -> str:
    """Who asks: the browser tab, or the client; who does not say so is somebody of his own, whom nobody else can stop."""
    return str(getattr(request, "session_hash", None) or secrets.token_hex(16))


class Endpoints(gr.Blocks):
    """Gradio's endpoints, which hand inputs on as they came: Gradio would fetch any address that stands in them."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *_: Any, **__: Any) -> list[Any]:
        self.validate_inputs(block_fn, inputs)
        return inputs


def uploaded(payload: Any) -> str | None:
    """The path of a file as clients name it, `{"path": ...}`, unopened; an `InputError` unless it lies where uploads lie."""
    if payload is None:
        return None
    with suppress(TypeError, KeyError, ValueError):
        path = Path(payload["path"])
        if path.resolve().is_relative_to(Path(get_upload_folder()).resolve()):
            return str(path)
    raise InputError("a file must be uploaded first")


def said(error: BaseException) -> gr.Error:
    """The error as the page shows it: one line, without markup."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, InputError):
        line = PLACE.sub(lambda found: Path(found[0]).name, " ".join(str(error).split()))[:300]
    elif isinstance(error, CancelledError):
        line = "stopped"
    else:
        log.error("a request failed", exc_info=error)
        line = "this did not work, for a reason that is the server's: please try something else"
    return gr.Error(escape(line, quote=False), title="", duration=8, print_exception=False)


def parameters(action: type[Action]) -> dict[str, inspect.Parameter]:
    """Of an endpoint, by name in their order: the action's own first."""
    found = inspect.signature(action).parameters
    return {name: found[name] for name in sorted(found, key=lambda name: name not in action.__annotations__)}


def endpoint(context: AppContext, action: type[Action], options: dict[str, Any]) -> None:
    """`/NAME` of an action, inside a page that is being built. What goes wrong is one line."""
    hints, known = get_type_hints(action), parameters(action)
    files = [name for name in known if Upload in get_args(hints[name])]

    def answer(request: gr.Request, *given: Any) -> Iterator[Any]:
        try:
            values = dict(zip(known, given, strict=True))
            asked = action(**values | {name: uploaded(values[name]) for name in files})
            for found in asked.run(context, session_of(request)):
                if not isinstance(found, Progress):
                    yield tuple(found.values()) if len(found) > 1 else next(iter(found.values()))
                elif "stage" in action.outputs:
                    yield tuple(html.fragment("stage", found) if name == "stage" else None for name in action.outputs)
        except Exception as error:
            raise said(error) from None

    request, returned = inspect.signature(answer).parameters["request"], tuple[*action.outputs.values()]  # type: ignore[misc]
    signature = inspect.Signature([request, *known.values()], return_annotation=returned)
    answer.__signature__ = signature  # type: ignore[attr-defined]
    answer.__annotations__ = {"request": gr.Request, **hints, **dict.fromkeys(files, gr.FileData)}
    answer.__doc__ = action.__doc__
    gr.api(answer, api_name=action.__name__.lower(), **options)


def build(context: AppContext) -> gr.Blocks:
    """Every endpoint; nothing of this is shown."""
    age = context.limits.cache_seconds
    with Endpoints(title="unialign_gen", analytics_enabled=False, delete_cache=(max(60, age // 10), age)) as made:
        for action, options in ACTIONS.items():
            endpoint(context, action, options)

        def stop(request: gr.Request) -> int:
            """Stops all that this session has asked for; how many requests that were."""
            return context.engine.cancel(session_of(request))

        def models() -> list[str]:
            """The models that `model` may name."""
            return list(context.engine.models)

        gr.api(stop, api_name="stop", queue=False)
        gr.api(models, api_name="models")
    made.queue(max_size=context.limits.waiting, default_concurrency_limit=context.limits.together, api_open=False)
    return made
