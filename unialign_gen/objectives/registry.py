"""Objectives by name, so that a configuration file can choose."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from .infonce import AnchoredInfoNCE, InfoNCE
from .pmrl import PMRL
from .tuples import GRAM, TRIANGLE
from .unialign import UniAlign

OBJECTIVES: dict[str, type[nn.Module]] = {
    "unialign": UniAlign,
    "infonce": InfoNCE,
    "anchored_infonce": AnchoredInfoNCE,
    "gram": GRAM,
    "triangle": TRIANGLE,
    "pmrl": PMRL,
}


def build(name: str, **options: Any) -> nn.Module:
    """The objective called `name`, with its options.

    Raises:
        ValueError: a name that is not in `OBJECTIVES`, an option that the objective does not have, or a bad value.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: choose {', '.join(OBJECTIVES)}")
    known = list(inspect.signature(OBJECTIVES[name]).parameters)
    unknown = [o for o in options if o not in known]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(map(repr, unknown))}: it takes {', '.join(known)}")
    return OBJECTIVES[name](**options)
