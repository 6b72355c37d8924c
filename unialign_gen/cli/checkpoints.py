"""What checkpoints there are and what they need: `models`, `calibrate`, `split`, `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import report, stage
from ..errors import InputError, as_input_error
from ..output import check_folder, check_new_folder, make_folder
from .app import app
from .loading import parse_sources
from .options import AsJson, NoOverwrite, Space

MEASURED = Space("stable-unclip")
# one of them says that a folder is a model or a run, no folder around many: all that is in it is uploaded
MODEL_FILES = ("model_index.json", "config.json", "head.json", "*/head.json", "*/*/head.json")


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the checkpoints, what each needs and what is here."""
    stage("looking at what is on this disk")
    from ..loading import describe

    rows = describe()
    lines = []
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB" if "bytes" in row else ""
        lines.append(f"{row['name']:<14} {'on this disk' if row['on_disk'] else 'not complete':<13} {size}".rstrip())
        for part, need in row.get("needs", {}).items():
            source = need["source"] or "no public source, give --source"
            lines.append(f"  {part:<12} {'here' if need['on_disk'] else 'missing':<8} {source}, {need['licence']}")
        if row.get("fetch", {}).get("sources"):
            fetch = row["fetch"]
            much = f"{fetch['bytes'] / 1e9:.1f} GB" if fetch["bytes"] else "an unknown number of bytes"
            lines.append(f"  fetched by   {fetch['command']}\n               {much}: {', '.join(fetch['sources'])}")
    report({"models": rows}, as_json, "\n".join(lines))


@app.command()
def calibrate(
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures like those you will make; the 64 of the package by default.")
    ] = None,
    space: Space = MEASURED,
    out: Annotated[Path | None, typer.Option(help="A folder; by default where the checkpoint looks for it.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many pictures.")] = 1000,
    no_overwrite: NoOverwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure the norm that a published decoder expects.

    That of raw image embeddings; it is written as the decoder's embed_scale.
    """
    from .. import loading

    checkpoint = space.checkpoint
    folder = loading.find(checkpoint)
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    place = out or (folder / "embed_scale" if (folder / "aligner").is_dir() else loading.calibration_folder(checkpoint))
    if out is None and checkpoint not in loading.SHIPPED + loading.PUBLISHED and not Path(checkpoint).expanduser().is_dir():
        raise InputError(f"{checkpoint} is not a folder of yours: name one with --out")
    check_folder(place, not no_overwrite)
    loading.check_names(space.device)
    stage("loading the image encoder")
    device = loading.check_device(space.device)
    from ..loading.description import on_disk
    from ..loading.scale import measure, pictures_in, shipped_pictures

    shipped = shipped_pictures()
    files = (list(shipped) if images is None else pictures_in(images))[:limit]
    aligner = loading.open_aligner(checkpoint, parse_sources(space.source), space.accept_license).to(device)
    found = measure(aligner.part("image"), files, zero_unconditional=loading.unconditional_is_zero(folder))
    if on_disk(aligner.configs.get("text", {})):
        known = measure(aligner.part("image"), list(shipped), texts=aligner.part("text"), captions=list(shipped.values()))
        found.shift = known.shift
    found.save(place)
    result = {name: getattr(found, name) for name in ("embed_norm", "embed_norm_std", "count", "skipped")}
    norm = f"embed_norm {found.embed_norm:.4f}, spread {found.embed_norm_std:.4f}"
    report({**result, "folder": str(place)}, as_json, f"{norm}, {found.count} pictures, {len(found.skipped)} skipped\n{place}")


@app.command()
def split(
    released: Annotated[Path, typer.Argument(help="A released checkpoint of VAST, GRAM or PMRL, its model_step .pt file.")],
    out: Annotated[
        Path, typer.Option(help="A new folder: encoders/MODALITY for a configuration's encoders, heads/MODALITY for start.")
    ],
    tokenizer: Annotated[Path, typer.Option(help="BERT base uncased's folder, with a tokenizer.json or a vocab.txt.")],
    dataset: Annotated[
        str, typer.Option(help="Whose way of reading sound, frames and captions: vast, msrvtt, vatex, audiocaps, didemo ...")
    ] = "vast",
    tokens: Annotated[int | None, typer.Option(min=3, help="The most of a caption; the data set's by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Split a released retrieval checkpoint into its parts.

    Its encoders and contrastive heads, as folders.
    """
    if not released.is_file():
        raise InputError(f"no file {released}: give the released .pt file")
    check_new_folder(out)
    stage(f"reading {released.name}")
    from ..encoders.vast import write_split

    written = write_split(released, make_folder(out), tokenizer, dataset, tokens)
    result = {"out": str(out), "encoders": {kind: str(path) for kind, path in written.items()}, "heads": str(out / "heads")}
    report(result, as_json, "\n".join([*(f"{kind}: {path}" for kind, path in written.items()), f"heads: {out / 'heads'}"]))


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="starter, or a folder that save_pretrained, train or bridge wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the model hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a checkpoint or heads to the model hub, with their card.

    `generate --checkpoint OWNER/NAME` then draws with it. Log in before, with `hf auth login`.
    """
    from ..loading import REPOSITORY, SHIPPED, find

    place = find(folder) if folder in SHIPPED else Path(folder).expanduser()
    if not any(found for pattern in MODEL_FILES for found in place.glob(pattern)):
        raise InputError(f"{folder} holds no model: give a folder that save_pretrained, train or bridge wrote")
    if not REPOSITORY.fullmatch(repository) or "@" in repository:
        raise InputError(f"{repository!r}: name a repository as OWNER/NAME")
    stage(f"uploading {place.name}")
    from huggingface_hub import HfApi, ModelCard

    api = HfApi()
    with as_input_error(f"{repository} cannot be written: {{first}}", Exception):  # the hub's own, HTTP's, the system's
        api.create_repo(repository, exist_ok=True, private=private)
        if not (place / "README.md").is_file():
            ModelCard(CARD.format(name=repository.partition("/")[2], repository=repository)).push_to_hub(repository)
        where = api.upload_folder(folder_path=place, repo_id=repository, ignore_patterns=[".*", "*.part*"])
    report({"repository": repository, "commit": str(where)}, as_json, str(where))


CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
tags: [unialign_gen, audio-to-image, video-to-image, clip]
---

# {name}

A checkpoint of unialign_gen: text, sound, video, pictures and mixes of them to pictures.

    unialign-gen generate --checkpoint {repository} --text "a barking dog"

Licence, training data and limits are not stated yet: say them here before you share it.
"""
