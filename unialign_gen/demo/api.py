"""The page's actions as endpoints: each field of an action becomes a Gradio component of its type, each output a value."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gradio as gr
from gradio.utils import get_upload_folder

from .action import Action, Upload
from .context import DRAWING, AppContext, session_of
from .create import Create, Edit
from .errors import said
from .film import Animate
from .live import Live
from .read import Place, Read, Restore
from .travel import Travel

SOME: dict[str, Any] = {"concurrency_limit": 2}
ACTIONS: dict[type[Action], dict[str, Any]] = {
    **dict.fromkeys((Create, Edit, Travel, Animate), DRAWING),
    Live: {"queue": False},  # a few requests a second: the engine alone puts them in turn
    **dict.fromkeys((Read, Restore, Place), SOME),
}


def uploaded(component: Any, payload: Any) -> str | None:
    """The path inside a component's payload, if it lies where uploads lie; nothing is opened."""
    path = getattr(payload, "path", None)
    if not path:
        return None
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("a file must be uploaded first", print_exception=False)
    return str(path)


# Gradio's file component without its decoder. Its metaclass would write a stub file beside this one for a subclass: its
# parent makes the class instead.
UploadFile: Any = ABCMeta.__new__(
    type(gr.File), "File", (gr.File,), {"__module__": __name__, "is_template": True, "preprocess": uploaded}
)
COMPONENTS = {Upload: UploadFile, bool: gr.Checkbox, int: gr.Number, float: gr.Number, str: gr.Textbox}


def endpoint(context: AppContext, action: type[Action], options: dict[str, Any]) -> None:
    """`/NAME` of an action, inside a page that is being built. What goes wrong is one line."""
    hints, outputs = get_type_hints(action), {name: make() for name, make in action.outputs.items()}
    inputs = []
    for field in sorted(fields(action), key=lambda f: f.name not in action.__annotations__):  # its own first
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        make: Any = next((COMPONENTS[k] for k in kinds if k in COMPONENTS), gr.JSON)
        inputs.append(make(value=field.default, label=field.name))

    def answer(request: gr.Request, *given: Any) -> Iterator[Any]:
        try:
            asked = action(**dict(zip((i.label for i in inputs), given, strict=True)))
            for found in asked.answers(context, session_of(request)):
                yield {outputs[name]: value for name, value in found.items()}
        except Exception as error:
            raise said(error) from None

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(i.label, kind, default=i.value) for i in inputs]
    answer.__signature__ = inspect.Signature([inspect.Parameter("request", kind), *parameters])  # type: ignore[attr-defined]
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
