"""What a command prints: results, notes, and one line for what a user got wrong."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import typer

from .deprecated import RenamedWarning
from .errors import InputError
from .notes import Note


def show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if category is UserWarning or category is RenamedWarning:
        sys.stderr.write(f"warning: {message}\n")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """What the user got wrong is one line on stderr and exit code 2; a warning is one line too."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        warnings.showwarning = show_warning  # type: ignore[assignment]
        try:
            command(*args, **kwargs)
        except InputError as error:
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            raise typer.Exit(2) from error
        except Exception as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's; not imported here
                raise
            sys.stderr.write("error: the device's memory is full: use --dtype float16, fewer pictures or another --device\n")
            raise typer.Exit(2) from error

    return run


def report(result: dict[str, Any], as_json: bool, line: str, notes: Sequence[Note] = ()) -> None:
    """Prints a command's result, its notes on stderr; of several processes that share one command the first alone."""
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        typer.echo(json.dumps({**result, "notes": [n.as_dict() for n in notes]}))
        return
    for found in notes:
        sys.stderr.write(f"note: {found}\n")
    typer.echo(line)
