"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

from unialign_gen.console import Commands

from . import stages

app = Commands(
    help="Rebuilds the starter checkpoint, in the order listed; `all` is data, encode, space and heads. Every step goes on "
    "where it was killed and says how long it will take. $UNIALIGN_RECIPE_TABLES names other tables than the recipe's own.",
    add_completion=False,
)
for name, stage in stages.STAGES.items():
    app.command(name, help=f"{stage.__doc__} {stages.DURATIONS.get(name, '')}".strip())(stage)


if __name__ == "__main__":
    app()
