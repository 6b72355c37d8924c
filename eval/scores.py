"""What pictures are worth beside their reference and their prompts: functions of features, on all clips and on halves."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frechet import frechet_distance
from .kid import kid
from .mind import random_directions, sliced
from .prdc import prdc

NEIGHBOURS, DIRECTIONS = 5, 1000


def distances(fake: Tensor, real: Tensor, names: Sequence[str], parts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Distances and shares between features of generated and real pictures (N, d): (1 + parts,), on all, then on each part.

    Args:
        names: what the Frechet, the kernel and the sliced distance are called in these features.
        parts: row numbers; the same rows of both sets.
    """
    frechet, kernel, monge = names
    u = random_directions(fake.shape[1], DIRECTIONS, torch.Generator().manual_seed(2020))  # (K, d)
    a, b = fake.double() @ u.T, real.double() @ u.T  # (N, K)
    found: list[dict[str, float]] = []
    for rows in [np.arange(len(fake)), *parts]:
        x, y = fake[rows], real[rows]
        made = {frechet: frechet_distance(x, y), kernel: kid(x, y, subset_size=None)[0]}
        made[monge] = sliced(a[rows], b[rows], fake.shape[1])
        found.append(made | (prdc(x, y)._asdict() if len(rows) > NEIGHBOURS else {}))
    return {name: np.array([made[name] for made in found]) for name in found[0] if all(name in made for made in found)}


def cosines(x: Tensor, y: Tensor) -> np.ndarray:
    """Of each row of unit embeddings (N, d) with the same row of others (N,): of prompts and pictures it is agreement."""
    return (x * y).sum(1).double().numpy()


def spread(features: Tensor) -> np.ndarray:
    """Of each picture, the mean of 1 - cosine to all others (N,): how different the set is."""
    z = F.normalize(features.double(), dim=1)
    n = len(z)
    return (1 - (z @ z.sum(0) - 1) / max(1, n - 1)).numpy()


def spread_of_seeds(features: Sequence[Tensor]) -> np.ndarray:
    """Of each clip, the mean of 1 - cosine between its pictures of several draws (N,): how much a prompt leaves open."""
    z = torch.stack([F.normalize(f.double(), dim=1) for f in features])
    s = len(z)
    total = z.sum(0)
    return (1 - ((total * total).sum(1) - s) / (s * (s - 1))).numpy()


def similarity_share(pictures: Tensor, own: Tensor, every: Tensor) -> np.ndarray:
    """AIS and IIS of SonicDiffusion (Biner et al. 2024), by picture (N,): the share of `every` less like it than its own.

    Args:
        pictures: embeddings (N, d) of generated pictures.
        own: of each picture's own sound (AIS) or real picture (IIS), in the same space (N, d).
        every: of the sounds or pictures of the whole set (V, d), its own among them or not; equal ones do not count.

    Example:
        >>> similarity_share(torch.eye(2), torch.eye(2), torch.eye(2))
        array([0.5, 0.5])
    """
    x, y, z = (F.normalize(part.double(), dim=1) for part in (pictures, own, every))
    return ((x * y).sum(1, keepdim=True) > x @ z.T + 1e-9).double().mean(1).numpy()


def class_hits(pictures: Tensor, classes: Tensor, right: Sequence[Collection[int]], k: int = 1) -> np.ndarray:
    """AIC of SonicDiffusion, by picture (N,): 1 if a right class is among the k nearest class embeddings, else 0.

    NaN where no class is right. Class by class one number or several: any of them counts.

    Args:
        pictures: embeddings (N, d).
        classes: of the classes' names in the same space (C, d).
        right: numbers of each picture's classes.

    Example:
        >>> class_hits(torch.eye(3), torch.eye(3), [{0}, {0, 2}, ()])
        array([ 1.,  0., nan])
    """
    scores = F.normalize(pictures.double(), dim=1) @ F.normalize(classes.double(), dim=1).T  # (N, C)
    return hits_of(scores.topk(min(k, len(classes)), dim=1).indices.tolist(), right)


def hits_of(top: Sequence[Sequence[object]], right: Sequence[Collection[object]]) -> np.ndarray:
    """Of each clip, 1 if one of the classes that a judge names is right, else 0; NaN where none is (N,)."""
    return np.array([float(bool(set(t) & set(r))) if r else np.nan for t, r in zip(top, right, strict=True)])
