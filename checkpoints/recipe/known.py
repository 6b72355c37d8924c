"""Training rows of the manifest, and what is known of them: features, embeddings, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.heads import load_head

from . import diffusion, features, manifest
from .manifest import Row

DECODER_TIERS, HEAD_TIERS = "A", "AB"
VERSIONS = {"rec": 5, "fx": 5, "font": 2, "speech": 2}


def select(root: Path, kind: str, tiers: str) -> list[Row]:
    """Training rows of a kind that the licence policy lets into this part."""
    return [r for r in manifest.read(root) if r.kind == kind and manifest.trainable(r, tiers)]


def caption_features(root: Path, rows: list[Row]) -> list[Tensor]:
    """A tensor (k, 384) for each picture; one without captions gets its style."""
    texts = [r.captions or [r.style] for r in rows]
    known = features.of_texts(root, [t for ts in texts for t in ts])
    return [torch.stack([known[t] for t in ts]) for ts in texts]


def sound_features(root: Path, rows: list[Row]) -> list[Tensor]:
    """A tensor (versions, d) for each sound; recordings have more augmented versions than renders."""
    out: dict[str, Tensor] = {}
    for count in sorted({VERSIONS[r.style] for r in rows}):
        mine = [r for r in rows if VERSIONS[r.style] == count]
        out.update(zip([r.id for r in mine], features.of_sounds(root, mine, count), strict=True))
    return [out[r.id] for r in rows]


@torch.no_grad()
def anchors(root: Path, rows: list[Row]) -> Tensor:
    """Unit embeddings (N, d) of pictures in the image space, by its head alone."""
    head = load_head(root / "image_space")
    return F.normalize(head(features.of_pictures(root, rows, "image")), dim=1)


def things(rows: list[Row]) -> list[str]:
    """What each picture shows: its concept, or, outside the concept table, its name."""
    return [r.concepts[0] if r.concepts else (r.captions[0].lower() if r.captions else r.id) for r in rows]


def bank(embeds: Tensor, things: Sequence[str], least: int = 1) -> Tensor:
    """Unit means (M, d) of the things that at least `least` of the pictures, with unit embeddings (N, d), show."""
    means = [embeds[rows].mean(0) for rows in diffusion.by_thing(things).values() if len(rows) >= least]
    return F.normalize(torch.stack(means), dim=1)


def spread(embeds: Tensor, things: Sequence[str], shrinkage: float) -> Tensor:
    """How embeddings (N, d) of one thing differ: the covariance (d, d) about the things' means, pooled over all of them.

    `shrinkage` (0 to 1) of it is a sphere of the same variance (Ledoit & Wolf 2004), without which directions that hardly
    vary would count for everything.
    """
    groups = diffusion.by_thing(things).values()
    apart = torch.cat([embeds[rows] - embeds[rows].mean(0) for rows in groups])
    pooled = apart.T @ apart / (len(embeds) - len(groups))
    sphere = torch.eye(len(pooled)) * pooled.trace() / len(pooled)
    return torch.lerp(pooled, sphere, shrinkage)


def neighbours(root: Path, rows: list[Row]) -> diffusion.Neighbours:
    """Neighbours are pictures of one thing."""
    return diffusion.Neighbours(anchors(root, rows), things(rows))
