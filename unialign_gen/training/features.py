"""Cached features in memory: of each sample the rows of each modality, and which labels it has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.cache import FeatureCache, Ragged
from ..errors import InputError

CHUNK = 8192


def held_out(ids: list[str], share: float, seed: int) -> Tensor:
    """Which samples are kept out of training, bool (N,): a share chosen by a hash of the id, whatever the order."""
    limit = int(share * 2**32)
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in ids)
    return torch.tensor([int.from_bytes(d[:4], "big") < limit for d in digests], dtype=torch.bool)


@dataclass
class Source:
    """A cache's features.

    Attributes:
        rows: features by modality, in the dtype they are kept in.
        labels: of each sample; several in one entry are separated by `|`, none is an empty list.
        held_out: bool (N,).
    """

    name: str
    ids: list[str]
    rows: dict[str, Ragged]
    labels: list[list[str]]
    held_out: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, modality: str) -> Tensor:
        """Which samples have the modality, bool (N,)."""
        if modality not in self.rows:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.rows[modality].counts > 0

    def width(self, modality: str) -> int:
        return self.rows[modality].values.shape[1]


def read(name: str, cache: FeatureCache, modalities: set[str], share: float, seed: int) -> Source:
    """The modalities of a cache that a run uses.

    Raises:
        InputError: a feature that is NaN or infinite.
    """
    rows = {m: cache.features(m) for m in cache.modalities if m in modalities}
    for modality, ragged in rows.items():
        if not all(bool(part.isfinite().all()) for part in ragged.values.split(CHUNK)):
            raise InputError(f"cache {name}: {modality} holds NaN or infinite features, extract again")
    labels = [label.split("|") if label else [] for label in cache.labels]
    return Source(name, cache.ids, rows, labels, held_out(cache.ids, share, seed))


@torch.no_grad()
def embed_mean(rows: Ragged, head: nn.Module, device: torch.device | str = "cpu") -> Tensor:
    """Unit embeddings (N, d) on the processor, by a head on `device`: a sample's mean over its rows, zeros without any."""
    total: Tensor | None = None
    owner = torch.repeat_interleave(torch.arange(len(rows)), rows.counts)
    for values, mine in zip(rows.values.split(CHUNK), owner.split(CHUNK), strict=True):
        z = F.normalize(head(values.float().to(device)).float(), dim=1).cpu()
        if total is None:
            total = torch.zeros(len(rows), z.shape[1])
        total.index_add_(0, mine, z)
    if total is None:
        raise InputError("a cache without a single sample of the anchor modality cannot be trained from")
    return F.normalize(total, dim=1)


def label_means(sources: Mapping[str, Source], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The unit mean (d,) of each label's training samples, over all sources that have the anchor.

    Args:
        points: unit embeddings (N, d) of the anchor by source; zeros where a sample has none.
    """
    total: dict[str, Tensor] = {}
    for name, z in points.items():
        source = sources[name]
        for i in (~source.held_out & (z != 0).any(1)).nonzero()[:, 0].tolist():
            for label in source.labels[i]:
                total[label] = total[label] + z[i] if label in total else z[i].clone()
    return {label: F.normalize(value, dim=0) for label, value in total.items()}
