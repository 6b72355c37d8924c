"""Data: `extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app, guarded, report
from .options import AsJson


@app.command()
@guarded
def extract(
    config: Annotated[Path, typer.Argument(help="A YAML file, see docs/data.md.")],
    override: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE in place of what the file says, such as corpus.limit=100.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decode a corpus once, run the frozen towers over it, and keep their features; resumes where it was."""
    from ..config import load
    from ..data.extract_config import ExtractConfig

    settings = load(ExtractConfig, config, override or ())
    from ..data.extract import run
    from .loading import check_device

    check_device(settings.device)
    found = run(settings)
    lines = [f"{found['corpus']}: {found['samples']} samples, digest {found['digest'][:16]}, {found['missing']} missing"]
    lines.append(f"{found['shards']} of {found['of_shards']} shards in {found['out']}")
    if found["complete"]:
        counts = ", ".join(f"{n} {kind}" for kind, n in found["problems"].items())
        lines.append(f"report.jsonl: {counts}")
    report(found, as_json, "\n".join(lines))
