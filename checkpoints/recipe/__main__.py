"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

import typer

from unialign_gen.console import guarded

from . import stages

app = typer.Typer(
    help="Rebuilds the starter checkpoint, in the order listed; `all` is data, encode, space and heads. Every step goes on "
    "where it was killed and says how long it will take.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for stage in (stages.data, stages.encode, stages.space, stages.autoencoder, stages.pack, stages.train_decoders):
    app.command()(guarded(stage))
for stage in (stages.upscaler, stages.heads, stages.recall, stages.judge, stages.assemble):
    app.command()(guarded(stage))
app.command("all")(guarded(stages.everything))


if __name__ == "__main__":
    app()
