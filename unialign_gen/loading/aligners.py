"""Encoders and heads of a checkpoint without its decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..deprecated import current_keys
from ..errors import InputError, as_input_error
from . import description
from .devices import dtype_of
from .folders import PUBLISHED, find

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..aligner import Aligner


def open_aligner(
    checkpoint: str | Path, sources: Mapping[str, str] | None = None, accept_license: bool = False, dtype: Any = None
) -> Aligner:
    """Encoders and heads of a checkpoint; each loads when its modality is first asked for.

    >>> open_aligner("starter").embed_dim
    256

    Raises:
        InputError: no such checkpoint, or sources that do not fit it.
    """
    folder = find(checkpoint)
    if str(checkpoint) in PUBLISHED:
        described = description.replace_sources(description.read(folder), sources, accept_license)
        return described_aligner(described, dtype_of(dtype))
    refuse_sources(checkpoint, sources)
    return folder_aligner(folder, dtype_of(dtype))


def folder_aligner(folder: Path, dtype: torch.dtype) -> Aligner:
    from ..aligner import Aligner

    return Aligner.from_pretrained(folder / "aligner", dtype=dtype)


def described_aligner(described: Mapping[str, Any], dtype: torch.dtype) -> Aligner:
    """The encoders of a description."""
    from ..aligner import Aligner

    encoders = description.own_encoders(described)
    made = Aligner(described["embed_dim"], list(encoders))
    made.configs = encoders
    made.set_dtype(dtype)
    return made.eval()


def frozen_head(checkpoint: str, kind: str) -> tuple[nn.Module, int]:
    """A modality's head alone, without its encoder, and the width of the space; the identity where the encoder defines it.

    >>> frozen_head("stable-unclip", "image")
    (Identity(), 1024)

    Raises:
        InputError: no such checkpoint, or it does not know the modality.
    """
    from torch import nn

    from ..heads import load_head

    folder = find(checkpoint)
    kind = "image" if kind == "video" else kind  # frames go through the image encoder
    if checkpoint in PUBLISHED:
        described = description.read(folder)
        head, known, dim = described["encoders"].get(kind, {}).get("head"), described["encoders"], described["embed_dim"]
    else:
        with as_input_error(f"{folder} has no aligner, which says what embeddings are", OSError):
            config = current_keys(json.loads((folder / "aligner" / "config.json").read_text()))
        place = folder / "aligner" / kind
        head, known, dim = place if (place / "head.json").is_file() else None, config["encoders"], config["embed_dim"]
    if kind not in known:
        raise InputError(f"{checkpoint} has no {kind} encoder: it knows {', '.join(known)}")
    return (load_head(Path(head)) if head else nn.Identity()), int(dim)


def refuse_sources(checkpoint: str | Path, sources: Mapping[str, str] | None) -> None:
    """Sources mean something for published checkpoints only."""
    if sources:
        raise InputError(f"{checkpoint} is complete: sources are for {', '.join(PUBLISHED)}")
