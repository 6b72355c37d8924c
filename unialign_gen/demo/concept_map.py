"""The concepts of a checkpoint on a plane: exact t-SNE of their embeddings, and where a new prompt lies among them.

t-SNE: van der Maaten & Hinton 2008, all pairs, from the two principal axes, so that the same table gives the same map.
A prompt was not there when the map was made. It is put at the weighted mean of the positions of its nearest concepts,
with weights softmax(cosine / 0.05): near one concept it lies on it, between two it lies between them. The positions are
those after `spread`, which moves names apart so that each can be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..concepts import ConceptTable

PERPLEXITY = 8.0
STEPS = 600
EXAGGERATED = 150  # steps with P taken times 12
SLOWEST = 10.0  # learning rate of small tables; at scikit-learn's 50 a hundred points never come to rest
NEIGHBOURS = 5
SHARPNESS = 0.05


@dataclass
class ConceptMap:
    """The concepts and their positions (n, 2) in [0, 1]."""

    table: ConceptTable
    places: Tensor

    @classmethod
    def of(cls, table: ConceptTable) -> ConceptMap:
        points = F.normalize(table.points.float(), dim=1)
        places = unit_square(tsne(points))
        # the size of a name, in parts of a map that is half as wide again as high: 12 px letters at 1000 px
        boxes = torch.tensor([[(7.0 * len(name) + 14) / 1000, 16 / 720] for name in table.names], dtype=places.dtype)
        return cls(table, spread(places, boxes))

    def place(self, vector: Tensor) -> tuple[Tensor, list[int]]:
        """Where a unit embedding (d,) lies, (2,), and the numbers of the concepts that say so, nearest first."""
        cosines = self.table.cosines(vector.cpu().unsqueeze(0))[0]
        best = cosines.topk(min(NEIGHBOURS, len(cosines)))
        weights = (best.values / SHARPNESS).softmax(0)
        return weights @ self.places[best.indices].float(), best.indices.tolist()


def unit_square(places: Tensor) -> Tensor:
    low, high = places.amin(0), places.amax(0)
    return (places - low) / (high - low).clamp(min=1e-9)


def spread(places: Tensor, boxes: Tensor, rounds: int = 400) -> Tensor:
    """Positions (n, 2) in the unit square, moved until no two boxes (n, 2) of width and height overlap, or rounds run out.

    Two boxes that overlap are pushed apart along the axis on which they overlap least, each by a quarter of that.
    """
    reach = (boxes[:, None] + boxes) / 2
    for _ in range(rounds):
        apart = places[:, None] - places
        over = (reach - apart.abs()).clamp(min=0)
        both = (over > 0).all(2).fill_diagonal_(False)
        if not both.any():
            break
        axis = F.one_hot((over / reach).argmin(2), 2)
        side = torch.where(apart == 0, torch.triu(torch.ones_like(apart[..., 0]), 1)[..., None] * 2 - 1, apart.sign())
        places = places + (side * over * axis * both[..., None]).sum(1) / 4
        places = places.clamp(0, 1)
    return places


def affinities(points: Tensor, perplexity: float) -> Tensor:
    """Joint probabilities (n, n) of points (n, d): Gaussian rows whose entropy is log(perplexity), made symmetric."""
    squared = torch.cdist(points.double(), points.double()).square()
    squared.fill_diagonal_(math.inf)
    low, high = torch.full((len(points), 1), 1e-4).double(), torch.full((len(points), 1), 1e6).double()  # precisions
    for _ in range(60):
        precision = (low * high).sqrt()
        rows = (-squared * precision).softmax(1)
        entropy = -(rows * rows.clamp(min=1e-300).log()).sum(1, keepdim=True)
        wide = entropy > math.log(perplexity)
        low, high = torch.where(wide, precision, low), torch.where(wide, high, precision)
    joint = (rows + rows.T) / (2 * len(points))
    return joint.clamp(min=1e-12)


def tsne(points: Tensor, perplexity: float = PERPLEXITY, steps: int = STEPS) -> Tensor:
    """Positions (n, 2), fp64, of unit vectors (n, d)."""
    wanted = affinities(points, min(perplexity, (len(points) - 1) / 3))
    centred = (points - points.mean(0)).double()
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()  # a sign that does not depend on LAPACK
    places = centred @ axes.T
    places = places / places[:, :1].std() * 1e-4
    speed, gains = torch.zeros_like(places), torch.ones_like(places)
    rate = max(len(points) / 12 / 4, SLOWEST)
    for step in range(steps):
        target = wanted * 12 if step < EXAGGERATED else wanted
        gradient = slope(places, target)
        gains = torch.where(gradient.sign() != speed.sign(), gains + 0.2, gains * 0.8).clamp(min=0.01)
        speed = (0.5 if step < EXAGGERATED else 0.8) * speed - rate * gains * gradient
        places = places + speed
    return places


def slope(places: Tensor, target: Tensor) -> Tensor:
    """Gradient (n, 2) of KL(target || Student-t similarities of the positions), eq. 5 of the paper."""
    near = 1 / (1 + torch.cdist(places, places).square())
    near.fill_diagonal_(0)
    pull = (target - (near / near.sum()).clamp(min=1e-12)) * near
    return 4 * (pull.sum(1, keepdim=True) * places - pull @ places)


def divergence(places: Tensor, target: Tensor) -> float:
    """KL(target || Student-t similarities of the positions)."""
    near = 1 / (1 + torch.cdist(places.double(), places.double()).square())
    near.fill_diagonal_(0)
    found = (near / near.sum()).clamp(min=1e-12)
    return float((target * (target / found).log()).fill_diagonal_(0).sum())
