"""What a command prints: results, notes, and one line for what a user got wrong."""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TextIO, get_type_hints

import typer

from .errors import InputError
from .notes import Note


def show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if category in (UserWarning, FutureWarning):
        sys.stderr.write(f"warning: {message}\n")


class Quiet:
    """In the place of stderr: says that no person looks, so that nobody draws a bar, and takes no stages."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        return False


def be_quiet() -> None:
    """No stages and no bars from here on."""
    if not isinstance(sys.stderr, Quiet):
        sys.stderr = Quiet(sys.stderr)  # type: ignore[assignment]


def stage(what: str) -> None:
    """Says on stderr what a command is about to do, so that it is not silent while it loads."""
    if not isinstance(sys.stderr, Quiet) and first_process():
        sys.stderr.write(f"{what} ...\n")
        sys.stderr.flush()


def first_process() -> bool:
    """Of several processes that share one command the first alone speaks."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def guarded() -> Iterator[None]:
    """What the user got wrong is one line on stderr and exit code 2; a warning is one line too."""
    warnings.showwarning = show_warning  # type: ignore[assignment]
    try:
        yield
    except Exception as error:
        line = " ".join(str(error).split()) if isinstance(error, InputError) else known_failure(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        raise SystemExit(2) from error


class Commands(typer.Typer):
    """Commands whose users' mistakes are one line each, see `guarded`."""

    def __init__(self, **options: Any):
        super().__init__(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, **options)

    def command(self, *name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:  # type: ignore[override]
        register = super().command(*name, **options)
        return lambda function: register(guarded()(flat(function)))


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """A command of which a parameter may be a dataclass of options (`options.Model`), with these options in its place.

    The parameter's default, if it has one, gives theirs.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for name, given in inspect.signature(command).parameters.items():
        own = inspect.signature(groups[name]).parameters if name in groups else {name: given}
        types = get_type_hints(groups[name], include_extras=True) if name in groups else hints
        for option, one in own.items():
            instead = name in groups and given.default is not given.empty
            default = getattr(given.default, option) if instead else one.default
            parameters.append(one.replace(kind=one.KEYWORD_ONLY, default=default, annotation=types[option]))

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**given, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def known_failure(error: BaseException) -> str | None:
    """The line for a failure below us that has a remedy, None for any other."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's; not imported here
        return "the device's memory is full: use --dtype float16, fewer pictures or another --device"
    if "torchvision::" in str(error):  # an operator that its compiled part should have brought
        return "the installed torchvision does not fit torch: `unialign-gen doctor` says the line that mends it"
    below = error.__cause__ or error.__context__
    return known_failure(below) if below is not None else None


def report(result: dict[str, Any], as_json: bool, line: str, notes: Sequence[Note] = ()) -> None:
    """Prints a command's result, its notes on stderr; of several processes that share one command the first alone."""
    if not first_process():
        return
    if as_json:
        typer.echo(json.dumps({**result, "notes": [n.as_dict() for n in notes]}))
        return
    for found in notes:
        sys.stderr.write(f"note: {found}\n")
    typer.echo(line)
