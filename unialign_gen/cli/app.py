"""The application that commands register with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
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
