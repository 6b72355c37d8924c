"""Features and what is trained on them: `extract`, `caption`, `train`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..console import report, stage
from ..errors import InputError
from ..notes import Note, collected
from ..output import check_folder
from .app import app
from .options import AcceptLicense, AsJson, Config, Device, Dtype, Overrides, Source


@app.command()
def extract(
    config: Config,
    overrides: Overrides = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    as_json: AsJson = False,
) -> None:
    """Run frozen encoders over a corpus, keep their features.

    Each file is decoded once; the same command goes on where it was.
    """
    from ..config import load
    from ..configs import find_config
    from ..data.extract_config import ExtractConfig
    from .loading import parse_sources

    extract_config = load(ExtractConfig, find_config(config, "extract"), overrides or ())
    sources = extract_config.sources | parse_sources(source)
    accept_license = accept_license or extract_config.accept_license
    extract_config = replace(extract_config, sources=sources, accept_license=accept_license)
    stage("loading the encoders")
    from ..data.extract import run
    from ..loading import check_device

    extract_config = replace(extract_config, device=check_device(extract_config.device))
    with collected() as notes:
        found = run(extract_config)
    lines = [f"{found['corpus']}: {found['samples']} samples, digest {found['digest'][:16]}, {found['missing']} missing"]
    if found["texts"]:
        lines.append(f"{found['texts']} texts, {found['label_sentences']} of them are labels as sentences")
    lines.append(f"{found['shards']} of {found['of_shards']} shards in {found['out']}")
    if found["complete"]:
        counts = ", ".join(f"{n} {kind}" for kind, n in found["problems"].items())
        lines.append(f"report.jsonl: {counts}")
    report(found, as_json, "\n".join(lines), notes)


@app.command()
def caption(
    config: Config,
    model: Annotated[str, typer.Option(help="An image-text model of transformers: a folder, or a repository[@REVISION].")],
    out: Annotated[Path, typer.Option(help="A .jsonl file; the corpus takes it as captions.")],
    prompt: Annotated[str | None, typer.Option(help="What a chat model is asked, or a caption begins with.")] = None,
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames of each video.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 8,
    tokens: Annotated[int, typer.Option(min=1, help="Length of a caption, at most.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 2,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Caption a corpus with a model over its videos' frames.

    The same command goes on where it was.
    """
    from ..config import load
    from ..configs import find_config
    from ..data.sources import CorpusConfig, read_corpus
    from ..loading import check_device, check_names, dtype_of, quiet

    if out.suffix != ".jsonl":
        raise InputError(f"--out {out}: the name must end in .jsonl")
    check_folder(out.parent)
    check_names(device, dtype)
    corpus_config = load(CorpusConfig, find_config(config, "extract"), overrides or (), section="corpus")
    corpus = read_corpus(replace(corpus_config, captions=None))  # the file to be written may be named there already
    stage("loading the captioner")
    from ..data.caption import run
    from ..data.captioner import Captioner

    quiet()
    device = check_device(device)
    dtype = str(dtype_of(dtype, device)).removeprefix("torch.")
    captioner = Captioner(model, prompt, tokens, device, dtype)
    settings = {"model": model, "prompt": captioner.prompt, "frames": frames, "tokens": tokens, "dtype": dtype}
    found = run(corpus, captioner, out, settings, frames, batch_size, workers)
    counts = ", ".join(f"{found[name]} {name}" for name in ("captioned", "before", "broken", "without"))
    report(found, as_json, f"{counts}\n{out}")


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train heads from cached features; run again to go on.

    `accelerate launch -m unialign_gen train CONFIG` for several processes.
    """
    from ..config import load
    from ..configs import find_config
    from ..training.config import TrainConfig

    train_config = load(TrainConfig, find_config(config, "train"), overrides or ())
    stage("loading the features")
    from ..training.train import train as run

    # a person is told at once, not after the last step
    telling: AbstractContextManager[list[Note]] = collected() if as_json else nullcontext([])
    with telling as notes:
        done = run(train_config)
    numbers = ", ".join(f"{k} {v}" if isinstance(v, int) else f"{k} {v:.3f}" for k, v in done.metrics.items())
    state = f"{done.step} steps, heads in {done.heads}" if done.finished else f"stopped at step {done.step} of {done.steps}"
    result = {"step": done.step, "steps": done.steps, "metrics": done.metrics, "heads": str(done.heads) if done.heads else None}
    report(result, as_json, f"{state}\n{numbers}".rstrip(), notes)
    if not done.finished:
        raise typer.Exit(130)  # as after Ctrl-C elsewhere: what comes next in a script would find no heads
