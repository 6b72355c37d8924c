"""Endpoints out of typed functions: each parameter becomes the Gradio component of its type, each answer a named output."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, NewType, get_args, get_type_hints

import gradio as gr
from gradio.utils import get_upload_folder

from .errors import said

Upload = NewType("Upload", str)  # the path of a file that was uploaded


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
COMPONENTS: dict[Any, Callable[..., Any]] = {Upload: UploadFile, bool: gr.Checkbox, int: gr.Number, float: gr.Number, str: gr.Textbox}


def component(parameter: inspect.Parameter, hint: Any) -> Any:
    """The component of a parameter: of the first of its types that has one, JSON for anything."""
    kinds = get_args(hint) or (hint,)
    make = next((COMPONENTS[k] for k in kinds if k in COMPONENTS), gr.JSON)
    return make(value=parameter.default, label=parameter.name)


def endpoint(handler: Callable[..., Iterator[dict[str, Any]]], outputs: dict[str, Any], **options: Any) -> None:
    """Makes `/NAME` of a generator of that name, inside a page that is being built.

    It yields values by the names of `outputs`; what it does not name stays as it was. What goes wrong is one line.
    """
    hints = get_type_hints(handler)
    parameters = [p for p in inspect.signature(handler).parameters.values() if p.name != "request"]
    inputs = [component(p, hints[p.name]) for p in parameters]

    @wraps(handler)
    def answer(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            for found in handler(*args, **kwargs):
                yield {outputs[name]: value for name, value in found.items()}
        except Exception as error:
            raise said(error) from None

    gr.Button().click(answer, inputs, list(outputs.values()), api_name=handler.__name__, **options)
