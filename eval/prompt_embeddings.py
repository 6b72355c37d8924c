"""Prompts of a corpus as unit embeddings, for every kind of prompt and any heads, from one pass of the encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unialign_gen.data.cache import Ragged, counted
from unialign_gen.errors import InputError
from unialign_gen.mixing import mix

from .embeddings import Embedded, Features, first, pooled
from .methods import head

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner

MODALITIES = ("text", "audio", "video", "image")


def parse_kinds(text: str) -> list[str]:
    """`text,audio,text+audio` -> its kinds, the modalities of each in one order.

    Raises:
        InputError: an unknown modality, one named twice, or a kind named twice.
    """
    found: list[str] = []
    for entry in text.split(","):
        parts = [p.strip() for p in entry.split("+")]
        unknown = [p for p in parts if p not in MODALITIES]
        if unknown or len(set(parts)) < len(parts):
            raise InputError(f"--prompts {entry.strip()!r}: join {', '.join(MODALITIES)} by +, each once")
        kind = "+".join(m for m in MODALITIES if m in parts)
        if kind in found:
            raise InputError(f"--prompts names {kind} twice")
        found.append(kind)
    return found


def needed(kinds: Sequence[str]) -> list[str]:
    """The modalities that some kind uses."""
    return [m for m in MODALITIES if any(m in kind.split("+") for kind in kinds)]


def frame_of(features: Features, frame: int) -> Ragged:
    """Features of pictures: the corpus' own, or, where a sample has none, those of its video's frame of this number."""
    images = features.features("image") if "image" in features.modalities else None
    videos = features.features("video") if "video" in features.modalities else None
    chosen: list[Tensor] = []
    counts = []
    for i in range(len(features.ids)):
        own = images[i][:1] if images is not None else None
        if own is None or not len(own):
            own = videos[i][frame : frame + 1] if videos is not None else torch.zeros(0, 0)
        counts.append(len(own))
        if len(own):
            chosen.append(own)
    if not chosen:
        raise InputError("no sample has a picture or a video to draw again")
    return Ragged(torch.cat(chosen), counted(torch.tensor(counts)))


def modality(features: Features, name: str, run: Path | None, aligner: Aligner | None, frame: int) -> Embedded:
    """Unit embeddings (N, d) of one modality: the first caption, the sound, the mean over a video's frames, one picture."""
    made: nn.Module = head(name, run, aligner)
    if name == "text":
        return first(features.features(name), made)
    return pooled(frame_of(features, frame) if name == "image" else features.features(name), made)


def embed(
    features: Features, kinds: Sequence[str], run: Path | None, aligner: Aligner | None, frame: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Unit embeddings (N, d) by kind, mixed with equal weights on the sphere, and which samples have all of it (N,)."""
    parts: Mapping[str, Embedded] = {m: modality(features, m, run, aligner, frame) for m in needed(kinds)}
    has = torch.stack([p.has for p in parts.values()]).all(0)
    found = {}
    for kind in kinds:
        names = kind.split("+")
        z = torch.zeros_like(parts[names[0]].z)
        z[has] = mix([parts[m].z[has] for m in names]) if len(names) > 1 else parts[names[0]].z[has]
        found[kind] = z
    return found, has
