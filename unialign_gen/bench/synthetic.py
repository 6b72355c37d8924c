"""Feature caches with known truth: modalities that show common factors, each through its own map, with its own noise.

A sample has shared factors s = centre of its label + spread * noise, and modality m shows x_m = A_m [s, p_m] + noise_m e, with
private factors p_m that no other modality knows and a random map A_m whose columns have unit length. Which modality is how
clear, how many there are, what is missing and how many pairs are wrong is set, so that claims about them can be tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..config import Count, Positive, Share, schema, to_dict
from ..data.cache import FORMAT, Ragged, Shard, counted, create, shard_path, write_shard
from ..errors import InputError

MODALITIES = ("image", "text", "audio", "video", "depth", "thermal", "motion", "touch")
SPLITS = ("train", "validation", "test")
Noise = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@schema
class Synthetic:
    """How samples are made.

    Attributes:
        modalities: 2 to 8, of image, text, audio, video, depth, thermal, motion, touch.
        train, validation, test: samples of each split.
        labels: kinds of samples.
        shared, private: numbers of factors.
        spread: of samples around their label's centre, whose coordinates have spread 1.
        noise: of each modality's features, or one for all; a factor's own spread is about 1.
        private_scale: size of the private factors, or one a modality.
        missing: how often a training or validation sample lacks a modality other than the first. Test samples are whole.
        label_noise: how often the label that a sample is known by is another one. In training and validation.
        wrong_pairs: how often a modality other than the first shows another sample. In training and validation.
        width: of the features.
        seed: of everything that is drawn.
    """

    modalities: Annotated[int, Field(ge=2, le=8)] = 3
    train: Count = 4000
    validation: Annotated[int, Field(ge=16)] = 400
    test: Annotated[int, Field(ge=16)] = 400
    labels: Count = 20
    shared: Count = 12
    private: Count = 12
    spread: Positive = 0.5
    noise: Noise | list[Noise] = 0.3
    private_scale: Noise | list[Noise] = 1.0
    missing: Share = 0.0
    label_noise: Share = 0.0
    wrong_pairs: Share = 0.0
    width: Count = 48
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        for name in ("noise", "private_scale"):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != self.modalities:
                raise InputError(f"{name}: {len(value)} values for {self.modalities} modalities")

    @property
    def names(self) -> list[str]:
        return list(MODALITIES[: self.modalities])


def draw(options: Synthetic) -> dict[str, tuple[Shard, Tensor]]:
    """Every split: ids, labels and features, and the shared factors (N, shared) that no one sees.

    >>> splits = draw(Synthetic(modalities=2, train=20, validation=16, test=16))
    >>> shard, factors = splits["test"]
    >>> shard.features["text"].values.shape, factors.shape
    (torch.Size([16, 48]), torch.Size([16, 12]))
    """
    generator = torch.Generator().manual_seed(options.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def chance(share: float, count: int) -> Tensor:
        return torch.rand(count, generator=generator) < share

    centres = normal(options.labels, options.shared)
    maps = [F.normalize(normal(options.shared + options.private, options.width), dim=1) for _ in options.names]
    found = {}
    for split in SPLITS:
        count, whole = getattr(options, split), split == "test"
        labels = torch.randint(options.labels, (count,), generator=generator)
        shared = centres[labels] + options.spread * normal(count, options.shared)  # (N, shared)
        features = {}
        sizes = (np.broadcast_to(size, len(maps)).tolist() for size in (options.noise, options.private_scale))
        for name, view, noise, scale in zip(options.names, maps, *sizes, strict=True):
            seen, there = shared, torch.ones(count, dtype=torch.bool)
            wrong, absent = chance(options.wrong_pairs, count), chance(options.missing, count)
            if name != options.names[0] and not whole:
                seen = torch.where(wrong[:, None], shared[torch.randperm(count, generator=generator)], shared)
                there = ~absent
            x = torch.cat([seen, scale * normal(count, options.private)], 1) @ view + noise * normal(count, options.width)
            features[name] = Ragged(x[there], counted(there.long()))
        known = labels
        if not whole:
            other = torch.randint(options.labels, (count,), generator=generator)
            known = torch.where(chance(options.label_noise, count), other, labels)
        ids = [f"{split}-{i}" for i in range(count)]
        found[split] = (Shard(ids, [f"kind {i}" for i in known.tolist()], features), shared)
    return found


def write(options: Synthetic, folder: Path) -> None:
    """The splits as feature caches `train`, `validation` and `test` in a folder; what is there already is left alone.

    Raises:
        InputError: the folder holds caches of other options.
    """
    for split, (shard, _) in draw(options).items():
        put(folder / split, shard, {"options": to_dict(options)})


def put(folder: Path, shard: Shard, about: dict[str, object]) -> None:
    """One shard as a cache, if it is not there already."""
    encoders = {name: {"dim": rows.values.shape[1]} for name, rows in shard.features.items()}
    corpus = {"name": folder.parent.name, "samples": len(shard.ids), **about}
    create(folder, {"format": FORMAT, "encoders": encoders, "shards": 1, "corpus": corpus})
    if not shard_path(folder, 0).is_file():
        write_shard(folder, 0, shard)
