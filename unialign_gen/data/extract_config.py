"""The configuration of `unialign-gen extract`, and which encoders it names."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from .sources import CorpusConfig

if TYPE_CHECKING:
    import torch

    from ..encoders.base import Encoder

WHEREABOUTS = ("source", "checkpoint", "revision", "head", "licence", "accept_license")


def cores() -> int:
    """Processor cores for this process, of those that it may use and its fellows on this machine share."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@dataclass
class ExtractConfig:
    """What `unialign-gen extract` does.

    Attributes:
        encoders: by modality, a checkpoint's name, a folder (of a checkpoint or of one encoder), or a description,
            in which `file` may name the Python file that defines it.
            `video` falls back on the checkpoint's image encoder: a row for each frame. `text` gives a row for each caption.
        out: folder of the cache.
        frames: of a video.
        dtype: that the encoders compute in.
        store: dtype of the features on disk.
        device: `cpu`, `cuda` (with several processes each takes its own), `cuda:1` ...
        batch_size: pictures, sounds or texts that an encoder sees at once; a number, or one for each modality. By default 4 on
            a processor, whose memory is the limit, and 64 elsewhere.
        shard_size: samples in a file of features.
        workers: threads that decode; by default the processor cores, shared among the processes of a machine.
        patience: seconds after which a file is given up as broken.
    """

    corpus: CorpusConfig
    encoders: dict[str, str | dict[str, Any]]
    out: Path
    frames: int = 8
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    store: Literal["float32", "float16"] = "float32"
    device: str = "cpu"
    batch_size: int | dict[str, int] | None = None
    shard_size: int = 512
    workers: int = field(default_factory=cores)
    patience: float = 300.0

    def __post_init__(self) -> None:
        if not self.encoders:
            raise InputError("encoders is empty: name at least one modality")
        sizes = self.batch_size.values() if isinstance(self.batch_size, dict) else [self.batch_size or 1]
        if self.batch_size == 0 or min(sizes, default=1) < 1:
            raise InputError("batch_size must be at least 1")
        for name, value in [("frames", self.frames), ("shard_size", self.shard_size), ("workers", self.workers)]:
            if value < 1:
                raise InputError(f"{name} is {value}: at least 1")

    def batch(self, modality: str) -> int:
        given = self.batch_size.get(modality) if isinstance(self.batch_size, dict) else self.batch_size
        return given or (4 if self.device.startswith("cpu") else 64)


def open_encoders(config: ExtractConfig) -> dict[str, Encoder]:
    """The frozen encoders by modality; modalities that name the same one share it.

    Raises:
        InputError: one cannot be had.
    """
    import torch

    dtype = getattr(torch, config.dtype)
    opened: dict[str, Encoder] = {}
    encoders = {}
    for modality, entry in config.encoders.items():
        place = entry if isinstance(entry, dict) else locate(modality, entry)
        key = str(place)
        if key not in opened:
            opened[key] = load(place, dtype)
        encoders[modality] = opened[key]
    return encoders


def load(place: Path | dict[str, Any], dtype: torch.dtype) -> Encoder:
    from ..encoders import load_encoder
    from ..encoders.registry import NOWHERE, register_file

    if isinstance(place, dict) and "file" in place:
        place = {**place}
        register_file(str(place.get("encoder")), place.pop("file"))
    return load_encoder(NOWHERE, dtype, place) if isinstance(place, dict) else load_encoder(place, dtype)


def locate(modality: str, name: str) -> Path | dict[str, Any]:
    """The folder of a modality's encoder, or its description where a published checkpoint has one.

    Raises:
        InputError: no such checkpoint or folder, or it has no encoder for the modality.
    """
    from .. import published
    from ..checkpoint import PUBLISHED, find

    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    kinds = (modality, "image") if modality == "video" else (modality,)
    root = find(name)
    if name in PUBLISHED:
        entries = published.read(root)["encoders"]
        for kind in kinds:
            if entries.get(kind, {}).get("source"):
                return {k: v for k, v in entries[kind].items() if v is not None}
        raise InputError(
            f"encoders.{modality}: {name} names no source for it, describe the encoder instead (encoder: KIND, ...)"
        )
    for kind in kinds:
        if (root / "aligner" / kind / "config.json").is_file():
            return root / "aligner" / kind
    raise InputError(f"encoders.{modality}: {name} has no encoder for it")


def describe(encoder: Encoder) -> dict[str, Any]:
    """An encoder in a cache's index: its configuration without where it came from, its width, a digest of its weights."""
    told = {k: v for k, v in encoder.config.items() if k not in WHEREABOUTS}
    return {"config": told, "dim": encoder.dim, "rate": getattr(encoder, "rate", None), "digest": digest(encoder)}


def digest(encoder: Encoder) -> str:
    """SHA-256 of the weights: names, dtypes, shapes and values."""
    import torch

    total = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
