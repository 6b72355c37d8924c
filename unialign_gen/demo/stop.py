"""The buttons that stop."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from .html import note


def stopping(button: gr.Button, stage: gr.HTML, events: list[Any]) -> None:
    """A click takes the events out of the queue or ends them: Gradio closes their generators, and a closed one stops its job.

    What is left on the stage of an event that did not finish, stopped or failed, gives way to a note. The browser does that
    once it has let go of the event: until then it would ignore a click that starts another.
    """
    button.click(None, cancels=events, queue=False, api_visibility="private")
    tidy = f"(shown) => String(shown).includes('ua-stage') ? {json.dumps(note('Stopped.'))} : shown"
    for event in events:
        event.then(None, stage, stage, js=tidy, api_visibility="private")
        event.failure(None, stage, stage, js=tidy, api_visibility="private")
