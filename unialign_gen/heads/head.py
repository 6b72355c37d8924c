"""The trained part of a modality: features of a frozen encoder to the shared embedding space."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, as_input_error
from ..output import write_tensors
from .recognition import Recognition

if TYPE_CHECKING:
    from ..encoders.base import Encoder


class Head(nn.Module):
    """Standardisation, a linear path and a two-layer path beside it: (B, features) -> (B, embed_dim), not normalised.

    Args:
        features: width of the encoder's features.
        embed_dim: width of the shared space.
        hidden: width of the two-layer path; 0 leaves it out.
        dropout: on its hidden layer and, half of it, on the features; in training only.
        recognises: what is recognised in the features is added to the vector of both paths, which is brought to norm 1 first:
            the arguments of a `Recognition` each, without `embed_dim`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: int,
        embed_dim: int,
        hidden: int,
        dropout: float = 0.0,
        recognises: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.drop = nn.Dropout(dropout / 2)
        self.linear = nn.Linear(features, embed_dim)
        self.mlp: nn.Sequential | None = None
        if hidden:
            self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, embed_dim))
        self.recognitions = nn.ModuleList(Recognition(embed_dim=embed_dim, **one) for one in recognises)
        self.config: dict[str, Any] = {"features": features, "embed_dim": embed_dim, "hidden": hidden}
        if recognises:
            self.config["recognises"] = [dict(one) for one in recognises]

    def fit_standardisation(self, features: Tensor) -> None:
        """Takes mean and spread from training features (N, features)."""
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp(min=1e-4))

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Makes the head give features as they are, so that training starts from the encoder's own space.

        Raises:
            ValueError: features are not as wide as the space.
        """
        width, embed_dim = self.linear.in_features, self.linear.out_features
        if width != embed_dim:
            raise ValueError(f"an identity needs equal widths, not {width} features and {embed_dim} dimensions")
        self.linear.weight.copy_(torch.diag(self.std))  # undoes the standardisation
        self.linear.bias.copy_(self.mean)
        for parameter in self.mlp[-1].parameters() if self.mlp is not None else ():
            parameter.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Raises: InputError: features of another width."""
        if features.shape[-1] != len(self.mean):
            widths = f"this head takes {len(self.mean)} features, these have {features.shape[-1]}"
            raise InputError(f"{widths}: extract with the checkpoint's own encoder")
        x = self.drop((features - self.mean) / self.std)
        out = self.linear(x) if self.mlp is None else self.linear(x) + self.mlp(x)
        if not self.recognitions:
            return out
        return F.normalize(out, dim=-1) + sum(recognition(features) for recognition in self.recognitions)


def save_head(head: Head, folder: Path) -> None:
    """Writes `head.json` and `head.safetensors` in the head's dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "head.json").write_text(json.dumps(head.config, indent=2) + "\n")
    write_tensors(folder / "head.safetensors", head.state_dict())


def load_head(folder: Path) -> Head:
    """The head kept in `folder`, frozen, in evaluation mode, fp32.

    Raises:
        InputError: there is none, or its weights do not fit it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with as_input_error(
        f"no head in {folder} that fits: {{error}}", OSError, ValueError, TypeError, RuntimeError, SafetensorError
    ):
        head = Head(**json.loads((folder / "head.json").read_text()))
        head.load_state_dict({k: v.float() for k, v in load_file(folder / "head.safetensors").items()})
    return head.eval().requires_grad_(False)


def encoder_beside(folder: Path, dtype: torch.dtype | None = None) -> Encoder | None:
    """The frozen encoder that a training run's head goes on, in `dtype`; None where the folder does not say.

    It is kept beside the head where it was trained too (`model.safetensors`); otherwise `encoder.json` has its folder or its
    description. An encoder of one's own is defined by the Python file beside the head, which is run: name no run whose code
    you would not run.

    Raises:
        InputError: it cannot be had any more, such as weights that were moved.
    """
    from ..encoders.registry import NOWHERE, load_encoder, register_file

    described = encoder_description(folder)
    if file := described.pop("file", None):
        register_file(str(described.get("encoder")), file)
    if (folder / "model.safetensors").is_file():
        return load_encoder(folder, dtype)
    if "folder" in described:
        return load_encoder(Path(described["folder"]), dtype)
    return load_encoder(NOWHERE, dtype, described) if described else None


def encoder_description(folder: Path) -> dict[str, Any]:
    """What a training run says of the encoder beside a head: its folder or its description, its Python file by its path; empty
    where it says nothing.

    Raises:
        InputError: the description is damaged.
    """
    file = folder / "encoder.json"
    if not file.is_file():
        return {}
    with as_input_error(f"{file} is damaged: {{error}}", OSError, ValueError):
        described: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return described | {key: str(folder / value) for key, value in described.items() if key == "file"}


def heads_in(folder: str | Path) -> dict[str, Path]:
    """The folders of heads in a training run's folder, or in a folder of heads, by modality.

    Raises:
        InputError: there are none.
    """
    path = Path(folder).expanduser()
    path = path / "heads" if (path / "heads").is_dir() else path
    found = {p.parent.name: p.parent for p in sorted(path.glob("*/head.json"))}
    if not found:
        raise InputError(f"no heads in {folder}: give the folder of a training run, or one with text/head.json and the like")
    return found
