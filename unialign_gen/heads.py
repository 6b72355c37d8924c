"""The trained part of a modality: features of a frozen tower to the shared embedding space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Standardisation, a linear path and a two-layer path beside it: (B, features) -> (B, embed_dim), not normalised.

    Args:
        features: width of the tower's features.
        embed_dim: width of the shared space.
        hidden: width of the two-layer path.
        dropout: on its hidden layer and, half of it, on the features; in training only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, embed_dim: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.config = {"features": features, "embed_dim": embed_dim, "hidden": hidden}
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.drop = nn.Dropout(dropout / 2)
        self.linear = nn.Linear(features, embed_dim)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, embed_dim))

    def fit_standardisation(self, features: Tensor) -> None:
        """Takes mean and spread from training features (N, features)."""
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp(min=1e-4))

    def forward(self, features: Tensor) -> Tensor:
        x = self.drop((features - self.mean) / self.std)
        return self.linear(x) + self.mlp(x)
