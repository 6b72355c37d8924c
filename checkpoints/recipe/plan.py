"""The recipe's plan: tables of what there is, and how much of everything is made.

They lie in `tables` beside this file. The environment's `UNIALIGN_RECIPE_TABLES` names another folder with the same files, for
other packages and concepts, or for a small rehearsal. A data folder is of one plan: with another one choose another folder.
"""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path

from unialign_gen.config import Count, load, schema

TABLES = Path(os.environ.get("UNIALIGN_RECIPE_TABLES", Path(__file__).parent / "tables"))


@schema
class Sizes:
    """The contents of `sizes.yaml`, which explains each."""

    compositions: Count
    test_compositions: Count
    pairs: Count
    nonsense: Count
    space_steps: Count
    space_batch: Count
    heads: list[str]


@cache
def table(name: str) -> list[dict[str, str]]:
    """The rows of `<name>.tsv`."""
    with (TABLES / f"{name}.tsv").open(newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


SIZES = load(Sizes, TABLES / "sizes.yaml")
