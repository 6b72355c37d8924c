"""Measurements: what a checkpoint's pictures show, and how sure one can be of it.

Distances between sets of pictures are torchmetrics `Metric`s, see `metrics`, and functions of features, see `functional`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .metrics import CMMD, MIND, PRDC, FrechetDistance, FrechetInfinity, KernelDistance

__all__ = ["FrechetDistance", "FrechetInfinity", "KernelDistance", "PRDC", "MIND", "CMMD"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(".metrics", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
