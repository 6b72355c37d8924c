"""The application that commands register with, and how what a user got wrong is said."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..deprecated import RenamedWarning
from ..errors import InputError
from ..output import check_folder

app = typer.Typer(
    help="Text, sound, video, pictures and mixes of them, to pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate = typer.Typer(help="Measure a checkpoint.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate, name="eval")


def say_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=say_version, is_eager=True)
    ] = False,
) -> None: ...


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


def check_output(path: Path, suffixes: tuple[str, ...]) -> Path:
    if path.suffix.lower() not in suffixes:
        raise InputError(f"--out {path}: the name must end in {', '.join(suffixes)}")
    check_folder(path.parent)
    if not path.resolve().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"--out {path} may not be overwritten: name another file")
    return path


def report(result: dict[str, Any], as_json: bool, line: str) -> None:
    """Prints a command's result; of several processes that share one command the first alone."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(json.dumps(result) if as_json else line)
