"""A bench's data sets on disk: three feature caches, `train`, `validation` and `test`, and smaller training caches by size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from ..data.cache import FeatureCache, Ragged, Shard, counted
from ..errors import InputError
from ..training.seeds import unit_hash
from . import synthetic
from .config import Dataset

SHARES = {"validation": 0.12, "test": 0.12}  # of the samples; the rest is for training
ROWS = 2  # rows of another cache that stand for a sample's modality, at most


def split_of(name: str) -> str:
    """The split of an id, by its hash: the same in every bench.

    >>> split_of("a"), split_of("b")
    ('train', 'train')
    """
    at, end = unit_hash(name), 0.0
    for split, share in SHARES.items():
        end += share
        if at < end:
            return split
    return "train"


def write(dataset: Dataset, folder: Path) -> None:
    """Makes a data set's caches in a folder; what is there already is left alone."""
    if dataset.synthetic is not None:
        synthetic.write(dataset.synthetic, folder)
    else:
        divide(dataset, folder)
    whole = FeatureCache.open(folder / "train")
    for size in dataset.sizes:
        if size > len(whole):
            raise InputError(f"{folder.name}: size {size} is more than its {len(whole)} training samples")
        kept = torch.arange(size)
        shard = Shard(whole.ids[:size], whole.labels[:size], {m: whole.features(m).some(kept) for m in whole.modalities})
        synthetic.put(folder / f"train-{size}", shard, {"size": size})


def divide(dataset: Dataset, folder: Path) -> None:
    """Splits a cache by its ids, and gives its samples those rows of `pairs` that have a label of theirs and their split."""
    assert dataset.cache is not None
    cache = FeatureCache.open(dataset.cache)
    about: dict[str, object] = {
        "cache": str(dataset.cache),
        "pairs": {m: [str(p) for p in v] for m, v in dataset.pairs.items()},
    }
    features = {name: cache.features(name) for name in cache.modalities}
    candidates = {m: by_label([FeatureCache.open(p) for p in places], m) for m, places in dataset.pairs.items()}
    for split in synthetic.SPLITS:
        mine = torch.tensor([i for i, name in enumerate(cache.ids) if split_of(name) == split], dtype=torch.int64)
        found = {name: rows.some(mine) for name, rows in features.items()}
        ids, labels = [cache.ids[i] for i in mine.tolist()], [cache.labels[i] for i in mine.tolist()]
        for modality, (by, values) in candidates.items():
            of_labels = [{row for one in several(label) for row in by.get((one, split), [])} for label in labels]
            chosen = [paired(rows, name) for rows, name in zip(of_labels, ids, strict=True)]
            counts = torch.tensor([len(c) for c in chosen])
            found[modality] = Ragged(values[torch.tensor([i for c in chosen for i in c], dtype=torch.int64)], counted(counts))
        synthetic.put(folder / split, Shard(ids, labels, found), about)


def several(label: str | None) -> list[str]:
    """The labels in a cache's entry, see `training.features.Source`; none where it has none."""
    return label.split("|") if label else []


def by_label(caches: list[FeatureCache], modality: str) -> tuple[dict[tuple[str, str], list[int]], torch.Tensor]:
    """(label, split) -> row numbers, and the rows of all caches: of each sample its first row."""
    found: dict[tuple[str, str], list[int]] = {}
    parts, at = [], 0
    for cache in caches:
        rows = cache.features(modality)
        has = rows.counts > 0
        for name, label, there in zip(cache.ids, cache.labels, has.tolist(), strict=True):
            if there:
                for one in several(label):
                    found.setdefault((one, split_of(name)), []).append(at)
                at += 1
        parts.append(rows.first().values)
    return found, torch.cat(parts)


def paired(rows: Iterable[int], name: str) -> list[int]:
    """Up to `ROWS` of the rows, chosen by the sample's id."""
    return sorted(rows, key=lambda row: unit_hash(f"{name}:{row}"))[:ROWS]
