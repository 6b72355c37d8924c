"""Cached features as training sees them: of each sample the rows of each modality, and which labels it has.

Features stay in the cache's files, which are mapped.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..data.cache import FeatureCache, Ragged, counted
from ..data.storage import made_once
from ..errors import InputError
from ..notes import note
from ..output import make_folder
from .seeds import unit_hash

CHUNK = 2048  # rows, or samples, that are in memory at a time
SAME = 1e-6  # features that differ less than this are the same


def held_out(ids: list[str], share: float, seed: int) -> Tensor:
    """Which samples are kept out of training, bool (N,): a share chosen by a hash of the id, whatever the order."""
    return torch.tensor([unit_hash(f"{seed}:{name}") < share for name in ids], dtype=torch.bool)


@dataclass
class Labels:
    """The labels of samples, as numbers: `labels[i]` are the names of sample i's.

    Attributes:
        names: of the labels.
        numbers: of each sample, indices into `names`.
    """

    names: list[str]
    numbers: Ragged

    @classmethod
    def of(cls, listed: Iterable[Sequence[str]]) -> Labels:
        known: dict[str, int] = {}
        numbers, counts = array("q"), array("q")
        for labels in listed:
            numbers.extend(known.setdefault(label, len(known)) for label in labels)
            counts.append(len(labels))
        values = torch.tensor(numbers, dtype=torch.int64)  # a type that an empty array would not tell
        return cls(list(known), Ragged(values, counted(torch.tensor(counts))))

    def __getitem__(self, sample: int) -> list[str]:
        return [self.names[k] for k in self.numbers[sample].tolist()]


@dataclass
class Source:
    """A cache's features.

    Attributes:
        rows: features by modality, in the dtype they are kept in.
        labels: of each sample; in a cache's entry they are separated by `|`.
        held_out: bool (N,).
    """

    name: str
    cache: FeatureCache
    rows: dict[str, Ragged]
    labels: Labels
    held_out: Tensor

    def __len__(self) -> int:
        return len(self.held_out)

    def has(self, modality: str) -> Tensor:
        """Which samples have the modality, bool (N,)."""
        if modality not in self.rows:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.rows[modality].counts > 0

    def width(self, modality: str) -> int:
        return self.rows[modality].values.shape[1]


def read(name: str, cache: FeatureCache, modalities: set[str], share: float, seed: int) -> Source:
    """The modalities of a cache that a run uses."""
    masks: list[Tensor] = []

    def labels() -> Iterator[list[str]]:  # of one shard at a time, as the ids
        for about in cache.abouts():
            masks.append(held_out(about["ids"], share, seed))
            yield from (label.split("|") if label else [] for label in about["labels"])

    found = Labels.of(labels())
    return Source(name, cache, {m: cache.features(m) for m in cache.modalities if m in modalities}, found, torch.cat(masks))


@dataclass
class Moments:
    """Of rows: how many, their mean (width,) and their sum of squares about it (width,), in fp64."""

    count: int
    mean: Tensor
    squares: Tensor

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of rows (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        apart, share = other.mean - self.mean, other.count / max(1, count)
        return Moments(count, self.mean + share * apart, self.squares + other.squares + self.count * share * apart.square())

    @property
    def std(self) -> Tensor:
        return (self.squares / max(1, self.count - 1)).sqrt()


def moments(sources: Iterable[Source], modality: str, spare: Path) -> Moments:
    """Of all rows of a modality; those of each cache are computed once and kept, see `beside`.

    Raises:
        InputError: a feature that is NaN or infinite, or features that never vary.
    """
    found = []
    for source in sources:
        values = source.rows[modality].values

        def make(part: Path, source: Source = source) -> None:
            total = Moments(0, *torch.zeros(2, source.width(modality)).double())
            for rows in source.rows[modality].values.split(CHUNK):
                square, mean = torch.var_mean(rows.double(), 0, correction=0)
                total += Moments(len(rows), mean, square * len(rows))
            check_finite(torch.stack([total.mean, total.squares]), source, modality)
            part.write_bytes(save({"mean": total.mean, "squares": total.squares}))

        kept = load_file(made_once(beside(source, spare, f"moments-{modality}"), make))
        found.append((source.name, Moments(len(values), kept["mean"], kept["squares"])))
    tell_constant({name: one.count > 1 and float(one.std.max()) < SAME for name, one in found}, modality)
    (_, first), *others = found
    return sum((one for _, one in others), first)


def check_finite(values: Tensor, source: Source, modality: str) -> None:
    if bool(values.isfinite().all()):
        return
    rows = source.rows[modality]
    bad = torch.cat([~part.isfinite().all(1) for part in rows.values.split(CHUNK)]).nonzero()
    at = torch.searchsorted(rows.offsets, bad[:1, 0], right=True).tolist()  # none where they overflow in a head
    first = "".join(f", the first of {source.cache.ids[i - 1]!r}" for i in at)
    raise InputError(f"cache {source.name}: {modality} holds NaN or infinite features{first}: extract again elsewhere")


def tell_constant(constant: Mapping[str, bool], modality: str) -> None:
    """Says which caches have the same features all over, by name.

    Raises:
        InputError: all have.
    """
    if flat := [name for name, same in constant.items() if same]:
        said = f"cache {', '.join(flat)}: all rows of {modality} are the same"
        if len(flat) == len(constant):
            raise InputError(f"{said}, nothing can be learnt from them: see what the encoder was given, or leave it out")
        note("constant features", f"{said}: they say nothing of one sample against another")


def is_constant(points: Tensor) -> bool:
    """Whether all rows (N, d) are the same, of two or more that are there; those of samples without any are zeros."""
    there = (part[part.any(1)] for part in points.split(CHUNK))
    first, count = None, 0
    for rows in filter(len, there):
        first, count = rows[0] if first is None else first, count + len(rows)
        if float((rows - first).abs().max()) >= SAME:
            return False
    return count > 1


def beside(source: Source, spare: Path, name: str, head: nn.Module | None = None) -> Path:
    """Where something that follows from a cache's features, and from a head, is kept.

    In the cache's folder, or in `spare` where that may not be written to; under a name that is another one when the shards
    or the head are others.
    """
    total = hashlib.sha256()
    for path in source.cache.paths:
        about = path.stat()
        total.update(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode())
    for key, value in head.state_dict().items() if head is not None else ():
        total.update(key.encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    folder = source.cache.folder
    folder = folder if os.access(folder, os.W_OK) else make_folder(spare)
    return folder / f"{name}-{total.hexdigest()[:16]}"


def content(source: Source, spare: Path) -> str:
    """SHA-256 of a cache's shards, computed once and kept, see `beside`."""

    def make(part: Path) -> None:
        total = hashlib.sha256()
        for path in source.cache.paths:
            with path.open("rb") as f:
                total.update(hashlib.file_digest(f, "sha256").digest())
        part.write_text(total.hexdigest())

    return made_once(beside(source, spare, "content"), make).read_text()


@torch.no_grad()
def embedded(rows: Ragged, head: nn.Module, device: torch.device | str) -> Iterator[Tensor]:
    """`embed_mean` of `CHUNK` samples after the other."""
    for start in range(0, len(rows), CHUNK):
        stop = min(start + CHUNK, len(rows))
        values = rows.values[int(rows.offsets[start]) : int(rows.offsets[stop])]
        z = F.normalize(head(values.float().to(device)).float(), dim=1).cpu()
        owner = torch.repeat_interleave(torch.arange(stop - start), rows.counts[start:stop])
        yield F.normalize(torch.zeros(stop - start, z.shape[1]).index_add_(0, owner, z), dim=1)


def embed_mean(rows: Ragged, head: nn.Module, device: torch.device | str = "cpu") -> Tensor:
    """Unit embeddings (N, d) on the processor, by a head on `device`: a sample's mean over its rows, zeros without any."""
    return torch.cat(list(embedded(rows, head, device)))


def frozen_points(source: Source, anchor: str, head: nn.Module, spare: Path) -> Tensor:
    """Unit embeddings (N, d) of a frozen anchor, mapped: computed once and kept, see `beside`.

    Raises:
        InputError: the cache has no sample of it, or one that is NaN or infinite.
    """
    rows = source.rows[anchor]
    if not len(rows.values):
        raise InputError("a cache without a single sample of the anchor modality cannot be trained from")

    def make(part: Path) -> None:
        with part.open("wb") as f:
            for z in embedded(rows, head, "cpu"):
                check_finite(z, source, anchor)
                f.write(z.numpy().tobytes())

    path = made_once(beside(source, spare, "anchor", head), make)
    count = path.stat().st_size // 4
    return torch.from_file(str(path), shared=False, size=count).view(len(rows), -1)


def label_means(sources: Mapping[str, Source], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The unit mean (d,) of each label's training samples, over all sources that have the anchor.

    Args:
        points: unit embeddings (N, d) of the anchor by source; zeros where a sample has none.
    """
    total: dict[str, Tensor] = {}
    for name, z in points.items():
        labels, usable = sources[name].labels, ~sources[name].held_out
        if not labels.names:
            continue
        sums, counts = torch.zeros(len(labels.names), z.shape[1]), torch.zeros(len(labels.names))
        for samples in torch.arange(len(z)).split(CHUNK):
            samples = samples[usable[samples] & (z[samples] != 0).any(1)]
            mine = labels.numbers.some(samples)
            sums.index_add_(0, mine.values, z[torch.repeat_interleave(samples, mine.counts)])
            counts += torch.bincount(mine.values, minlength=len(counts))
        for label, value, count in zip(labels.names, sums, counts.tolist(), strict=True):
            if count:
                total[label] = total[label] + value if label in total else value
    return {label: F.normalize(value, dim=0) for label, value in total.items()}
