"""A checkpoint's named concepts as points of its space: the nearest ones say what a prompt was understood as."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import InputError


@dataclass
class ConceptTable:
    """Names, and the unit mean embedding of each one's training pictures (concepts, d)."""

    names: list[str]
    points: Tensor

    @classmethod
    def from_checkpoint(cls, folder: Path) -> ConceptTable:
        """The table that lies in a checkpoint's folder.

        Raises:
            InputError: there is none.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            names = json.loads((folder / "concepts.json").read_text())
            points = load_file(folder / "concepts.safetensors")["points"].float()
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(f"no concept table in {folder}") from error
        return cls(names, points)

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        (folder / "concepts.json").write_text(json.dumps(self.names, indent=1) + "\n")
        save_file({"points": self.points.half().contiguous()}, folder / "concepts.safetensors")

    def nearest(self, embeddings: Tensor, k: int = 5) -> list[list[str]]:
        """The k nearest concepts by cosine of each embedding (B, d), nearest first."""
        order = (embeddings @ self.points.T).topk(k, dim=1).indices.tolist()
        return [[self.names[i] for i in row] for row in order]


def concept_table(pipeline: Any) -> ConceptTable | None:
    """The concept table beside the pipeline's aligner, if the checkpoint has one."""
    folder = getattr(getattr(pipeline, "aligner", None), "folder", None)
    if folder is None or not (folder.parent / "concepts.json").is_file():
        return None
    return ConceptTable.from_checkpoint(folder.parent)
