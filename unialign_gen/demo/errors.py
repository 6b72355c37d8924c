"""What goes wrong in a request becomes one line in the page; the rest stays in the server's log."""

from __future__ import annotations

import logging
import re
from html import escape
from pathlib import Path

import gradio as gr

from ..errors import InputError
from .engine import CancelledError

PLACE = re.compile(r"(?<![\w.])/(?:[^\s/:,;'\"]+/)+[^\s/:,;'\"]*")  # an absolute path: the page shows its last part
log = logging.getLogger("unialign_gen.demo")


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
