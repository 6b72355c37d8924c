"""A checkpoint's named concepts as points of its space: the nearest ones say what a prompt was understood as."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .errors import InputError


@dataclass
class ConceptTable:
    """Named concepts, and how near an embedding lies to each.

    >>> import torch
    >>> ConceptTable(["cat", "dog"], torch.eye(2)).nearest(torch.tensor([[0.2, 0.9]]), k=1)
    [['dog']]

    Attributes:
        names: of the concepts.
        points: the unit mean embedding of each one's training pictures, or, where it has none, of its name (concepts, d).
        whitening: (d, d), W of W W^T, the inverse of the covariance that pictures of one concept have about their mean: the
            directions in which those differ, colour and style say, count for less (linear discriminant analysis, Fisher
            1936). Its scale does not matter. None: all directions count the same.
    """

    names: list[str]
    points: Tensor
    whitening: Tensor | None = None

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
            kept = {name: value.float() for name, value in load_file(folder / "concepts.safetensors").items()}
            return cls(names, kept["points"], kept.get("whitening"))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(f"no concept table in {folder}") from error

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        (folder / "concepts.json").write_text(json.dumps(self.names, indent=1) + "\n")
        kept = {"points": self.points} | ({} if self.whitening is None else {"whitening": self.whitening})
        save_file({name: value.half().contiguous() for name, value in kept.items()}, folder / "concepts.safetensors")

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines (B, concepts) of embeddings (B, d) and points, both whitened first."""
        x, points = embeddings.float(), self.points.float()
        if self.whitening is not None:
            x, points = x @ self.whitening.float(), points @ self.whitening.float()
        return F.normalize(x, dim=1) @ F.normalize(points, dim=1).T

    def nearest(self, embeddings: Tensor, k: int = 5) -> list[list[str]]:
        """The k nearest concepts by `cosines` of each embedding (B, d), nearest first."""
        order = self.cosines(embeddings).topk(k, dim=1).indices.tolist()
        return [[self.names[i] for i in row] for row in order]


def concept_table(pipeline: Any) -> ConceptTable | None:
    """The concept table beside the pipeline's aligner, if the checkpoint has one."""
    folder = getattr(getattr(pipeline, "aligner", None), "folder", None)
    if folder is None or not (folder.parent / "concepts.json").is_file():
        return None
    return ConceptTable.from_checkpoint(folder.parent)
