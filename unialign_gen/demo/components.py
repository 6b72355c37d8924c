"""Gradio's file components, without its decoders: what a request gives is the path of an upload, and nothing is opened."""

from __future__ import annotations

from abc import ABCMeta
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder


def uploaded(component: Any, payload: Any) -> str | None:
    """The path inside a component's payload, if it lies where uploads lie."""
    path = getattr(payload, "path", None)
    if not path:
        return None
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("a file must be uploaded first", print_exception=False)
    return str(path)


def only_uploads(kind: type) -> Any:
    """A subclass of a component with `uploaded` in place of its own decoding.

    Gradio's metaclass would write a stub file beside this one for each subclass: its parent makes the class instead.
    """
    return ABCMeta.__new__(
        type(kind), kind.__name__, (kind,), {"__module__": __name__, "is_template": True, "preprocess": uploaded}
    )


SoundTile = only_uploads(gr.Audio)
VideoTile = only_uploads(gr.Video)
PictureTile = only_uploads(gr.Image)
FileTile = only_uploads(gr.File)
