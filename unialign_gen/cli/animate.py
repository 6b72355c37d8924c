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
from .app import app, named_after
from .loading import load


@app.command()
def animate(
    sound: Annotated[Path, typer.Argument(help="A sound file, or a video's sound track.")],
    *,
    out: Annotated[Path | None, typer.Option(help="An MP4 file. By default film.mp4, film-2.mp4 ...")] = None,
    text: Annotated[str | None, typer.Option(help="Words that stay in the mix throughout.")] = None,
    text_weight: Annotated[float, typer.Option(min=0, max=1, help="Their weight; the sound has the rest.")] = 0.3,
    pictures: Annotated[
        float | None,
        typer.Option(help="Pictures drawn for each second, between which the film fades; 6 by default, 8 by AnimateDiff."),
    ] = None,
    fps: Annotated[int, typer.Option(min=1, max=120, help="Frames a second.")] = 24,
    smooth: Annotated[float, typer.Option(help="Seconds over which the picture follows; larger is calmer.")] = 0.5,
    window: Annotated[float, typer.Option(help="Seconds of sound that are heard for one moment.")] = 2.3,
    part: o.Part,
    side: Annotated[int, typer.Option(min=16, max=2048, help="Width and height in pixels.")] = 512,
    model: o.Model,
    sampling: o.Sampling,
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
    out = named_after(["film"], ".mp4") if out is None else out
    check_output(out, (".mp4",), [sound], not no_overwrite)
    if text is not None and not text.strip():
        raise InputError("a text prompt is empty")
    plan = Plan(
        pictures=6.0 if pictures is None else pictures, fps=fps, smooth=smooth, window=window, seconds=part.seconds, side=side
    )
    if model.decoder in PUBLISHED and model.decoder not in DECODERS and model.checkpoint == "starter":
        model = replace(model, checkpoint=model.decoder, decoder=None)  # a published decoder is a checkpoint of its own
    pipeline = load(model)
    pipeline.set_progress_bar_config(disable=True)
    if pictures is None and pipeline.moving:
        plan = replace(plan, pictures=8.0)
    from tqdm import tqdm

    from ..film import make_film

    stage("listening and drawing")
    with collected() as notes, tqdm(unit="picture", disable=not sys.stderr.isatty(), leave=False) as bar:
        base = pipeline.embed(text=text, prior_strength=sampling.prior_strength)[0] if text is not None else None

        def progress(done: int, total: int, _: list[Any]) -> None:
            bar.total = total
            bar.update(done - bar.n)

        told = make_film(
            pipeline,
            Excerpt(sound, part.start, None, part.track),
            out,
            plan,
            base=base,
            share=text_weight,
            progress=progress,
            **sampling.arguments,
        )
    line = f"{out}: {told['seconds']:g} s, {told['pictures']} pictures"
    report({"file": str(out), **told, "seed": sampling.seed}, as_json, line, notes)
