"""The command line. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

from importlib import import_module

from .app import app

__all__ = ["app", "main"]

for module in ("draw", "animate", "demo", "checkpoints", "evaluate"):  # `--help` lists commands in this order
    import_module(f".{module}", __package__)


def main() -> None:
    app()
