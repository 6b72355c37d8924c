"""The judge: EfficientNet-Lite2 features and a linear probe, fitted on real training pictures.

It is neither the network that conditions the decoders nor one that they learn to please in training. It is of the same
family, though (Lite0 and Lite1 there), so their mistakes may be its own in part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from unialign_gen.encoders import load_encoder
from unialign_gen.encoders.base import Encoder
from unialign_gen.errors import as_input_error
from unialign_gen.loading.folders import FULL, shipped_folder


class Judge:
    """Scores pictures against concepts: an encoder, a probe from its features to logits, and the concepts in its order."""

    def __init__(self, encoder: Encoder, probe: nn.Linear, concepts: Sequence[str]):
        self.encoder, self.probe, self.concepts = encoder, probe, list(concepts)

    @classmethod
    def from_folder(cls, folder: Path | None = None) -> Judge:
        """The judge that comes with the package, or the one in `folder`; an `InputError` if there is none."""
        folder = folder or shipped_folder() / "judge"
        said = f"no judge in {folder}: {'{error}' if folder.is_dir() else FULL}"
        with as_input_error(said, OSError, ValueError):
            concepts = json.loads((folder / "concepts.json").read_text())
            state = load_file(folder / "probe.safetensors")
        probe = nn.Linear(state["weight"].shape[1], len(concepts))
        probe.load_state_dict({k: v.float() for k, v in state.items()})
        return cls(load_encoder(folder), probe.eval().requires_grad_(False), concepts)

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image], batch: int = 16) -> Tensor:
        """What the probe reads of each picture (N, d)."""
        parts = [self.encoder(self.encoder.prepare(list(pictures[at : at + batch]))) for at in range(0, len(pictures), batch)]
        return torch.cat(parts) if parts else torch.zeros(0, self.probe.in_features)

    def top(self, pictures: Sequence[Image.Image], k: int = 5) -> list[list[str]]:
        """The k likeliest concepts of each picture, likeliest first."""
        return self.named(self.features(pictures), k)

    def named(self, features: Tensor, k: int = 5) -> list[list[str]]:
        """The k likeliest concepts for features (N, d), likeliest first."""
        return [[self.concepts[i] for i in row] for row in self.probe(features).topk(k, dim=1).indices.tolist()]

    def vocabulary(self) -> dict[str, frozenset[str]]:
        """Class names of corpora to concepts: its own names, and VGGSound's classes of them."""
        found = {c: frozenset([c]) for c in self.concepts}
        for name, classes in json.loads((shipped_folder() / "judge" / "vggsound.json").read_text("utf-8")).items():
            several = classes.split(" / ")
            for label in {classes, *several, *(s.split(",")[0] for s in several)} if name in self.concepts else ():
                found[label] = found.get(label, frozenset()) | {name}
        return found
