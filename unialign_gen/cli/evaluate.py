"""Measurements: `eval ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import report
from .app import evaluate
from .loading import load
from .options import AsJson, BestOf, Checkpoint, Decoder, Heads, Model, PriorStrength, Seed


@evaluate.command()
def concepts(
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    heads: Heads = None,
    data: Annotated[Path | None, typer.Option(help="The data set that the recipe builds.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many prompts of each kind and list.")] = 200,
    best_of: BestOf = 1,
    prior_strength: PriorStrength = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Whether pictures show what prompts say.

    The judge on prompts of the data set, and colour, variety, pairs, counts, read-back and nonsense on fixed lists.
    """
    from ..data.manifest import default_root, read
    from ..loading import find

    find(checkpoint, decoder)
    root = data or default_root()
    read(root)  # says where there is none, before anything is loaded
    pipeline = load(Model(checkpoint, decoder=decoder, heads=heads))
    from ..checkpoints.concepts import evaluate as run
    from ..checkpoints.concepts import table

    pipeline.set_progress_bar_config(disable=True)
    result = run(pipeline, root, limit=limit, seed=seed, best_of=best_of, prior_strength=prior_strength)
    report(result, as_json, table(result))
