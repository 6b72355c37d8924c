"""The judge: a linear probe, fitted on features of training pictures, beside the encoder that it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .concepts import CONCEPTS


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
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        loss = -(balance[:, None] * targets * probe(x).log_softmax(1)).sum() / balance.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():  # the standardisation becomes part of the probe
        probe.weight.div_(std)
        probe.bias.sub_(probe.weight @ mean)
    return probe.requires_grad_(False)


def write(encoder: Path, probe: nn.Linear, out: Path) -> None:
    """Writes what `unialign_gen.eval.judge.Judge` reads: the encoder, a probe for the table's concepts, and their names."""
    shutil.copytree(encoder, out, dirs_exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in probe.state_dict().items()}, out / "probe.safetensors")
    classes = {name: row["vggsound"] for name, row in CONCEPTS.items() if row["vggsound"]}
    for file, named in (("concepts.json", list(CONCEPTS)), ("vggsound.json", classes)):
        (out / file).write_text(json.dumps(named, indent=1, ensure_ascii=False) + "\n", "utf-8")
