"""The command line. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

from importlib import import_module

from .app import app

__all__ = ["app", "main"]

# `--help` lists commands in this order
MODULES = (
    "draw",
    "animate",
    "demo",
    "checkpoints",
    "data",
    "train",
    "evaluate",
    "evaluate_generation",
    "evaluate_spaces",
)
for module in MODULES:
    import_module(f".{module}", __package__)


def main() -> None:
    app()
