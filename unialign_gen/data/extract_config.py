"""The configuration of `unialign-gen extract`, and which encoders it names."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import Count, Flag, Options, Positive, schema
from ..errors import InputError
from ..request import MODALITIES
from .sources import CorpusConfig
from .storage import Location

if TYPE_CHECKING:
    import torch

    from ..encoders.base import Encoder
    from .cache import FeatureCache

LOCATION_KEYS = ("source", "checkpoint", "revision", "head", "licence", "accept_license")  # no part of what an encoder is
FILE_KEYS = ("checkpoint", "file", "head", "source")  # hold paths; a source may be a repository's name too
PACKAGE = Path(__file__).parent.parent


def cores() -> int:
    """Processor cores for this process, of those that it may use and its fellows on this machine share."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@schema
class ExtractConfig:
    """What `unialign-gen extract` does.

    Attributes:
        encoders: by modality, a checkpoint's name, a folder (of a checkpoint or of one encoder), a model by name
            (`open_clip:ViT-H-14/laion2b_s32b_b79k`, `hf:FOLDER_OR_REPOSITORY`, `timm:MODEL`), or a description, in which
            `file` may name the Python file that defines it.
            `video` falls back on the checkpoint's image encoder: a row for each frame. `text` gives a row for each caption.
        out: folder of the cache, on the disk or in a store.
        sources: in place of what the named checkpoints say, `image` or `text` to a folder, `audio` to a weight file, and so on.
        accept_license: use encoders whose licence is not permissive.
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
    encoders: dict[str, str | Options]
    out: Location
    frames: Count = 8
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    store: Literal["float32", "float16"] = "float32"
    device: str = "cpu"
    batch_size: Count | dict[str, Count] | None = None
    shard_size: Count = 512
    workers: Count = field(default_factory=cores)
    patience: Positive = 300.0
    sources: dict[str, str] = field(default_factory=dict)
    accept_license: Flag = False

    def __post_init__(self) -> None:
        if not self.encoders:
            raise InputError("encoders is empty: name at least one modality")
        parts = {part for modality in self.encoders for part in parts_of(modality)}
        unused = sorted({name.partition("_")[0] for name in self.sources} - parts)
        if unused:
            raise InputError(f"sources.{unused[0]}: no encoder here is of it, but of {', '.join(self.encoders)}")
        sizes = self.batch_size if isinstance(self.batch_size, dict) else {}
        if unknown := sorted(sizes.keys() - {*self.encoders, *MODALITIES}):
            raise InputError(f"batch_size.{unknown[0]}: no encoder here is of it, but of {', '.join(self.encoders)}")

    def batch(self, modality: str) -> int:
        given = self.batch_size.get(modality) if isinstance(self.batch_size, dict) else self.batch_size
        return given or (4 if self.device.startswith("cpu") else 64)


def open_encoders(config: ExtractConfig) -> dict[str, Encoder]:
    """The frozen encoders by modality; modalities that name the same one share it.

    Raises:
        InputError: one cannot be had.
    """
    import torch

    found = places(config)
    different = {str(place): place for place in found.values()}
    opened = {key: open_encoder(place, getattr(torch, config.dtype)) for key, place in different.items()}
    return {modality: opened[str(place)] for modality, place in found.items()}


def places(config: ExtractConfig) -> dict[str, Path | dict[str, Any]]:
    """Where each modality's encoder is: a folder, or a description.

    Raises:
        InputError: one is not there, or a source is for none of them.
    """
    from ..loading import PUBLISHED

    taken = {part for modality, entry in config.encoders.items() if entry in PUBLISHED for part in parts_of(modality)}
    if left := sorted(name for name in config.sources if name.partition("_")[0] not in taken):
        raise InputError(f"sources.{left[0]}: no encoder here takes it: sources are for parts of {', '.join(PUBLISHED)}")
    accept = config.accept_license
    return {modality: locate(modality, entry, config.sources, accept) for modality, entry in config.encoders.items()}


def open_encoder(place: Path | dict[str, Any], dtype: torch.dtype) -> Encoder:
    """The encoder in a folder or of a description, frozen.

    Raises:
        InputError: it cannot be had.
    """
    from ..encoders import load_encoder
    from ..encoders.registry import NOWHERE, register_file

    if isinstance(place, Path):
        return load_encoder(place, dtype)
    if "file" in place:
        register_file(str(place.get("encoder")), place["file"])
    return load_encoder(NOWHERE, dtype, {key: value for key, value in place.items() if key != "file"})


def parts_of(modality: str) -> tuple[str, ...]:
    """The parts of a checkpoint that read a modality, the best first: frames go through the image encoder."""
    return (modality, "image") if modality == "video" else (modality,)


def locate(
    modality: str, entry: str | Mapping[str, Any], sources: Mapping[str, str] | None = None, accept_license: bool = False
) -> Path | dict[str, Any]:
    """The folder of a modality's encoder, or its description, in which paths are absolute.

    Args:
        entry: a checkpoint's name or folder, an encoder's folder, `LIBRARY:NAME`, or a description.
        sources: of a published checkpoint's parts, in place of those that it names.

    Raises:
        InputError: no such checkpoint or folder, or it has no encoder for the modality.
    """
    from ..encoders.registry import NAMED, named
    from ..loading import PUBLISHED, description, find

    if not isinstance(entry, str) or named(entry):
        made = {"encoder": entry} if isinstance(entry, str) else dict(entry)
        kind = str(made.get("encoder")).partition(":")[0]
        if kind in NAMED:  # whose models are of several modalities; PE-AV alone has one for video
            made = {"modality": "image" if modality == "video" and kind != "pe_av" else modality} | made
        if accept_license and made.get("licence"):
            made["accept_license"] = made["licence"]
        return made | {key: absolute(made[key], key) for key in FILE_KEYS if made.get(key)}
    folder = Path(entry).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve()
    root = find(entry)
    if entry in PUBLISHED:
        encoders = description.replace_sources(description.read(root), sources, accept_license)["encoders"]
        for part in parts_of(modality):
            found = encoders.get(part, {})
            if found.get("source") or found.get("checkpoint") or named(str(found.get("encoder"))):
                return description.config_of(found)
        raise InputError(
            f"encoders.{modality}: {entry} names no source for it: give one (--source {modality}=...), or describe the encoder "
            "instead (encoder: KIND, ...)"
        )
    for part in parts_of(modality):
        if (root / "aligner" / part / "config.json").is_file():
            return (root / "aligner" / part).resolve()
    raise InputError(f"encoders.{modality}: {entry} has no encoder for it")


def absolute(value: str, key: str) -> str:
    """A path that does not depend on the current folder; a repository's name is left as it is."""
    path = Path(value).expanduser()
    return str(path.resolve()) if key != "source" or path.exists() else value


def check_encoder(cache: FeatureCache, modality: str, head: Path) -> None:
    """Refuses features of another encoder than the one that was trained with the head in a folder, if one was.

    Raises:
        InputError: they are of another.
    """
    import torch

    from ..heads import encoder_beside

    if not (head / "model.safetensors").is_file():
        return
    encoder = encoder_beside(head, getattr(torch, cache.index["dtype"]))
    if encoder is None or digest(encoder) != cache.index["encoders"][modality]["digest"]:
        raise InputError(
            f"{head} was trained with its encoder, and {cache.folder} holds {modality} of another one: extract with "
            f"encoders.{modality} {head.resolve()}"
        )


def describe(encoder: Encoder) -> dict[str, Any]:
    """An encoder in a cache's index: its configuration without where it came from, its width, a digest of what it is."""
    config = {k: v for k, v in encoder.config.items() if k not in LOCATION_KEYS}
    return {"config": config, "dim": encoder.dim, "rate": getattr(encoder, "rate", None), "digest": digest(encoder)}


def digest(encoder: torch.nn.Module) -> str:
    """SHA-256 of the weights, names, dtypes, shapes and values, and of the Python file of an encoder from outside the package.

    For what the package itself defines its version stands in the index.
    """
    import torch

    total = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    file = inspect.getsourcefile(type(encoder).forward)
    if file is not None and "encoder" in getattr(encoder, "config", ()) and not Path(file).is_relative_to(PACKAGE):
        total.update(Path(file).read_bytes())
    return total.hexdigest()
