"""What the training steps ask of the manifest: pixels, who may be trained on, how often each is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unialign_gen.data.manifest import Row, read, write

__all__ = ["Row", "pixels", "read", "trainable", "weights_by_name", "write"]


def pixels(root: Path, rows: list[Row]) -> Tensor:
    """uint8 (N, 128, 128, 3)."""
    out = torch.empty(len(rows), 128, 128, 3, dtype=torch.uint8)
    for i, row in enumerate(rows):
        with Image.open(root / row.path) as picture:
            out[i] = torch.from_numpy(np.array(picture.convert("RGB")))
    return out


def trainable(row: Row, tiers: str) -> bool:
    return row.tier in tiers and row.split == "train"


def weights_by_name(rows: list[Row], power: float = 0.5, concept_boost: float = 4.0) -> Tensor:
    """Sampling weights (N,): a name that many pictures share counts less for each; concepts of the table count more."""
    names = [row.captions[0].lower() if row.captions else row.id for row in rows]
    count = Counter(names)
    concept = Counter(c for row in rows for c in row.concepts)
    weights = [count[n] ** (power - 1) for n in names]
    for i, row in enumerate(rows):
        if row.concepts:
            weights[i] *= concept_boost * max(1.0, (40 / min(concept[c] for c in row.concepts)) ** 0.5)
    return torch.tensor(weights)
