"""Pictures and embeddings of prompts: `generate`, `interpolate`, `embed`, `showcase`, `edit`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..console import report, stage
from ..notes import collected
from ..output import check_output, write_tensors, written
from ..request.request import SEEDS
from . import options as o
from .app import app, named_after, numbered, picture_files, save_pictures
from .loading import load

BATCH = 8  # pictures drawn at a time


@app.command()
def generate(
    *,
    prompts: o.Prompts,
    part: o.Part,
    out: Annotated[
        Path | None,
        typer.Option(help="A PNG, JPEG or WebP file; several pictures get -1, -2 ... By default named after the prompt."),
    ] = None,
    mix: o.MixOption = "lerp",
    model: o.Model,
    sampling: o.Sampling,
    prior_temperature: o.PriorTemperature = None,
    upscale: o.Upscale = None,
    num_images: Annotated[int, typer.Option(min=1, max=1000, help="How many pictures.")] = 1,
    best_of: o.BestOf = None,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Draw one prompt, which may mix several inputs."""
    from .prompts import files_of, request_of

    asked = request_of(
        prompts, part, mix=mix, prior_temperature=prior_temperature, upscale=upscale, best_of=best_of, **sampling.arguments
    )
    free = partial(named_after, [p.name for p in asked.prompts[0]], ".png", num_images)
    names = picture_files(free() if out is None else out, num_images, files_of(asked), not no_overwrite)
    pipeline = load(model, clips=False)
    from tqdm import tqdm

    with collected() as notes:
        stage("encoding the prompt")
        ready = pipeline.encoded(asked)
        stage("drawing")
        starts = range(0, num_images, BATCH)
        results = []
        for at in tqdm(starts, unit="batch", disable=None if len(starts) > 1 else True, leave=False):
            first, count = (sampling.seed + at) % SEEDS, min(BATCH, num_images - at)
            results.append(pipeline.draw(replace(ready, prompts=ready.prompts * count, seed=first)))
    if out is None:  # another drawing may have taken the name since
        names = numbered(free(), num_images)
    with collected() as more:
        save_pictures(names, results, model)
    files = [str(n) for n in names]
    result = {"files": files, "seed": sampling.seed, "checkpoint": model.checkpoint}
    report(result, as_json, "\n".join(files), [*notes, *more])


@app.command()
def interpolate(
    first: Annotated[str, typer.Option("--from", help="KIND:VALUE, such as text:'a cat' or audio:thunder.wav.")],
    last: Annotated[str, typer.Option("--to", help="KIND:VALUE.")],
    *,
    part: o.Part,
    frames: Annotated[int, typer.Option(min=2, max=1000, help="Pictures, both ends included.")] = 16,
    out: Annotated[
        Path | None,
        typer.Option(help=".gif, .webp, .mp4, or .png for a grid. By default morph.gif, morph-2.gif ..."),
    ] = None,
    mix: o.Way = "slerp",
    model: o.Model,
    sampling: o.Sampling,
    upscale: o.Upscale = None,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Draw the way between two prompts, all from one noise."""
    from .prompts import files_of, request_of_one

    out = named_after(["morph"], ".gif") if out is None else out
    given = (("--from", first), ("--to", last))
    ends = [request_of_one(option, entry, part, prior_strength=sampling.prior_strength) for option, entry in given]
    check_output(out, (".png", ".gif", ".webp", ".mp4"), [f for e in ends for f in files_of(e)], not no_overwrite)
    pipeline = load(model, clips=False)
    options = replace(sampling, prior_strength=None).arguments  # embeddings are drawn where they are
    with collected() as notes:
        stage("encoding the prompts")
        a, b = (pipeline.mixed(pipeline.sampled(replace(end, seed=sampling.seed)))[0][0] for end in ends)
        stage("drawing")
        pictures = pipeline.interpolate(a, b, frames, mix=mix, upscale=upscale, **options).images
    from ..film.sheets import save_sequence

    save_sequence(pictures, out)
    report({"files": [str(out)], "frames": frames, "seed": sampling.seed}, as_json, str(out), notes)


@app.command()
def embed(
    *,
    prompts: o.Prompts,
    part: o.Part,
    out: Annotated[
        Path | None, typer.Option(help="A safetensors file. By default embedding.safetensors, embedding-2.safetensors ...")
    ] = None,
    mix: o.MixOption = "lerp",
    model: o.Model,
    prior_strength: o.PriorStrength = None,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Write the unit embeddings of prompts and of their mix.

    As they are drawn; with --prior-strength 0 as they were encoded.
    """
    from .prompts import files_of, request_of

    asked = request_of(prompts, part, mix=mix, prior_strength=prior_strength)
    out = named_after(["embedding"], ".safetensors") if out is None else out
    check_output(out, (".safetensors",), files_of(asked), not no_overwrite)
    pipeline = load(model)
    import torch

    from ..pipelines.prior import strength_of

    with collected() as notes:
        stage("encoding the prompts")
        ready = pipeline.encoded(asked)
        each = pipeline.alone(ready)
        tensors = {"mix": pipeline.mixed(ready)[0]}
    for prompt, vector in zip(ready.prompts[0], each, strict=True):
        tensors[prompt.kind] = torch.cat([*([tensors[prompt.kind]] if prompt.kind in tensors else []), vector[None]])
    used = str(strength_of(pipeline.prior, prior_strength))
    with written(out) as file:
        write_tensors(file, tensors, {"normalised": "true", "checkpoint": model.checkpoint, "prior_strength": used})
    shapes = {k: list(v.shape) for k, v in tensors.items()}
    report({"file": str(out), "shapes": shapes}, as_json, f"{out}: {', '.join(f'{k} {v}' for k, v in shapes.items())}", notes)


@app.command()
def showcase(
    out: Annotated[Path | None, typer.Option(help="A PNG file. By default showcase.png, showcase-2.png ...")] = None,
    checkpoint: o.Checkpoint = "starter",
    decoder: o.Decoder = None,
    best_of: o.BestOf = None,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Draw a labelled sheet of examples.

    Words, sounds, mixes, a video, a way between two prompts.
    """
    out = named_after(["showcase"], ".png") if out is None else out
    check_output(out, (".png",), overwrite=not no_overwrite)
    pipeline = load(o.Model(checkpoint, decoder=decoder), clips=False)
    from ..film.showcase import draw_sheet

    pipeline.set_progress_bar_config(disable=True)
    stage("drawing")
    with written(out) as file:
        draw_sheet(pipeline, best_of=best_of).save(file)
    report({"files": [str(out)]}, as_json, str(out))


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
    out: Annotated[
        Path | None,
        typer.Option(help="A PNG, JPEG or WebP file; several get -1, -2 ... By default edited.png, edited-2.png ..."),
    ] = None,
    mix: o.MixOption = "lerp",
    model: o.Model,
    sampling: o.Sampling,
    prior_temperature: o.PriorTemperature = None,
    num_images: Annotated[int, typer.Option(min=1, max=64, help="How many pictures.")] = 1,
    no_overwrite: o.NoOverwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Change a picture by a prompt, which may mix several inputs.

    All of it, or what a mask marks; or draw along a control map.
    """
    from ..media import check_file
    from .prompts import files_of, request_of

    own = {"prior_temperature": prior_temperature, "num_images_per_prompt": num_images}
    asked = request_of(prompts, part, mix=mix, **own, **sampling.arguments)
    given = [path for path in (picture, mask, control) if path is not None]
    for path in given:
        check_file(path)
    out = named_after(["edited"], ".png", num_images) if out is None else out
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
