"""The page's actions as endpoints: each field of an action becomes a Gradio component of its type, each output a value."""

from __future__ import annotations

import inspect
import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gradio as gr
from gradio.utils import get_upload_folder

from ..errors import InputError
from .action import Action, Upload
from .context import AppContext
from .create import Create, Edit
from .engine import CancelledError
from .film import Animate
from .live import Live
from .read import Place, Read
from .travel import Travel

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


def upload_field(**options: Any) -> Any:
    """Gradio's file component without its decoder."""
    field: Any = gr.File(**options)
    field.preprocess = uploaded
    return field


def uploaded(payload: Any) -> str | None:
    """The path inside a file component's payload, if it lies where uploads lie; nothing is opened."""
    path = getattr(payload, "path", None)
    if not path:
        return None
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("a file must be uploaded first", print_exception=False)
    return str(path)


COMPONENTS = {Upload: upload_field, bool: gr.Checkbox, int: gr.Number, float: gr.Number, str: gr.Textbox}


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


def parameters(action: type[Action]) -> list[str]:
    """Of an endpoint, in their order: the action's own first."""
    return sorted((f.name for f in fields(action)), key=lambda name: name not in action.__annotations__)


def endpoint(context: AppContext, action: type[Action], options: dict[str, Any]) -> None:
    """`/NAME` of an action, inside a page that is being built. What goes wrong is one line."""
    hints, outputs = get_type_hints(action), {name: make() for name, make in action.outputs.items()}
    inputs = []
    for name in parameters(action):
        kinds = get_args(hints[name]) or (hints[name],)
        make: Any = next((COMPONENTS[k] for k in kinds if k in COMPONENTS), gr.JSON)
        inputs.append(make(value=getattr(action, name), label=name))

    def answer(request: gr.Request, *given: Any) -> Iterator[Any]:
        try:
            asked = action(**dict(zip((i.label for i in inputs), given, strict=True)))
            for found in asked.answers(context, session_of(request)):
                yield {outputs[name]: value for name, value in found.items()}
        except Exception as error:
            raise said(error) from None

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [inspect.Parameter(i.label, kind, default=i.value) for i in inputs]
    answer.__signature__ = inspect.Signature([inspect.Parameter("request", kind), *named])  # type: ignore[attr-defined]
    answer.__annotations__ = {"request": gr.Request}
    answer.__doc__ = action.__doc__
    gr.Button().click(answer, inputs, list(outputs.values()), api_name=action.__name__.lower(), **options)


def build(context: AppContext) -> gr.Blocks:
    """Every endpoint; nothing of this is shown."""
    age = context.limits.cache_seconds
    with gr.Blocks(title="unialign_gen", analytics_enabled=False, delete_cache=(max(60, age // 10), age)) as made:
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
