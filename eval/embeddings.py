"""From kept features of encoders to unit embeddings, one row a sample, under any heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unialign_gen.data.cache import Ragged

ROWS = 8192


class Features(Protocol):
    """What `data.cache.FeatureCache` offers."""

    modalities: dict[str, int]

    @property
    def ids(self) -> list[str]: ...

    @property
    def labels(self) -> list[str | None]: ...

    def features(self, modality: str) -> Ragged: ...


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings (N, d), fp32, and which samples have the modality (N,); rows of those that have not are zeros."""

    z: Tensor
    has: Tensor


@torch.no_grad()
def rows(features: Ragged, head: nn.Module) -> Tensor:
    """Unit embeddings (R, d) of all rows, such as all captions."""
    parts = [F.normalize(head(part.float()).float(), dim=1) for part in features.values.split(ROWS)]
    return torch.cat(parts) if parts else features.values[:].float()


def pooled(features: Ragged, head: nn.Module) -> Embedded:
    """One embedding a sample: the mean of its rows' unit embeddings, such as of a video's frames, back on the sphere."""
    z = rows(features, head)
    total = torch.zeros(len(features), z.shape[1]).index_add_(0, owners(features), z)
    return Embedded(F.normalize(total, dim=1), features.counts > 0)


def first(features: Ragged, head: nn.Module) -> Embedded:
    """One embedding a sample: that of its first row, such as its first caption."""
    has = features.counts > 0
    z = rows(Ragged(features.values[features.offsets[:-1][has]], torch.arange(int(has.sum()) + 1)), head)
    out = torch.zeros(len(features), z.shape[1])
    out[has] = z
    return Embedded(out, has)


def owners(features: Ragged) -> Tensor:
    """Of each row, the number of its sample (R,)."""
    return torch.repeat_interleave(torch.arange(len(features)), features.counts)
