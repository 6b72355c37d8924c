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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unialign_gen.encoders import load_encoder
from unialign_gen.encoders.base import Encoder
from unialign_gen.errors import InputError
from unialign_gen.loading.folders import FULL, shipped_folder


class Judge:
    """Scores pictures against the concepts of a vocabulary.

    Args:
        encoder: features of pictures.
        probe: features to logits, one a concept.
        concepts: their names, in the probe's order.
    """

    def __init__(self, encoder: Encoder, probe: nn.Linear, concepts: Sequence[str]):
        self.encoder, self.probe, self.concepts = encoder, probe, list(concepts)

    @classmethod
    def from_folder(cls, folder: Path | None = None) -> Judge:
        """The judge that comes with the package, or the one in `folder`.

        Raises:
            InputError: there is none.
        """
        folder = folder or shipped_folder() / "judge"
        try:
            concepts = json.loads((folder / "concepts.json").read_text())
            state = load_file(folder / "probe.safetensors")
        except (OSError, ValueError) as error:
            raise InputError(f"no judge in {folder}: {error if folder.is_dir() else FULL}") from error
        probe = nn.Linear(state["weight"].shape[1], len(concepts))
        probe.load_state_dict({k: v.float() for k, v in state.items()})
        return cls(load_encoder(folder), probe.eval().requires_grad_(False), concepts)

    def save_probe(self, folder: Path) -> None:
        save_file({k: v.half().contiguous() for k, v in self.probe.state_dict().items()}, folder / "probe.safetensors")
        (folder / "concepts.json").write_text(json.dumps(self.concepts, indent=1) + "\n")

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


def fit_probe(features: Tensor, targets: Tensor, steps: int = 400, seed: int = 0) -> nn.Linear:
    """A linear probe (features to logits) on pictures with one or more concepts each.

    Args:
        features: (N, d).
        targets: (N, concepts), rows that sum to one; classes count equally.
    """
    torch.manual_seed(seed)
    mean, std = features.mean(0), features.std(0).clamp(min=1e-4)
    x = (features - mean) / std
    probe = nn.Linear(features.shape[1], targets.shape[1])
    nn.init.zeros_(probe.weight)
    balance = 1 / (targets @ targets.sum(0)).clamp(min=1).sqrt()
    optimiser = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.5)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        loss = -(balance[:, None] * targets * probe(x).log_softmax(1)).sum() / balance.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():  # the standardisation becomes part of the probe
        probe.weight.div_(std)
        probe.bias.sub_(probe.weight @ mean)
    return probe.requires_grad_(False)
