"""Sound to film: `animate`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import report, stage
from ..errors import InputError
from ..notes import collected
from ..output import check_output
from . import options as o
from .app import app
from .loading import load


@app.command()
def animate(
    sound: Annotated[Path, typer.Argument(help="A sound file, or a video's sound track.")],
    out: Annotated[Path, typer.Option(help="An MP4 file.")] = Path("film.mp4"),
    text: Annotated[str | None, typer.Option(help="Words that stay in the mix throughout.")] = None,
    text_weight: Annotated[float, typer.Option(min=0, max=1, help="Their weight; the sound has the rest.")] = 0.3,
    pictures: Annotated[
        float | None,
        typer.Option(help="Pictures drawn for each second, between which the film fades; 6 by default, 8 by AnimateDiff."),
    ] = None,
    fps: Annotated[int, typer.Option(min=1, max=120, help="Frames a second.")] = 24,
    smooth: Annotated[float, typer.Option(help="Seconds over which the picture follows; larger is calmer.")] = 0.5,
    window: Annotated[float, typer.Option(help="Seconds of sound that are heard for one moment.")] = 2.3,
    start: o.Start = 0.0,
    seconds: Annotated[float | None, typer.Option(help="Only so much of the recording.")] = None,
    track: o.TrackNumber = None,
    side: Annotated[int, typer.Option(min=16, max=2048, help="Width and height in pixels.")] = 512,
    checkpoint: o.Checkpoint = "starter",
    decoder: o.Decoder = None,
    source: o.Source = None,
    accept_license: o.AcceptLicense = False,
    variant: o.Variant = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    prior_strength: o.PriorStrength = None,
    seed: o.Seed = 0,
    device: o.Device = "cpu",
    dtype: o.Dtype = "float32",
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Make a film of a recording, with its sound.

    The picture follows the sound through time.
    """
    from ..film import Plan
    from ..loading import DECODERS, PUBLISHED
    from ..media import Excerpt, check_file

    check_file(sound)
    check_output(out, (".mp4",), [sound], not no_overwrite)
    if text is not None and not text.strip():
        raise InputError("a text prompt is empty")
    plan = Plan(pictures=pictures or 6.0, fps=fps, smooth=smooth, window=window, seconds=seconds, side=side)
    if decoder in PUBLISHED and decoder not in DECODERS and checkpoint == "starter":
        checkpoint, decoder = decoder, None  # a published decoder is a checkpoint of its own
    pipeline = load(checkpoint, device, dtype, decoder, source, accept_license, variant=variant)
    pipeline.set_progress_bar_config(disable=True)
    if pictures is None and pipeline.moving:
        plan = replace(plan, pictures=8.0)
    from tqdm import tqdm

    from ..film import make_film

    stage("listening and drawing")
    with collected() as notes, tqdm(unit="picture", disable=not sys.stderr.isatty(), leave=False) as bar:
        base = pipeline.embed(text=text, prior_strength=prior_strength)[0] if text is not None else None

        def progress(done: int, total: int, _: list[Any]) -> None:
            bar.total = total
            bar.update(done - bar.n)

        told = make_film(
            pipeline,
            Excerpt(sound, start, None, track),
            out,
            plan,
            seed,
            base,
            text_weight,
            progress,
            prior_strength=prior_strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
        )
    report(
        {"file": str(out), **told, "seed": seed}, as_json, f"{out}: {told['seconds']:g} s, {told['pictures']} pictures", notes
    )
