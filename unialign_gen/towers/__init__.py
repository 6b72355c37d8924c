"""Frozen backbones, one a file. A tower turns prepared input into features; a head turns features into unit embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from .base import Tower


def _efficientnet(folder: Path, config: dict[str, Any]) -> Tower:
    from .efficientnet import EfficientNetLite

    return EfficientNetLite(config["variant"], config["grid"])


def _minilm(folder: Path, config: dict[str, Any]) -> Tower:
    from .minilm import MiniLM

    return MiniLM(folder / "tokenizer.json")


def _aisfx(folder: Path, config: dict[str, Any]) -> Tower:
    from .aisfx import AiSFX

    return AiSFX()


TOWERS: dict[str, Callable[[Path, dict[str, Any]], Tower]] = {
    "efficientnet": _efficientnet,
    "minilm": _minilm,
    "aisfx": _aisfx,
}


def save_tower(tower: Tower, folder: Path) -> None:
    """Writes `config.json`, `model.safetensors` in the tower's dtype, and the files that belong to it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tower.config, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in tower.state_dict().items()}, folder / "model.safetensors")
    for name, text in tower.extra_files().items():
        (folder / name).write_text(text, "utf-8")


def load_tower(folder: Path) -> Tower:
    """The tower kept in `folder`, frozen, in evaluation mode, fp32.

    Raises:
        InputError: the folder holds no tower, one of an unknown kind, or weights that do not fit it.
    """
    import torch
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "config.json").read_text())
        build = TOWERS[config["tower"]]
        state = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no tower in {folder}: {error}; known kinds are {', '.join(TOWERS)}") from error
    with torch.device("meta"):  # no time spent on weights that are about to be replaced
        tower = build(folder, config)
    missing, unexpected = tower.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=False, assign=True
    )
    if missing or unexpected:
        raise InputError(f"weights in {folder} do not fit: missing {missing[:3]}, unknown {unexpected[:3]}")
    tower.compute_buffers()
    return tower.eval().requires_grad_(False)
