"""The recipe's features as caches for `unialign-gen train`: pictures with texts, and sounds by how they came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unialign_gen.data.cache import FORMAT, Ragged, Shard, counted, create, write_shard

from .manifest import Row

SOUNDS = {"rec": "recordings", "fx": "effects", "font": "renders", "speech": "speech"}


def ragged(parts: Sequence[Tensor]) -> Ragged:
    return Ragged(torch.cat(list(parts)).half(), counted(torch.tensor([len(p) for p in parts])))


def label(row: Row) -> str:
    """What a picture or sound is paired and counted by: its concepts, or else its name."""
    if row.concepts:
        return "|".join(row.concepts)
    return (row.captions[0] if row.captions else row.id).lower().replace("|", " ")


def write(folder: Path, name: str, rows: Sequence[Row], features: Mapping[str, Sequence[Tensor]]) -> None:
    """A cache of one shard; `features` are tensors (k, width) for each row, by modality."""
    found = {modality: ragged(parts) for modality, parts in features.items()}
    index = {
        "format": FORMAT,
        "corpus": {"name": name, "samples": len(rows)},
        "encoders": {modality: {"dim": f.values.shape[1], "checkpoint": "starter"} for modality, f in found.items()},
        "shards": 1,
    }
    create(folder / name, index)
    write_shard(folder / name, 0, Shard([r.id for r in rows], [label(r) for r in rows], found))
