"""What a classifier of a frozen encoder's features names, as vectors of the shared space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recognition(nn.Module):
    """A classifier's classes as points of the space, weighed by how likely each is, behind a gate.

        r(f) = sigmoid(gate(f)) sum_c p_c(f) points_c,    p(f) = softmax(classify(f))

    The convex combination of class embeddings is ConSE (Norouzi et al. 2014); the gate is that of a mixture of experts
    (Jacobs et al. 1991). It lets a head use what its encoder knows by name of kinds of pictures, or of sounds, that the head
    itself has met few of, and stays shut for all others.

    >>> recognition = Recognition(width=8, classes=3, embed_dim=4)
    >>> recognition(torch.randn(2, 10)).shape
    torch.Size([2, 4])

    Args:
        width: how many of the encoder's features, counted from the first, classifier and gate read.
        exclusive: one class at a time. Otherwise, as for a tagger's events, each class has its own probability, by a sigmoid,
            and they are divided by their sum.
    """

    points: Tensor

    def __init__(self, width: int, classes: int, embed_dim: int, exclusive: bool = True):
        super().__init__()
        self.width, self.exclusive = width, exclusive
        self.classify = nn.Linear(width, classes)
        self.gate = nn.Linear(width, 1)
        self.register_buffer("points", torch.zeros(classes, embed_dim))

    def probabilities(self, features: Tensor) -> Tensor:
        """Of each class in features (B, at least width): (B, classes), before they are divided by their sum."""
        logits = self.classify(features[:, : self.width])
        return logits.softmax(1) if self.exclusive else logits.sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """An encoder's features (B, at least width) -> (B, embed_dim), at most as long as the longest point."""
        share = self.probabilities(features)
        if not self.exclusive:
            share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
        return self.gate(features[:, : self.width]).sigmoid() * (share @ self.points)
