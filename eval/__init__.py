"""Measurements: what a checkpoint's pictures show, and how sure one can be of it.

Distances between sets of pictures are torchmetrics `Metric`s, see `metrics`, and functions of features, see `functional`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unialign_gen.lazy import lazy

if TYPE_CHECKING:
    from .metrics import CMMD, MIND, PRDC, FrechetDistance, FrechetInfinity, KernelDistance

__all__ = ["FrechetDistance", "FrechetInfinity", "KernelDistance", "PRDC", "MIND", "CMMD"]

if not TYPE_CHECKING:  # unseen by type checkers, which would then take any name
    __getattr__ = lazy(__name__, dict.fromkeys(__all__, "metrics"))
