"""What a classifier of a frozen encoder's features names, as vectors of the shared space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recognition(nn.Module):
    """A classifier's classes as points of the space, weighed by how likely each is, behind a gate.

        r(f) = sigmoid(gate(f)) sum_c softmax_c(classify(f)) points_c

    The convex combination of class embeddings is ConSE (Norouzi et al. 2014); the gate is that of a mixture of experts
    (Jacobs et al. 1991). It lets a head use what its encoder knows by name of kinds of pictures, or of sounds, that the head
    itself has met few of, and stays shut for all others.

    >>> recognition = Recognition(width=8, classes=3, embed_dim=4)
    >>> recognition(torch.randn(2, 10)).shape
    torch.Size([2, 4])

    Args:
        width: how many of the encoder's features, counted from the first, classifier and gate read.
        classes: number of classes.
        embed_dim: width of the shared space.
    """

    points: Tensor

    def __init__(self, width: int, classes: int, embed_dim: int):
        super().__init__()
        self.width = width
        self.classify = nn.Linear(width, classes)
        self.gate = nn.Linear(width, 1)
        self.register_buffer("points", torch.zeros(classes, embed_dim))

    def forward(self, features: Tensor) -> Tensor:
        """An encoder's features (B, at least width) -> (B, embed_dim), at most as long as the longest point."""
        x = features[:, : self.width]
        return self.gate(x).sigmoid() * (self.classify(x).softmax(1) @ self.points)
