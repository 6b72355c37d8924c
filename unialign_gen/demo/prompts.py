"""A request's prompts: checked, decoded, and embedded one by one, so that each can be mixed, kept and explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..mixing import Method, mix
from ..settings_png import Prompt, pack
from .decode_worker import DecodeWorker, Media
from .limits import Limits, decimal, words

FILES = ("audio", "video", "image")


@dataclass
class Part:
    """One input of a request: words, a decoded file, or the vector that a PNG kept of a file."""

    kind: str
    name: str
    weight: float
    media: Media | None = None
    kept: Tensor | None = None

    def embed(self, pipeline: Any) -> Tensor:
        """Its unit embedding (d,), as it was encoded."""
        if self.kept is not None:
            if self.kept.shape != (pipeline.aligner.embed_dim,):
                raise InputError(f"{self.name} was kept for another model: choose that model, or give the file again")
            return self.kept
        return pipeline.aligner.embed(self.kind, [self.name if self.media is None else self.media.value])[0]

    def prompt(self, vector: Tensor) -> Prompt:
        """For a picture's settings."""
        return Prompt(self.kind, self.name, self.weight, "" if self.kind == "text" else pack(vector))  # type: ignore[arg-type]


def tiles(
    decode_worker: DecodeWorker,
    limits: Limits,
    text: Any,
    files: dict[str, Any],
    weights: dict[str, Any],
    kept: Sequence[Prompt],
    rate: int,
) -> list[Part]:
    """The tiles of a request that hold something, in the order of the library's arguments.

    Args:
        files, weights: by kind. kept: what a PNG restored; a tile that is filled takes its place.

    Raises:
        InputError: nothing given, or something that cannot be used.
    """
    parts = []
    said = words(text, "text", limits.text)
    if said:
        parts.append(Part("text", said, weight_of(weights, "text", limits)))
    stored = {p.kind: p for p in kept if p.kind != "text"}
    for kind in FILES:
        if files.get(kind) is not None:
            weight = weight_of(weights, kind, limits)
            media = decode_worker.decode(kind, upload(files[kind], kind), rate)
            parts.append(Part(kind, media.name, weight, media))
        elif kind in stored:
            weight = weight_of(weights, kind, limits)
            parts.append(Part(kind, stored[kind].value, weight, kept=stored[kind].vector()))
    if not parts:
        raise InputError("nothing to draw: write a prompt, or add a sound, a video or a picture")
    return parts


def weight_of(weights: dict[str, Any], kind: str, limits: Limits) -> float:
    return decimal(weights.get(kind, 1.0), f"the weight of {kind}", -limits.weight, limits.weight)


def upload(path: Any, name: str) -> str:
    """The path of an upload, which the page's file components have checked to be one."""
    if not isinstance(path, str | Path):
        raise InputError(f"{name} must be a file")
    return str(path)


def method_for(asked: str, parts: Sequence[Part]) -> Method:
    """`lerp`; for `slerp` its own form for two prompts, the spherical mean for more, nothing for one."""
    if asked == "lerp" or len(parts) == 1:
        return "lerp"
    return "slerp" if len(parts) == 2 else "spherical_mean"


@dataclass
class Embedded:
    """Unit vectors (d,): each part's as it was encoded and as it is drawn, and their mix."""

    own: list[Tensor]
    drawn: list[Tensor]
    mixed: Tensor


def embed_parts(pipeline: Any, parts: Sequence[Part], method: Method, strength: float | None = None) -> Embedded:
    """The parts' embeddings; `strength` is that of the model's prior, its own if None."""
    from ..pipelines.prior import move_to_known

    own = [part.embed(pipeline) for part in parts]
    move = move_to_known(pipeline.prior, strength)
    stacked = torch.stack([v.to(own[0]) for v in own])
    drawn = list(stacked if move is None else move(stacked))
    return Embedded(own, drawn, mix(drawn, [p.weight for p in parts], method))


def nearest(table: Any, vector: Tensor, count: int = 6) -> list[tuple[str, float]]:
    """The concepts nearest to a unit vector (d,), with the table's cosines; none without a table of this width."""
    if table is None or table.points.shape[1] != len(vector):
        return []
    cosines = table.cosines(vector.cpu().unsqueeze(0))[0]
    best = cosines.topk(min(count, len(cosines)))
    return [(table.names[i], float(v)) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
