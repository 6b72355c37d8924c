"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from unialign_gen.console import guarded

from . import stages
from .stages import ROOT, Root

app = typer.Typer(
    help="Rebuilds the starter checkpoint, in the order listed; `all` is data, encode, space and heads. Every step goes on "
    "where it was killed and says how long it will take.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Minutes = Annotated[float, typer.Option(help="Length of this sitting; the next goes on from where it ended.")]
Cool = Annotated[bool, typer.Option(help="The learning rate falls to zero over this sitting: for the last one.")]
PackFile = Annotated[Path, typer.Option(help="The pack.")]
Threads = Annotated[int, typer.Option(help="Processor threads; 0 leaves PyTorch's choice.")]


def use(threads: int) -> None:
    import torch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if threads:
        torch.set_num_threads(threads)


def autoencoder(root: Root = ROOT, minutes: Minutes = 60, cool: Cool = False, threads: Threads = 0) -> None:
    """Train movq, whose latents the decoders draw. 60 minutes on one core."""
    from . import autoencoder as run

    use(threads)
    run.train_stage(root, minutes, cool)


def pack(root: Root = ROOT, out: PackFile = ROOT / "pack.safetensors", quality: int = 70) -> None:
    """Write all that `train-decoders` needs into one file of at most 55 MB. 3 minutes."""
    from . import pack as run

    typer.echo(f"{run.write(root, out, quality) / 1e6:.1f} MB in {out}")


def train_decoders(
    pack: PackFile = ROOT / "pack.safetensors",
    out: Annotated[Path, typer.Option(help="Where training goes on from and what it writes.")] = ROOT / "decoders",
    decoder: Annotated[
        Literal["kandinsky", "stable-unclip"], typer.Option(help="Stable-unclip starts from the other's blocks.")
    ] = "kandinsky",
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


def upscaler(root: Root = ROOT, minutes: Minutes = 30, cool: Cool = False, threads: Threads = 0) -> None:
    """Fine-tune the upscaler on pairs of our own. 30 minutes on one core."""
    from . import upscaler as run

    use(threads)
    run.train_stage(root, minutes, cool=cool)


for stage in (stages.data, stages.encode, stages.space, autoencoder, pack, train_decoders, upscaler):
    app.command()(guarded(stage))
for stage in (stages.heads, stages.recall, stages.judge, stages.assemble):
    app.command()(guarded(stage))
app.command("all")(guarded(stages.everything))


if __name__ == "__main__":
    app()
