"""The alignment bench: `bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import report, stage
from .app import app
from .options import AsJson, Config, Overrides


@app.command()
def bench(
    config: Config,
    overrides: Overrides = None,
    processes: Annotated[int, typer.Option(min=1, help="So many share the work, each with its part of the threads.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Compare objectives on feature caches.

    With equal budgets and searches; run again to go on.
    """
    stage("reading the configuration")
    from ..bench.config import BenchConfig
    from ..config import load
    from ..configs import find_config

    found = load(BenchConfig, find_config(config, "bench"), overrides or ())
    from ..bench.run import run

    out = run(found, processes)
    result = {name: str(out / name) for name in ("report.html", "report.json")}
    report(result, as_json, "\n".join(result.values()))
