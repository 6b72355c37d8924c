"""The application that commands register with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from .. import __version__, console
from ..errors import InputError
from ..output import check_output, written

if TYPE_CHECKING:
    from ..request.picture_settings import PictureSettings


class WordsOrCommand(TyperGroup):
    """Commands; anything else is words to draw, unless it looks like a command that was mistyped."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word not in self.commands and not word.startswith("-"):
            close = get_close_matches(word, self.commands, 1, 0.75)
            if close:
                raise InputError(
                    f"no command {word!r}, did you mean {close[0]}? To draw it: unialign-gen generate --text {word}"
                )
            args = ["generate", "--text", *args]
        return super().resolve_command(ctx, args)


class Commands(typer.Typer):
    """Commands whose users' mistakes are one line each, see `console.guarded`."""

    def __init__(self, **options: Any):
        super().__init__(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, **options)

    def command(self, *name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:  # type: ignore[override]
        register = super().command(*name, **options)
        return lambda function: register(console.guarded(flat(function)))


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


app = Commands(
    cls=WordsOrCommand,
    help='Text, sound, video, pictures and mixes of them, to pictures: unialign-gen "a barking dog" draws one.',
)
evaluate = Commands(help="Measure a checkpoint.")
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
    quiet: Annotated[bool, typer.Option("--quiet", help="No stages and no progress on stderr; also after a command.")] = False,
) -> None:
    if quiet:
        console.be_quiet()


def picture_files(out: Path, count: int, inputs: Sequence[str | Path], overwrite: bool) -> list[Path]:
    """The names of so many pictures, `out` or with -1, -2 ..., none of which is an input.

    Raises:
        InputError: a name that cannot be written.
    """
    names = [out] if count == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(count)]
    for name in names:
        check_output(name, (".png", ".jpg", ".jpeg", ".webp"), inputs, overwrite)
    return names


def save_pictures(names: Sequence[Path], pictures: Sequence[Any], settings: Sequence[PictureSettings]) -> None:
    """Writes pictures with their settings inside: all of them or none."""
    from ..request.picture_settings import save_picture

    with ExitStack() as there:
        for name, picture, made in zip(names, pictures, settings, strict=True):
            save_picture(picture, there.enter_context(written(name)), made)


def named_after(names: Sequence[str], suffix: str) -> Path:
    """A file in this folder named after prompts, such as `a-red-car.png`; a number follows where there is one already."""
    words = [w for name in names for w in re.findall(r"\w+", Path(name).stem.lower() if "." in name else name.lower())]
    stem = "-".join(words)[:60].strip("-") or "picture"
    path, number = Path(stem + suffix), 2
    while path.exists():
        path, number = Path(f"{stem}-{number}{suffix}"), number + 1
    return path
