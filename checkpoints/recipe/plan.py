"""The recipe's plan: tables of what there is, and how much of everything is made.

They lie in `tables` beside this file. The environment's `UNIALIGN_RECIPE_TABLES` names another folder with the same files, for
other packages and concepts, or for a small rehearsal. A data folder is of one plan: with another one choose another folder.
"""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from unialign_gen.config import parse

TABLES = Path(os.environ.get("UNIALIGN_RECIPE_TABLES", Path(__file__).parent / "tables"))


@cache
def table(name: str) -> list[dict[str, str]]:
    """The rows of `<name>.tsv`."""
    with (TABLES / f"{name}.tsv").open(newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))


SIZES = SimpleNamespace(**parse((TABLES / "sizes.yaml").read_text("utf-8"), "sizes.yaml"))  # each is explained there
