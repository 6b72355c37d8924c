"""Pictures of a data set's test prompts by the checkpoint's decoder: whether they agree, how much they vary, how far off.

The reference is self-reconstruction: the same samples drawn with the same seeds from their own pictures' embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..eval.frechet import frechet_distance
from ..eval.judge import Judge
from ..eval.pictures import seed_of
from ..eval.scores import hits_of, spread
from ..loading import load_pipeline
from .config import Pictures


@lru_cache(maxsize=1)
def decoder(checkpoint: str) -> tuple[Any, Judge]:
    """The pipeline and the judge, loaded once a process."""
    pipeline = load_pipeline(checkpoint, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, Judge.from_folder()


def choose(labels: Sequence[str | None], count: int) -> Tensor:
    """Row numbers of the samples that are drawn: the first of each label, then the second of each, and so on."""
    seen: dict[str | None, int] = {}
    order = []
    for i, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        order.append((seen[label], i))
    return torch.tensor([i for _, i in sorted(order)[:count]])


@torch.no_grad()
def draw(checkpoint: str, z: Tensor, ids: Sequence[str], options: Pictures) -> Tensor:
    """The judge's features (n, d) of pictures of embeddings (n, e), each drawn with its sample's own seed."""
    pipeline, judge = decoder(checkpoint)
    seeds = [seed_of(name, 0) for name in ids]
    drawn = pipeline(embeds=z, seed=seeds, num_inference_steps=options.steps, prior_strength=0.0)  # prompts as they are
    return judge.features(drawn.images)


def measure(
    checkpoint: str,
    z: Mapping[str, Tensor],
    ids: Sequence[str],
    labels: Sequence[str | None],
    anchor: str,
    options: Pictures,
    reference: Tensor,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Figures of each prompt (n,) by `metric|task`, and distances of the pictures from the reference's by the same."""
    judge = decoder(checkpoint)[1]
    names = judge.vocabulary()
    wanted = [names.get(label or "", frozenset()) for label in labels]
    samples: dict[str, np.ndarray] = {}
    distances: dict[str, float] = {}
    for name in z:
        if name == anchor:
            continue
        features = draw(checkpoint, z[name], ids, options)
        samples[f"judge top-5|{name}"] = hits_of(judge.named(features), wanted)
        samples[f"variety|{name}"] = spread(features)
        distances[f"Frechet distance|{name}"] = frechet_distance(features, reference)
    return samples, distances
