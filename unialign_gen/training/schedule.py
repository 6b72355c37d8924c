"""The learning rate's course."""

from __future__ import annotations

import math


def warm_then_cool(progress: float, warm: float = 0.02, cool: float = 0.25) -> float:
    """Learning-rate factor at a share `progress` of the run: linear warm-up, constant, cosine to zero over the last `cool`."""
    if progress < warm:
        return max(progress / warm, 1e-3)
    if progress < 1 - cool:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 1 + cool) / max(cool, 1e-9))))
