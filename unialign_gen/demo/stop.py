"""The buttons that stop."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from .html import note


def stopping(button: gr.Button, stage: gr.HTML, events: list[Any]) -> None:
    """A click takes the events out of the queue or ends them: Gradio closes their generators, and a closed one stops its job.

    The note is written by the browser alone, since a handler here would race with the event that is being ended.
    """
    button.click(None, cancels=events, queue=False, api_visibility="private")
    button.click(None, None, stage, js=f"() => {json.dumps(note('Stopped.'))}", api_visibility="private")
