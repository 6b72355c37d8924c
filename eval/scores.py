"""What one set of generated pictures is worth beside its reference: every figure, on all clips and on halves of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frechet import frechet_infinity
from .mind import random_directions, sliced
from .pairs import Pair
from .prdc import prdc

NEIGHBOURS, DIRECTIONS = 5, 1000


@dataclass(frozen=True)
class DrawnFeatures:
    """One set of drawn pictures as features, row i of clip i.

    Attributes:
        features: by extractor, (N, d).
        image: unit embeddings of the pictures in the checkpoint's image space (N, e).
        prompt: unit embeddings of the prompts (N, e).
        hits: by metric (`judge top-1`, `judge top-5`), 1, 0, or NaN for clips that are not judged (N,).
    """

    features: Mapping[str, Tensor]
    image: Tensor
    prompt: Tensor
    hits: Mapping[str, np.ndarray]


def distances(fake: Tensor, real: Tensor, names: Sequence[str], parts: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Distances and shares between features of generated and real pictures (N, d): on all, then on each part.

    Args:
        names: what the Frechet, the kernel and the sliced distance are called in these features.
        parts: row numbers; the same rows of both sets.
    """
    frechet, kernel, monge = names
    pair = Pair.of(fake, real)
    u = random_directions(fake.shape[1], DIRECTIONS, torch.Generator().manual_seed(2020))  # (K, d)
    a, b = fake.double() @ u.T, real.double() @ u.T  # (N, K)
    found: dict[str, list[float]] = {}
    for rows in [np.arange(len(fake)), *parts]:
        at = torch.from_numpy(rows)
        some = pair.take(at, at)
        found.setdefault(frechet, []).append(some.frechet())
        found.setdefault(kernel, []).append(some.kid())
        found.setdefault(monge, []).append(sliced(a[at], b[at], fake.shape[1]))
        if len(rows) > NEIGHBOURS:
            for name, value in prdc(fake[at], real[at])._asdict().items():
                found.setdefault(name, []).append(value)
    return {name: values for name, values in found.items() if len(values) == 1 + len(parts)}


def infinity(fake: Tensor, real: Tensor, seed: int = 0) -> tuple[float, float]:
    """The Frechet distance at infinitely many generated pictures, and the fit's standard error; NaN below 8 pictures."""
    if len(fake) < 8:
        return float("nan"), float("nan")
    found = frechet_infinity(fake, real, seed=seed)
    return found.value, found.error


def agreement(drawn: DrawnFeatures) -> np.ndarray:
    """Cosine of each prompt's embedding and its picture's, in the checkpoint's image space (N,)."""
    return (drawn.prompt * drawn.image).sum(1).double().numpy()


def mismatched_agreement(drawn: DrawnFeatures, seed: int = 0) -> np.ndarray:
    """The same with another clip's prompt (N,): what a picture that ignores its prompt gets."""
    step = 1 + int(np.random.default_rng(seed).integers(len(drawn.prompt) - 1)) if len(drawn.prompt) > 1 else 0
    return (drawn.prompt.roll(step, 0) * drawn.image).sum(1).double().numpy()


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


def judged(top: Sequence[Sequence[str]], wanted: Sequence[frozenset[str]]) -> dict[str, np.ndarray]:
    """Whether the judge's first and its five likeliest concepts hold a wanted one; NaN where none is wanted."""
    out = {"judge top-1": np.full(len(wanted), np.nan), "judge top-5": np.full(len(wanted), np.nan)}
    for i, (found, names) in enumerate(zip(top, wanted, strict=True)):
        if names:
            out["judge top-1"][i] = found[0] in names
            out["judge top-5"][i] = bool(names & set(found))
    return out
