"""A checkpoint's named concepts as points of its space: the nearest ones say what a prompt was understood as."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import as_input_error
from ..output import write_tensors


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
        places: positions (concepts, 2) in [0, 1] on a map, see `lay_out`; None where there is no map.
    """

    names: list[str]
    points: Tensor
    whitening: Tensor | None = None
    places: Tensor | None = None

    @classmethod
    def from_checkpoint(cls, folder: Path) -> ConceptTable:
        """The table that lies in a checkpoint's folder.

        Raises:
            InputError: there is none.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with as_input_error(f"no concept table in {folder}", OSError, ValueError, KeyError, SafetensorError):
            names = json.loads((folder / "concepts.json").read_text())
            kept = {name: value.float() for name, value in load_file(folder / "concepts.safetensors").items()}
            return cls(names, kept["points"], kept.get("whitening"), kept.get("places"))

    def save(self, folder: Path) -> None:
        (folder / "concepts.json").write_text(json.dumps(self.names, indent=1) + "\n")
        kept = {"points": self.points, "whitening": self.whitening, "places": self.places}
        halves = {name: value.half() for name, value in kept.items() if value is not None}
        write_tensors(folder / "concepts.safetensors", halves)

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


def lay_out(table: ConceptTable, seed: int = 0) -> Tensor:
    """Positions (concepts, 2) in [0, 1] for a map: scikit-learn's t-SNE of the points, with names moved apart so that each can
    be read. Run once, when a checkpoint is made; needs scikit-learn.
    """
    from sklearn.manifold import TSNE

    points = F.normalize(table.points.float(), dim=1)
    found = TSNE(perplexity=min(8.0, (len(points) - 1) / 3), init="pca", random_state=seed).fit_transform(points.numpy())
    places = torch.from_numpy(found).double()
    low, high = places.amin(0), places.amax(0)
    # the size of a name, in parts of a map that is half as wide again as high: 12 px letters at 1000 px
    boxes = torch.tensor([[(7.0 * len(name) + 14) / 1000, 17 / 720] for name in table.names], dtype=places.dtype)
    return spread((places - low) / (high - low).clamp(min=1e-9), boxes)


def spread(places: Tensor, boxes: Tensor, rounds: int = 400) -> Tensor:
    """Positions (n, 2) in the unit square, moved until no two boxes (n, 2) of width and height overlap, or rounds run out.

    Two boxes that overlap are pushed apart along the axis on which they overlap least, each by a quarter of that.
    """
    reach = (boxes[:, None] + boxes) / 2  # (n, n, 2)
    for _ in range(rounds):
        apart = places[:, None] - places  # (n, n, 2)
        over = (reach - apart.abs()).clamp(min=0)
        both = (over > 0).all(2).fill_diagonal_(False)  # (n, n)
        if not both.any():
            break
        axis = F.one_hot((over / reach).argmin(2), 2)
        side = torch.where(apart == 0, torch.triu(torch.ones_like(apart[..., 0]), 1)[..., None] * 2 - 1, apart.sign())
        places = places + (side * over * axis * both[..., None]).sum(1) / 4
        places = places.clamp(0, 1)
    return places


def checkpoint_folder(pipeline: Any) -> Path | None:
    """The folder of the checkpoint that a pipeline's aligner was loaded from."""
    folder = getattr(getattr(pipeline, "aligner", None), "folder", None)
    return None if folder is None else folder.parent


def concept_table(pipeline: Any) -> ConceptTable | None:
    """The concept table beside the pipeline's aligner, if the checkpoint has one."""
    folder = checkpoint_folder(pipeline)
    return ConceptTable.from_checkpoint(folder) if folder is not None and (folder / "concepts.json").is_file() else None
