"""The command line. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

import sys
from importlib import import_module

from .. import console
from .app import app

__all__ = ["app", "main"]

# `--help` lists commands in this order
MODULES = (
    "draw",
    "animate",
    "demo",
    "checkpoints",
    "doctor",
    "data",
    "bridge",
    "bench",
    "evaluate_generation",
    "evaluate_spaces",
)
for module in MODULES:
    import_module(f".{module}", __package__)


def main() -> None:
    """Runs the command line; `--quiet` may stand anywhere."""
    words = sys.argv[1:]
    options = words[: words.index("--")] if "--" in words else words
    if "--quiet" in options:
        console.be_quiet()
        words.remove("--quiet")
    with console.guarded():
        app(words)
