"""A picture changed by a prompt: `edit`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ..console import guarded, report, stage
from ..notes import collected
from ..output import check_output, written
from ..request.picture_settings import PictureSettings, save_picture
from .app import app
from .loading import load
from .options import (
    AcceptLicense,
    AsJson,
    Audio,
    Checkpoint,
    Decoder,
    Device,
    Dtype,
    Guidance,
    Heads,
    Image,
    Mix,
    MixOption,
    NoOverwrite,
    PriorStrength,
    Seconds,
    Seed,
    Source,
    Start,
    Steps,
    Text,
    TrackNumber,
    Variant,
    Video,
    Weight,
)
from .prompts import files_of, request_of


@app.command()
@guarded
def edit(
    picture: Annotated[Path | None, typer.Argument(help="The picture; it may be left out where --control is given.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A picture: white is redrawn, black stays pixel for pixel.")] = None,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="How much is redrawn; 0.7 by default, with a mask all of it.")
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="A control map, depth or edges, for a decoder with a ControlNet: kandinsky, sdxl ...")
    ] = None,
    text: Text = None,
    audio: Audio = None,
    video: Video = None,
    image: Image = None,
    weight: Weight = None,
    start: Start = 0.0,
    seconds: Seconds = None,
    track: TrackNumber = None,
    out: Annotated[Path, typer.Option(help="A PNG, JPEG or WebP file; several pictures get -1, -2 ...")] = Path("edited.png"),
    mix: MixOption = Mix.lerp,
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    heads: Heads = None,
    variant: Variant = None,
    steps: Steps = None,
    guidance: Guidance = None,
    prior_strength: PriorStrength = None,
    num_images: Annotated[int, typer.Option(min=1, max=64, help="How many pictures.")] = 1,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    no_overwrite: NoOverwrite = False,
    as_json: AsJson = False,
) -> None:
    """Change a picture by a prompt, which may mix several inputs.

    All of it, or what a mask marks; or draw along a control map.
    """
    asked = request_of(
        *(text, audio, video, image, weight, (start, seconds, track)),
        mix=mix.value,
        prior_strength=prior_strength,
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=guidance,
        num_images_per_prompt=num_images,
    )
    from ..media import check_file
    from ..pipelines import Edit

    given = [path for path in (picture, mask, control) if path is not None]
    for path in given:
        check_file(path)
    wanted = Edit(picture, mask, strength, control)
    names = [out] if num_images == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(num_images)]
    for name in names:
        check_output(name, (".png", ".jpg", ".jpeg", ".webp"), [*files_of(asked), *given], not no_overwrite)
    pipeline = load(checkpoint, device, dtype, decoder, source, accept_license, heads, variant)
    with collected() as notes, ExitStack() as files_there:  # all of them or none
        stage("drawing")
        result = pipeline.draw_edit(wanted, asked)
        for i, (name, drawn) in enumerate(zip(names, result.images, strict=True)):
            settings = PictureSettings(result.request.picture(i), checkpoint, decoder or "", edit=wanted.described)
            save_picture(drawn, files_there.enter_context(written(name)), settings)
    files = [str(n) for n in names]
    report({"files": files, "seed": seed, "mode": wanted.mode}, as_json, "\n".join(files), notes)
