"""Sound heads in closed form: `bridge events`, `bridge text`, `bridge pairs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import report, stage
from ..errors import InputError, as_input_error
from ..output import check_new_folder
from .app import Commands, app
from .loading import parse_sources
from .options import AsJson, Checkpoint, Space

if TYPE_CHECKING:
    from torch import Tensor

    from ..aligner import Aligner
    from ..heads import Head
    from ..heads.bridge import Bridge

commands = Commands(help="Make a sound head for a decoder without training one; `generate --heads OUT` draws with it.")
app.add_typer(commands, name="bridge")

Out = Annotated[Path, typer.Option(help="A new folder: a run's, with heads/audio in it.")]
DECODERS = Space("kandinsky")


@commands.command()
def events(
    out: Out,
    space: Space = DECODERS,
    tagger: Annotated[
        str | None, typer.Option(help="A folder or repository of an AST with its classes' names; YAMNet by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """From what a tagger hears, by its classes' names.

    Nothing else is needed. Published decoders do so by themselves.
    """
    begin(out)
    from ..encoders import load_encoder, yamnet
    from ..encoders.registry import NOWHERE
    from ..heads.bridge import events_head

    aligner = opened(space)
    described = {"encoder": "yamnet"} if tagger is None else {"encoder": f"hf:{tagger}", "modality": "audio", "tags": True}
    encoder: Any = load_encoder(NOWHERE, None, described)
    layer, names = yamnet.events() if tagger is None else encoder.tags()
    head, bridge = events_head(
        encoder, layer, names, partial(in_batches, lambda some: aligner("text", some)), shift_of(space.checkpoint)
    )
    finish(out, head, bridge, described, as_json)


@commands.command()
def text(
    out: Out,
    space: Annotated[
        str, typer.Option(help="A space of sound and text: pe_av:FOLDER_OR_REPOSITORY, or hf:FOLDER_OR_REPOSITORY of a CLAP.")
    ],
    decoders: Space = DECODERS,
    captions: Annotated[
        Path | None, typer.Option(help="A file of captions, one a line; the package's 3,000 by default.")
    ] = None,
    sounds: Annotated[
        Path | None, typer.Option(help="A folder of any sounds, for their mean; the package's recordings by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Through captions, from a space of sound and text.

    To that of the decoder.
    """
    begin(out)
    import torch

    from ..encoders import load_encoder
    from ..encoders.registry import NOWHERE
    from ..heads.bridge import captions as shipped
    from ..heads.bridge import from_captions, measured, ranks, recordings
    from ..media import load_sound

    said = shipped() if captions is None else lines_of(captions)
    files = list(recordings().values()) if sounds is None else [p for p in sorted(sounds.rglob("*")) if p.is_file()]
    if not files:
        raise InputError(f"--sounds {sounds}: no files in it")
    described = {"encoder": space, "modality": "audio"}
    reader, listener = (
        load_encoder(NOWHERE, None, described | {"modality": modality}).to(decoders.device) for modality in ("text", "audio")
    )
    aligner = opened(decoders)
    stage(f"{len(said)} captions and {len(files)} sounds")
    with torch.no_grad():
        theirs = in_batches(lambda some: reader(reader.prepare(some).to(decoders.device)), said)
        rate: int = getattr(listener, "rate")  # noqa: B009  a sound encoder's own attribute
        heard = [
            listener(listener.prepare([load_sound(f, rate, listener.downmix)]).to(decoders.device)).float().cpu() for f in files
        ]  # fmt: skip
    ours, shift = in_batches(lambda some: aligner("text", some), said), shift_of(decoders.checkpoint)
    found = from_captions(theirs, ours, torch.cat(heard), shift)
    order = ranks(found.left_out, ours + (0 if shift is None else shift), said, said)
    about = measured(found.left_out, found.bridge, order, said, len(said)) | {"decay": found.decay}
    finish(out, found.head, replace(found.bridge, report=about), described, as_json)


@commands.command()
def pairs(
    out: Out,
    features: Annotated[
        Path, typer.Option(help="Features of sounds and their pictures or videos, from `unialign-gen extract`.")
    ],
    checkpoint: Checkpoint = "kandinsky",
    as_json: AsJson = False,
) -> None:
    """From some hundreds of sounds with their pictures or videos."""
    begin(out)
    import torch
    import torch.nn.functional as F

    from ..data.cache import FeatureCache, Ragged, read_descriptions
    from ..heads.bridge import measured, ranks, ridge
    from ..loading import frozen_head

    cache = FeatureCache.open(features)
    kind = "image" if "image" in cache.modalities else "video"
    heard, seen = cache.features("audio"), cache.features(kind)
    head, dim = frozen_head(checkpoint, kind)
    whole = ((heard.counts > 0) & (seen.counts > 0)).nonzero()[:, 0]

    def means(rows: Ragged) -> Tensor:
        return torch.stack([rows[int(i)].float().mean(0) for i in whole]) if len(whole) else torch.zeros(0, 1)

    with torch.no_grad():
        points = Ragged(F.normalize(head(seen.values[:].float()), dim=1), seen.offsets)
    targets = F.normalize(means(points), dim=1)
    if len(whole) and targets.shape[1] != dim:
        raise InputError(f"{features} has {kind}s of {targets.shape[1]} dimensions, {checkpoint} has {dim}")
    found = ridge("pairs", means(heard), targets)
    ids = [cache.ids[int(i)] for i in whole]
    labels = [cache.labels[int(i)] or cache.ids[int(i)] for i in whole]
    about = measured(found.left_out, found.bridge, ranks(found.left_out, targets, labels, labels), ids, len(ids))
    described = read_descriptions(features).get("audio", {})
    finish(out, found.head, replace(found.bridge, report=about | {"decay": found.decay}), described, as_json)


def begin(out: Path) -> None:
    """What all three do first: is there room for the head, then a sign of life."""
    check_new_folder(out)
    stage("loading the encoders")


def opened(space: Space) -> Aligner:
    from ..loading import check_device, open_aligner

    device = check_device(space.device)
    return open_aligner(space.checkpoint, parse_sources(space.source), space.accept_license).to(device)


def in_batches(encode: Callable[[list[str]], Tensor], texts: list[str]) -> Tensor:
    import torch

    return torch.cat([encode(texts[at : at + 64]).float().cpu() for at in range(0, len(texts), 64)])


def shift_of(checkpoint: str) -> Tensor | None:
    """The measured shift from text to image; without one a published decoder's sounds stay where texts are, said as a note."""
    from ..heads.bridge import text_to_image_shift
    from ..loading import PUBLISHED, calibration_folder
    from ..notes import note

    if checkpoint not in PUBLISHED:
        return None  # texts and pictures of a space that was trained for it lie together
    found = text_to_image_shift(calibration_folder(checkpoint))
    if found is None:
        note(
            "no shift", f"the shift from text to image was not measured: run `unialign-gen calibrate --checkpoint {checkpoint}`"
        )
    return found


def lines_of(path: Path) -> list[str]:
    with as_input_error(f"--captions {path} cannot be read: {{error}}", OSError, ValueError):
        found = list(dict.fromkeys(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()))
    if not found:
        raise InputError(f"--captions {path} is empty: write one caption a line")
    return found


def finish(out: Path, head: Head, bridge: Bridge, described: dict[str, Any], as_json: bool) -> None:
    """Writes the head, and shows how it does on what it was not made from."""
    from ..heads.bridge import write

    write(head, bridge, described, out / "heads" / "audio")
    found, prompts = bridge.report["recall"], bridge.report["prompts"]
    shares = [
        f"top-{k} {found[f'top{k}']:.3f} ({found[f'top{k}_ci95'][0]:.3f} to {found[f'top{k}_ci95'][1]:.3f}, "
        f"chance {found[f'chance{k}']:.3f})"
        for k in (1, 5)
    ]
    unsure = sorted(prompts, key=lambda row: -row["uncertainty"])[:5]
    least = ", ".join(f"{row['prompt']} {row['uncertainty']:.2f}" for row in unsure)
    clear = found["top1_ci95"][0] > found["chance1"]
    lines = [
        f"left out, {found['n']} of {found['gallery']}: {', '.join(shares)}" + ("" if clear else ": no better than chance"),
        f"most uncertain: {least}",
        str(out),
    ]
    report({"out": str(out), "way": bridge.way, **bridge.report}, as_json, "\n".join(lines))
