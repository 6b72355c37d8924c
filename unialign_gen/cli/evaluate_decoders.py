"""What survives of a point through every decoder: `eval decoders`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import report, stage
from ..errors import InputError
from .app import evaluate
from .loading import load
from .options import AcceptLicense, AsJson, Device, Dtype, Model, Source, Steps


@evaluate.command()
def decoders(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help="NAME or NAME/DECODER, repeated; every decoder of pictures that is on this disk by default."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of real pictures; the 64 photographs of the package by default.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many of them.")] = 64,
    seeds: Annotated[int, typer.Option(min=2, help="Drawings of each.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at a time.")] = 8,
    steps: Steps = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """What survives of a point, decoder by decoder.

    Read-back, distance to real pictures, variety over seeds, speed and memory.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    stage("looking at what is on this disk")
    from ..loading import DECODERS, describe
    from ..loading.scale import pictures_in, shipped_pictures

    names = checkpoint or [
        f"{row['name']}/{decoder}" if decoder else row["name"]
        for row in describe()
        if row["on_disk"] and not row.get("moving")
        for decoder in row.get("decoders", [None])
    ]
    if source and len(names) != 1:
        raise InputError(f"--source is for one decoder, here are {len(names)}: name it with --checkpoint")
    files = (list(shipped_pictures()) if images is None else pictures_in(images))[:limit]
    from ..checkpoints.decoders import evaluate as run
    from ..checkpoints.decoders import table
    from ..eval.judge import Judge
    from ..media import load_image

    pictures, judge = [load_image(file) for file in files], Judge.from_folder()
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        place, _, last = name.rpartition("/")
        place, decoder = (place, last) if last in DECODERS and place else (name, None)
        pipeline = load(Model(place, source, accept_license, device, dtype, decoder))
        found[name] = run(pipeline, pictures, judge, seeds, batch, num_inference_steps=steps)
    report({"decoders": found}, as_json, table(found))
