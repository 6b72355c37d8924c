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
from ..retrieval import occurrence
from .config import BenchConfig


@lru_cache(maxsize=1)
def decoder(checkpoint: str) -> tuple[Any, Judge]:
    """The pipeline and the judge, loaded once a process."""
    pipeline = load_pipeline(checkpoint, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, Judge.from_folder()


def choose(labels: Sequence[str | None], count: int) -> Tensor:
    """Row numbers of the samples that are drawn: the first of each label, then the second of each, and so on."""
    numbers = {label: i for i, label in enumerate(set(labels))}
    return occurrence(torch.tensor([numbers[label] for label in labels])).argsort(stable=True)[:count]


@torch.no_grad()
def measure(
    config: BenchConfig, dataset: str, z: Mapping[str, Tensor], ids: Sequence[str], labels: Sequence[str | None]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Of some test samples, each drawn with its own seed: figures of each prompt (n,) by `metric|task`, and distances of the
    pictures from the reference's by the same.
    """
    data = config.datasets[dataset]
    assert data.checkpoint is not None
    assert data.pictures is not None
    pipeline, judge = decoder(data.checkpoint)
    rows = choose(labels, data.pictures.prompts)
    seeds = [seed_of(ids[i], 0) for i in rows.tolist()]
    options = {"seed": seeds, "num_inference_steps": data.pictures.steps, "prior_strength": 0.0}  # prompts as they are

    def features(name: str) -> Tensor:
        return judge.features(pipeline(embeds=z[name][rows], **options).images)

    key = (str(config.out), dataset)
    if key not in RECONSTRUCTED:
        RECONSTRUCTED[key] = features(config.anchor)
    names = judge.vocabulary()
    wanted = [names.get(labels[i] or "", frozenset()) for i in rows.tolist()]
    samples: dict[str, np.ndarray] = {}
    distances: dict[str, float] = {}
    for name in z:
        if name == config.anchor:
            continue
        found = features(name)
        samples[f"judge top-5|{name}"] = hits_of(judge.named(found), wanted)
        samples[f"variety|{name}"] = spread(found)
        distances[f"Frechet distance|{name}"] = frechet_distance(found, RECONSTRUCTED[key])
    return samples, distances


RECONSTRUCTED: dict[tuple[str, str], Tensor] = {}  # the judge's features of self-reconstruction (n, d), drawn once a process
