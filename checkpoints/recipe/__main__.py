"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import typer

from unialign_gen.errors import InputError

from . import stages

app = typer.Typer(
    help="Rebuilds the starter checkpoint, in the order listed; `all` is data, encode, space and heads. Every step goes on "
    "where it was killed and says how long it will take.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with one line instead of a traceback for what the user got wrong."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except InputError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from error

    return run


for stage in (stages.data, stages.encode, stages.space, stages.heads, stages.recall, stages.judge, stages.assemble):
    app.command()(guarded(stage))
app.command("all")(guarded(stages.everything))

if __name__ == "__main__":
    app()
