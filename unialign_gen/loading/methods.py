"""A method: trained heads to put on frozen encoders, by a name, once or with several trainings of it.

A run is a folder of heads, or a released checkpoint of VAST, GRAM or PMRL, whose heads go with its own encoders' features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import InputError
from ..heads import heads_in, load_head
from ..notes import note

if TYPE_CHECKING:
    from ..aligner import Aligner

OWN = "checkpoint"  # the name of the heads that the checkpoint itself has


@dataclass(frozen=True)
class Method:
    """Heads by name; `runs` are those of trainings that differ in their seed, or None for the checkpoint's own heads."""

    name: str
    runs: tuple[Path | None, ...]


def parse(entries: Sequence[str] | None) -> list[Method]:
    """`NAME=FOLDER`, or `NAME=FOLDER,FOLDER,FOLDER` for trainings with several seeds; `checkpoint` alone, or no
    entry, for its own heads.

    Raises:
        InputError: an entry of another form, a name given twice, or a folder without heads.
    """
    if not entries:
        return [Method(OWN, (None,))]
    found: list[Method] = []
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name or "/" in name or (not equals and name != OWN) or (equals and not value):
            raise InputError(f"--method {entry!r}: write NAME=FOLDER of a training run, or {OWN}")
        if name in [m.name for m in found]:
            raise InputError(f"--method {name} is given twice: trainings of one method go as {name}=FOLDER,FOLDER")
        runs: tuple[Path | None, ...] = tuple(heads_folder(Path(v)) for v in value.split(",")) if equals else (None,)
        found.append(Method(name, runs))
    return found


def heads_folder(run: Path) -> Path:
    """Where a training run, or a folder of heads itself, has its heads, one folder a modality.

    Raises:
        InputError: nowhere.
    """
    run = run.expanduser()
    if run.is_file():
        released(run)
        return run
    return next(iter(heads_in(run).values())).parent


def head(kind: str, run: Path | None, aligner: Aligner | None) -> nn.Module:
    """The head of a modality: the run's; where it has none, the checkpoint's own; an identity where the encoder needs none.

    Video frames go through the image head unless there is one for video.
    """
    if run is not None and run.is_file():
        from ..encoders.vast import contrastive_head

        weights = released(run)
        if kind not in weights:
            raise InputError(f"{run} has no head for {kind}: it has {', '.join(weights)}")
        return contrastive_head(weights[kind].float())
    if (folder := head_folder(kind, run)) is not None:
        return load_head(folder)
    if aligner is None:
        return nn.Identity()
    return own_head("image" if kind == "video" else kind, aligner)


def head_folder(kind: str, run: Path | None) -> Path | None:
    """Where a run has the head that a modality goes through, if it has one: its own, of video frames else the pictures'."""
    names = (kind, "image") if kind == "video" else (kind,)
    return next((run / name for name in names if run is not None and (run / name / "head.json").is_file()), None)


def tell_borrowed(methods: Sequence[Method], modalities: Sequence[str], aligner: Aligner | None) -> None:
    """Notes the modalities that a method has no heads for, and what stands in, see `head`."""
    instead = (
        "the features are used as they are" if aligner is None else "the checkpoint's own, which it did not train, stand in"
    )
    for method in methods:
        folders = [run for run in method.runs if run is not None and run.is_dir()]
        if lacking := [kind for kind in modalities if any(head_folder(kind, run) is None for run in folders)]:
            note("borrowed heads", f"{method.name} has no heads for {', '.join(lacking)}: {instead}")


@lru_cache(maxsize=4)
def released(path: Path) -> dict[str, Tensor]:
    """The weights (512, width) of a released checkpoint's contrastive heads by modality.

    Raises:
        InputError: the file is no such checkpoint.
    """
    from ..encoders.published import read_state
    from ..encoders.vast import split_checkpoint

    return {kind: head["weight"] for kind, (_, head) in split_checkpoint(read_state(path)).parts.items()}


def own_head(kind: str, aligner: Aligner) -> nn.Module:
    """The checkpoint's head of a modality, without loading its encoder."""
    if kind in aligner.parts:
        return aligner.part(kind).head
    if kind in aligner.configs:
        folder: Any = aligner.configs[kind].get("head")
        return load_head(Path(folder)) if folder else nn.Identity()
    if aligner.folder is not None and (aligner.folder / kind / "head.json").is_file():
        return load_head(aligner.folder / kind)
    return nn.Identity()


def digest(run: Path | None) -> str:
    """Twelve hexadecimal digits of a run's heads: their files' contents."""
    if run is None:
        return OWN
    total = hashlib.sha256()
    if run.is_file():
        for kind, weight in released(run).items():
            total.update(kind.encode() + weight.float().contiguous().numpy().tobytes())
        return total.hexdigest()[:12]
    for path in sorted(run.glob("*/head.*")):
        total.update(f"{path.parent.name}/{path.name}".encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:12]
