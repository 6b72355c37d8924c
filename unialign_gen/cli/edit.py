"""A picture changed by a prompt: `edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import report, stage
from ..notes import collected
from . import options as o
from .app import app, picture_files, save_pictures
from .loading import load


@app.command()
def edit(
    picture: Annotated[Path | None, typer.Argument(help="The picture; it may be left out where --control is given.")] = None,
    *,
    mask: Annotated[Path | None, typer.Option(help="A picture: white is redrawn, black stays pixel for pixel.")] = None,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="How much is redrawn; 0.7 by default, with a mask all of it.")
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="A control map, depth or edges, for a decoder with a ControlNet: kandinsky, sdxl ...")
    ] = None,
    prompts: o.Prompts,
    part: o.Part,
    out: Annotated[Path, typer.Option(help="A PNG, JPEG or WebP file; several pictures get -1, -2 ...")] = Path("edited.png"),
    mix: o.MixOption = "lerp",
    model: o.Model,
    sampling: o.Sampling,
    num_images: Annotated[int, typer.Option(min=1, max=64, help="How many pictures.")] = 1,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Change a picture by a prompt, which may mix several inputs.

    All of it, or what a mask marks; or draw along a control map.
    """
    from ..media import check_file
    from .prompts import files_of, request_of

    asked = request_of(
        *(prompts, part),
        mix=mix,
        num_images_per_prompt=num_images,
        **sampling.arguments,
    )
    given = [path for path in (picture, mask, control) if path is not None]
    for path in given:
        check_file(path)
    names = picture_files(out, num_images, [*files_of(asked), *given], not no_overwrite)
    stage("opening the picture")
    from ..pipelines import Edit

    wanted = Edit(picture, mask, strength, control)
    pipeline = load(model)
    with collected() as notes:
        stage("drawing")
        result = pipeline.draw_edit(wanted, asked)
        save_pictures(names, [result], model, wanted.described)
    files = [str(n) for n in names]
    report({"files": files, "seed": sampling.seed, "mode": wanted.mode}, as_json, "\n".join(files), notes)
