"""Which checkpoints there are, where they lie, and how one becomes a pipeline."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SHIPPED = ("starter",)


def shipped_folder() -> Path:
    """The folder of the checkpoints that come with the package."""
    return Path(str(resources.files("unialign_gen.checkpoints")))


def find(checkpoint: str | Path) -> Path:
    """The folder of a checkpoint, by its name or path.

    Raises:
        InputError: neither a shipped checkpoint nor a folder with a `model_index.json`.
    """
    folder = shipped_folder() / checkpoint if str(checkpoint) in SHIPPED else Path(checkpoint).expanduser()
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"unknown checkpoint {str(checkpoint)!r}: give {' or '.join(SHIPPED)}, or a folder with a model_index.json"
        )
    return folder


def load_pipeline(checkpoint: str | Path = "starter", device: str = "cpu", torch_dtype: Any = None) -> DiffusionPipeline:
    """See `unialign_gen.load`."""
    folder = find(checkpoint)
    kind = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    from . import pipelines

    known = {name: getattr(pipelines, name) for name in pipelines.__all__ if name.endswith("Pipeline")}
    if kind not in known:
        raise InputError(f"{folder} holds a {kind}, which is none of {', '.join(known)}")
    import torch

    try:
        pipeline = known[kind].from_pretrained(folder, torch_dtype=torch_dtype or torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return pipeline.to(device)


def describe() -> list[dict[str, Any]]:
    """A row for each shipped checkpoint: name, folder, size on this disk in bytes, and what its parts are."""
    rows = []
    for name in SHIPPED:
        folder = shipped_folder() / name
        index = folder / "model_index.json"
        parts = json.loads(index.read_text()) if index.is_file() else {}
        rows.append(
            {
                "name": name,
                "on_disk": index.is_file(),
                "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0,
                "pipeline": parts.get("_class_name"),
                "folder": str(folder),
            }
        )
    return rows
