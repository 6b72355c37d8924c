"""What checkpoints there are and what they need: `models`, `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import guarded, report
from ..errors import InputError
from ..output import check_folder
from .app import app
from .loading import check_device, parse_sources
from .options import AsJson, Checkpoint, Device, Source


@app.command()
@guarded
def models(as_json: AsJson = False) -> None:
    """List the checkpoints, what each needs and what is here."""
    from ..checkpoint import describe

    rows = describe()
    lines = []
    for row in rows:
        here = "on this disk" if row["on_disk"] else "not complete"
        size = f"{row['bytes'] / 1e6:.0f} MB" if "bytes" in row else ""
        lines.append(f"{row['name']:<14} {here:<13} {row['pipeline'] or '':<30} {size}".rstrip())
        for part, need in row.get("needs", {}).items():
            found = "here" if need["on_disk"] else "missing"
            lines.append(
                f"  {part:<12} {found:<13} {need['source'] or 'no public source, give --source':<50} {need['licence']}"
            )
    report({"models": rows}, as_json, "\n".join(lines))


@app.command()
@guarded
def calibrate(
    images: Annotated[Path, typer.Option(help="A folder of pictures, a few hundred like those you will make.")],
    checkpoint: Checkpoint = "stable-unclip",
    out: Annotated[Path | None, typer.Option(help="A folder; by default where the checkpoint looks for it.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many pictures.")] = 1000,
    source: Source = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure the norm of raw image embeddings, which a published decoder needs, and write it as its embed_scale."""
    from ..checkpoint import PUBLISHED, SHIPPED, calibration_folder, find, image_part, unconditional_is_zero

    folder = find(checkpoint)
    if not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    place = out or (calibration_folder(checkpoint) if not (folder / "aligner").is_dir() else folder / "embed_scale")
    if out is None and checkpoint not in SHIPPED + PUBLISHED and not Path(checkpoint).expanduser().is_dir():
        raise InputError(f"{checkpoint} is not a folder of yours: name one with --out")
    check_folder(place)
    check_device(device)
    from ..calibrate import measure, pictures_in
    from ..pipelines import EmbedScale

    files = pictures_in(images)[:limit]
    part = image_part(checkpoint, parse_sources(source)).to(device)
    found = measure(part, files)
    scale = EmbedScale(part.encoder.dim, found.embed_norm, found.embed_norm_std)
    if not unconditional_is_zero(folder):
        scale.negative_image_embeds.copy_(found.negative)
    scale.save_pretrained(place)
    result = {
        "embed_norm": found.embed_norm,
        "embed_norm_std": found.embed_norm_std,
        "count": found.count,
        "skipped": found.skipped,
        "folder": str(place),
    }
    norm = f"embed_norm {found.embed_norm:.4f}, spread {found.embed_norm_std:.4f}"
    report(result, as_json, f"{norm}, {found.count} pictures, {len(found.skipped)} skipped\n{place}")
