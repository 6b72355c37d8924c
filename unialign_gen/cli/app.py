"""The application that commands register with."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, console
from ..console import Commands
from ..errors import InputError
from ..notes import tell
from ..output import check_output, written

if TYPE_CHECKING:
    from ..pipelines.output import PictureOutput
    from .options import Model


USAGE: type[Any] = typer.BadParameter.__mro__[1]  # click's UsageError: newer typers bring their own


class WordsOrCommand(TyperGroup):
    """Commands; anything else is words to draw, unless it looks like a command that was mistyped or is a file."""

    def main(self, *given: Any, **options: Any) -> Any:
        with console.guarded():
            try:
                code = super().main(*given, **options | {"standalone_mode": False})
            except USAGE as error:
                if type(error).__name__ == "NoArgsIsHelpError":
                    error.show()
                    sys.exit(error.exit_code)
                raise InputError(usage_mistake(error)) from error
        sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word not in self.commands and not word.startswith("-"):
            if close := get_close_matches(word, self.commands, 1, 0.75):
                said = f"no command {word!r}, did you mean {close[0]}? To draw it: unialign-gen generate --text {word}"
                raise InputError(said)
            if "." in word and os.path.isfile(word):
                raise InputError(f"{word} is a file: say what it is, unialign-gen generate --audio, --image or --video {word}")
            args = ["generate", "--text", *args]
        return super().resolve_command(ctx, args)


def usage_mistake(error: Any) -> str:
    """What click says of options and arguments that it cannot take, and what to do."""
    said, command = error.format_message().rstrip("."), getattr(error.ctx, "command_path", "unialign-gen")
    if "extra argument" in said:
        said += ": put quotes around words that belong together, and an option before a file"
    elif type(error).__name__ == "NoSuchOption" and error.ctx.parent is None:
        said += ': other options come after the words or the command, unialign-gen "a red car" --seed 3'
    return f"{said}; see {command} --help"


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
    """The names of so many pictures, `out` or with -1, -2 ...; an `InputError` if one is an input or cannot be written."""
    names = numbered(out, count)
    for name in names:
        check_output(name, (".png", ".jpg", ".jpeg", ".webp"), inputs, overwrite)
    return names


def numbered(out: Path, count: int) -> list[Path]:
    """`out`, or of several pictures `out` with -1, -2 ..."""
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(count)]


def save_pictures(names: Sequence[Path], results: Sequence[PictureOutput], model: Model, edit: str = "") -> None:
    """Writes what was drawn, each picture with its settings inside: all of them or none."""
    from ..request.picture_settings import PictureSettings, save_picture

    drawn = [(picture, result.request.picture(i)) for result in results for i, picture in enumerate(result.images)]
    with ExitStack() as there:
        for name, (picture, request) in zip(names, drawn, strict=True):
            made = PictureSettings(request, model.checkpoint, model.decoder or "", edit=edit)
            if model.heads is not None:  # with the checkpoint's own, which the settings mean, it is another picture
                tell("settings not kept", name=name.name, reason="they do not hold --heads")
            save_picture(picture, there.enter_context(written(name)), made if model.heads is None else None, name.name)


def named_after(names: Sequence[str], suffix: str, count: int = 1) -> Path:
    """A file in this folder named after prompts, such as `a-red-car.png`; a number follows where one of `count` is there."""
    words = [w for name in names for w in re.findall(r"\w+", Path(name).stem.lower() if "." in name else name.lower())]
    stem = "-".join(words)[:60].strip("-") or "picture"
    path, number = Path(stem + suffix), 2
    while any(picture.exists() for picture in numbered(path, count)):
        path, number = Path(f"{stem}-{number}{suffix}"), number + 1
    return path
