"""Features of frozen encoders, kept in a folder: computed once, read by every training run.

    index.json                  what the features were made of and with, and how many shards there are
    shard-00000.safetensors     for each modality `NAME` (R, width) and `NAME.offsets` (N + 1), int64; ids, labels and what
                                could not be read are in its metadata
    report.jsonl                missing and broken files, written when the last shard is there
    encoders.json, NAME.py      where the encoders are, and those that a Python file of one's own defines

A shard belongs to a fixed stretch of the corpus, whoever computes it, and appears under its name only when it is whole.
Training maps the shards: rows are read from the disk where they are drawn, and processes of a machine share them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..config import near
from ..errors import InputError, as_input_error
from ..output import make_folder
from .storage import copied, made_once, names_in, on_disk, place, reached, read_range, write_whole

if TYPE_CHECKING:
    from torch import Tensor

INDEX, REPORT, ENCODERS = "index.json", "report.jsonl", "encoders.json"
FORMAT = 1


class MappedRows:
    """Rows (R, width) of several files as one tensor of which nothing is in memory: indexing reads what it names.

    Args:
        parts: (r, width) each, mapped files.
    """

    def __init__(self, parts: Sequence[Tensor]):
        import torch

        self.parts = [part for part in parts if len(part)] or list(parts[:1])
        lengths = torch.tensor([len(part) for part in self.parts])
        self.ends = lengths.cumsum(0)  # (parts,)
        self.begins = self.ends - lengths
        self.shape, self.dtype = (int(self.ends[-1]), self.parts[0].shape[1]), self.parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Rows of a slice without a step, or of row numbers (n,) or a mask (R,)."""
        import torch

        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            pieces = []
            first = int(torch.searchsorted(self.ends, start, right=True))
            for part, begin in zip(self.parts[first:], self.begins[first:].tolist(), strict=True):
                if begin >= stop:
                    break
                pieces.append(part[max(0, start - begin) : stop - begin])
            return pieces[0] if len(pieces) == 1 else torch.cat([self.parts[0][:0], *pieces])
        rows = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        if len(self.parts) == 1 or not len(rows):
            return self.parts[0][rows]
        number = torch.searchsorted(self.ends, rows, right=True)
        within = rows - self.begins[number]
        return torch.stack([self.parts[p][r] for p, r in zip(number.tolist(), within.tolist(), strict=True)])

    def split(self, size: int) -> Iterator[Tensor]:
        """`size` rows at a time."""
        return (self[at : at + size] for at in range(0, len(self), size))


@dataclass(frozen=True)
class Ragged:
    """Rows by sample: `values[offsets[i] : offsets[i + 1]]` belong to sample i, which may have none.

    Attributes:
        values: (R, width), in memory, or `MappedRows`, which is indexed alike; `values[:]` is in memory.
        offsets: (N + 1,), int64, not decreasing, from 0 to R.
    """

    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Tensor:
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    @property
    def counts(self) -> Tensor:
        """Rows of each sample (N,)."""
        return self.offsets.diff()

    def first(self) -> Ragged:
        """The first row of each sample that has rows."""
        has = self.counts > 0
        return Ragged(self.values[self.offsets[:-1][has]], counted(has.long()))

    def some(self, samples: Tensor) -> Ragged:
        """The rows of the named samples (n,), in their order."""
        import torch

        counts = self.counts[samples]
        first = torch.repeat_interleave(self.offsets[samples] - counted(counts)[:-1], counts)
        return Ragged(self.values[first + torch.arange(len(first))], counted(counts))


def counted(counts: Tensor) -> Tensor:
    """Rows of each sample (N,) -> offsets (N + 1,)."""
    import torch

    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.to(torch.int64).cumsum(0)])


@dataclass
class Shard:
    """The features of a stretch of the corpus.

    Attributes:
        features: by modality.
        problems: what could not be read, rows of the report.
    """

    ids: list[str]
    labels: list[str | None]
    features: dict[str, Ragged]
    problems: list[dict[str, str]] = field(default_factory=list)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    """Writes a shard under its name. Equal content gives equal bytes."""
    from safetensors.torch import save

    tensors = {}
    for name, rows in shard.features.items():
        tensors[name] = rows.values.contiguous()
        tensors[f"{name}.offsets"] = rows.offsets.contiguous()
    # one entry only: safetensors writes several in no fixed order
    about = {"ids": shard.ids, "labels": shard.labels, "problems": shard.problems}
    write_whole(shard_path(folder, number), save(tensors, {"samples": json.dumps(about, ensure_ascii=False)}))


def undamaged(path: Path) -> AbstractContextManager[None]:
    """Turns what reading a damaged shard raises into an `InputError`."""
    from safetensors import SafetensorError

    kinds = (OSError, ValueError, KeyError, TypeError, SafetensorError)
    return as_input_error(f"{path} is damaged: delete it and extract again ({{error}})", *kinds)


def read_header(path: Path) -> dict[str, Any]:
    """What a shard's file says of itself, without its tensors."""
    with undamaged(path):
        length = int.from_bytes(read_range(path, 0, 8), "little")
        whole = path.stat().st_size
        found: dict[str, Any] = json.loads(read_range(path, 8, min(whole, 8 + length)))
        if 8 + length + max(entry["data_offsets"][1] for name, entry in found.items() if name != "__metadata__") != whole:
            raise ValueError("its length is wrong")
        return found


def read_about(path: Path) -> dict[str, Any]:
    """Ids, labels and problems of a shard, without its tensors.

    Raises:
        InputError: it is damaged.
    """
    with undamaged(path):
        return json.loads(read_header(path)["__metadata__"]["samples"])


def create(folder: Path, index: Mapping[str, Any]) -> None:
    """Makes a cache with this index, or finds that the folder holds one with just this index.

    Several processes may call it at once: one of them makes it, the others compare.

    Raises:
        InputError: the folder holds a cache made with other settings; the line names the first that differs.
    """
    if on_disk(folder):
        make_folder(folder)
    if INDEX not in names_in(folder):
        write_once(folder / INDEX, index)
    check_same(folder, read_index(folder), index)


def write_once(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON where there is no file yet; of processes that begin at the same moment one does."""
    data = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    if on_disk(path):
        made_once(path, lambda part: write_whole(part, data))
    else:
        write_whole(path, data)


def check_same(place: Path, old: Any, new: Any) -> None:
    """An `InputError` that names the first difference between what a folder or file was made with and what this run has."""
    if difference := first_difference(old, json.loads(json.dumps(new))):
        key, before, now = difference
        raise InputError(
            f"{place} was made with {key} = {brief(before)}, this run has {brief(now)}: choose another place or delete it"
        )


def write_descriptions(folder: Path, places: Mapping[str, Path | dict[str, Any]]) -> None:
    """Keeps beside the features where their encoders are, and copies of Python files that define encoders.

    So that a run trained from the cache can say what its heads go on. Not part of the index: weights may be moved.
    """
    described = {}
    for modality, where in places.items():
        entry = {"folder": str(where)} if isinstance(where, Path) else dict(where)
        if "file" in entry:
            write_whole(folder / f"{modality}.py", Path(entry["file"]).read_bytes())
            entry["file"] = f"{modality}.py"
        described[modality] = entry
    data = (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode()
    with suppress(OSError):
        if (folder / ENCODERS).read_bytes() == data:  # another process may sweep up what is written beside a complete cache
            return
    write_whole(folder / ENCODERS, data)


def read_descriptions(folder: Path) -> dict[str, dict[str, Any]]:
    """What `write_descriptions` kept, by modality, with the path of a Python file absolute; empty for an older cache."""
    try:
        found: dict[str, dict[str, Any]] = json.loads((folder / ENCODERS).read_bytes())
    except (OSError, ValueError):
        return {}
    return {m: e | ({"file": str((folder / e["file"]).resolve())} if "file" in e else {}) for m, e in found.items()}


def brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """(dotted key, old, new) of the first difference between two JSON values; None if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(k for k in old if k not in new)]:
            found = first_difference(old.get(name), new.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    return None if old == new and type(old) is type(new) else (key, old, new)


def read_index(folder: Path) -> dict[str, Any]:
    """The index of the cache in `folder`.

    Raises:
        InputError: there is none, or it is of another version of the format.
    """
    none = f"no feature cache in {folder}: make one with `unialign-gen extract`"
    with reached(folder), as_input_error(none, FileNotFoundError):
        text = (folder / INDEX).read_bytes()
    with as_input_error(none, ValueError, KeyError, TypeError):
        index = json.loads(text)
        version = index["format"]
    if version != FORMAT:
        raise InputError(f"{folder} is a cache of format {version}, this version reads {FORMAT}: extract again")
    return index


def absent_shards(folder: Path, index: Mapping[str, Any]) -> int:
    """How many shards are not there yet."""
    there = names_in(folder)
    return sum(shard_path(folder, i).name not in there for i in range(index["shards"]))


class FeatureCache:
    """A complete cache. Features are mapped, not read; ids and labels are read when they are asked for.

    Attributes:
        index: what the features were made of and with.
        modalities: width of the features by modality.
    """

    def __init__(self, folder: Path, index: dict[str, Any]):
        self.folder, self.index = folder, index
        self.modalities = {name: int(encoder["dim"]) for name, encoder in index["encoders"].items()}
        self.paths = [shard_path(folder, i) for i in range(index["shards"])]

    @classmethod
    def open(cls, folder: str | Path) -> FeatureCache:
        """The cache in `folder`; one in a store is copied to the disk first, see `storage.copied`.

        Raises:
            InputError: there is none, it is not complete, or a shard is damaged.
        """
        path = place(folder)
        index = read_index(path)
        if absent := absent_shards(path, index):
            raise InputError(f"{path} is not complete: {absent} of {index['shards']} shards are to be done, extract again")
        if not on_disk(path):
            names = [shard_path(path, i).name for i in range(index["shards"])]
            names += [f for f in names_in(path) if f == ENCODERS or f.endswith(".py")]
            path = copied(path, names, json.dumps(index))
        found = cls(path, index)
        for shard in found.paths:
            read_header(shard)
        return found

    def abouts(self) -> Iterator[dict[str, Any]]:
        """Ids, labels and problems, shard by shard."""
        return map(read_about, self.paths)

    @cached_property
    def ids(self) -> list[str]:
        """Of the samples, in the order of the corpus."""
        return [name for about in self.abouts() for name in about["ids"]]

    @cached_property
    def labels(self) -> list[str | None]:
        """Of the samples, in the order of the corpus."""
        return [label for about in self.abouts() for label in about["labels"]]

    def __len__(self) -> int:
        return len(self.ids)

    def features(self, modality: str) -> Ragged:
        """All rows of a modality, in the dtype they are kept in, mapped.

        Raises:
            InputError: the cache does not have it, or a shard is damaged.
        """
        import torch
        from safetensors import safe_open

        if modality not in self.modalities:
            hint = near(modality, list(self.modalities))
            raise InputError(f"{self.folder} has no {modality}: it has {', '.join(self.modalities)}{hint}")
        counts, parts = [], []
        for path in self.paths:
            with undamaged(path), safe_open(path, "pt") as f:  # whose tensors are views of a mapped file
                counts.append(f.get_tensor(f"{modality}.offsets").diff())
                parts.append(f.get_tensor(modality))
        return Ragged(cast("Tensor", MappedRows(parts)), counted(torch.cat(counts)))

    def problems(self) -> list[dict[str, str]]:
        """Rows of the report about samples of the cache: `id`, `modality`, `path`, `reason`."""
        return [problem for about in self.abouts() for problem in about["problems"]]
