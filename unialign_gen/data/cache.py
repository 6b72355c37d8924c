"""Features of frozen encoders, kept in a folder: computed once, read by every training run.

    index.json                  what the features were made of and with, and how many shards there are
    shard-00000.safetensors     for each modality `NAME` (R, width) and `NAME.offsets` (N + 1), int64; ids, labels and what
                                could not be read are in its metadata
    report.jsonl                missing and broken files, written when the last shard is there
    encoders.json, NAME.py      where the encoders are, and those that a Python file of one's own defines

A shard belongs to a fixed stretch of the corpus, whoever computes it, and appears under its name only when it is whole.
"""

from __future__ import annotations

import difflib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..output import make_folder

if TYPE_CHECKING:
    from torch import Tensor

INDEX, REPORT, ENCODERS = "index.json", "report.jsonl", "encoders.json"
FORMAT = 1


@dataclass(frozen=True)
class Ragged:
    """Rows by sample: `values[offsets[i] : offsets[i + 1]]` belong to sample i, which may have none.

    Attributes:
        values: (R, width).
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


def part_of(path: Path) -> Path:
    """Where a file is written before it gets its name; no two writers have the same."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file in one step that survives a crash: it is either as before or complete."""
    part = part_of(path)
    with part.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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


def read_about(path: Path) -> dict[str, Any]:
    """Ids, labels and problems of a shard, without its tensors.

    Raises:
        InputError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as f:
            return json.loads(f.metadata()["samples"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{path} is damaged: delete it and extract again ({error})") from error


def create(folder: Path, index: Mapping[str, Any]) -> None:
    """Makes a cache with this index, or finds that the folder holds one with just this index.

    Several processes may call it at once: one of them makes it, the others compare.

    Raises:
        InputError: the folder holds a cache made with other settings; the line names the first that differs.
    """
    make_folder(folder)
    path = folder / INDEX
    if not path.exists():
        part = part_of(path)
        part.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")
        try:
            os.link(part, path)  # fails where there is one already, in one step
            part.unlink()
        except FileExistsError:
            part.unlink()
        except OSError:  # a disk without hard links: of processes that begin at the same moment the last one's stays
            part.replace(path)
    difference = first_difference(read_index(folder), json.loads(json.dumps(index)))
    if difference is not None:
        key, old, new = difference
        raise InputError(
            f"{folder} was made with {key} = {brief(old)}, this run has {brief(new)}: choose another folder or delete it"
        )


def write_descriptions(folder: Path, places: Mapping[str, Path | dict[str, Any]]) -> None:
    """Keeps beside the features where their encoders are, and copies of Python files that define encoders.

    So that a run trained from the cache can say what its heads go on. Not part of the index: weights may be moved.
    """
    described = {}
    for modality, place in places.items():
        entry = {"folder": str(place)} if isinstance(place, Path) else dict(place)
        if "file" in entry:
            write_whole(folder / f"{modality}.py", Path(entry["file"]).read_bytes())
            entry["file"] = f"{modality}.py"
        described[modality] = entry
    write_whole(folder / ENCODERS, (json.dumps(described, indent=2, ensure_ascii=False) + "\n").encode())


def read_descriptions(folder: Path) -> dict[str, dict[str, Any]]:
    """What `write_descriptions` kept, by modality, with the path of a Python file absolute; empty for an older cache."""
    try:
        found: dict[str, dict[str, Any]] = json.loads((folder / ENCODERS).read_text("utf-8"))
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
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        version = index["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no feature cache in {folder}: make one with `unialign-gen extract`") from error
    if version != FORMAT:
        raise InputError(f"{folder} is a cache of format {version}, this version reads {FORMAT}: extract again")
    return index


class FeatureCache:
    """A complete cache, read whole.

    Attributes:
        index: what the features were made of and with.
        ids, labels: of the samples, in the order of the corpus.
        modalities: width of the features by modality.
    """

    def __init__(self, folder: Path, index: dict[str, Any]):
        self.folder, self.index = folder, index
        self.modalities = {name: int(encoder["dim"]) for name, encoder in index["encoders"].items()}
        self.paths = [shard_path(folder, i) for i in range(index["shards"])]
        self.ids: list[str] = []
        self.labels: list[str | None] = []
        for path in self.paths:
            about = read_about(path)
            self.ids += about["ids"]
            self.labels += about["labels"]

    @classmethod
    def open(cls, folder: str | Path) -> FeatureCache:
        """The cache in `folder`.

        Raises:
            InputError: there is none, it is not complete, or a shard is damaged.
        """
        path = Path(folder).expanduser()
        index = read_index(path)
        absent = sum(not shard_path(path, i).is_file() for i in range(index["shards"]))
        if absent:
            raise InputError(f"{path} is not complete: {absent} of {index['shards']} shards are to be done, extract again")
        return cls(path, index)

    def __len__(self) -> int:
        return len(self.ids)

    def features(self, modality: str) -> Ragged:
        """All rows of a modality, in the dtype they are kept in.

        Raises:
            InputError: the cache does not have it, or a shard is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if modality not in self.modalities:
            near = difflib.get_close_matches(modality, self.modalities, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise InputError(f"{self.folder} has no {modality}: it has {', '.join(self.modalities)}{hint}")
        import torch

        counts, place = [], 0
        values: Tensor | None = None
        try:
            for path in self.paths:  # into one block, since twice the features may not fit
                with safe_open(path, "pt") as f:
                    counts.append(f.get_tensor(f"{modality}.offsets").diff())
            offsets = counted(torch.cat(counts))
            for path in self.paths:
                with safe_open(path, "pt") as f:
                    part = f.get_tensor(modality)
                if values is None:
                    values = part.new_empty(int(offsets[-1]), part.shape[1])
                values[place : place + len(part)] = part
                place += len(part)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is damaged: delete it and extract again ({error})") from error
        assert values is not None  # a cache has at least one shard
        return Ragged(values, offsets)

    def problems(self) -> list[dict[str, str]]:
        """Rows of the report about samples of the cache: `id`, `modality`, `path`, `reason`."""
        return [problem for path in self.paths for problem in read_about(path)["problems"]]
