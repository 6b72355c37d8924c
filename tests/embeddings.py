"""Embeddings for tests of objectives: modalities around common points, so that pairs are closer than strangers."""

import torch

THREE = ["image", "text", "audio"]
FIVE = [*THREE, "video", "depth"]


def raw(b, d, seed=0, dtype=torch.float64):
    return torch.randn(b, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


def batch(b=8, d=5, dtype=torch.float64, names=THREE, spread=0.7):
    """(b, d) by modality."""
    common = raw(b, d, 99)
    return {n: (common + spread * raw(b, d, i)).to(dtype) for i, n in enumerate(names)}
