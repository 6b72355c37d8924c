"""Image backbones by timm's names (Wightman, Apache-2.0): pooled features, prepared as the weights were trained.

{"encoder": "timm:vit_small_patch14_dinov2.lvd142m"}                          timm's own weights
{"encoder": "timm", "model": "resnet18", "source": "weights.safetensors"}     a file, a folder or a repository
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError, as_input_error
from .base import Encoder
from .published import fetching, read_state, source_weights


class Timm(Encoder):
    """Features (B, dim) of pictures: a model of timm without its classifier.

    Args:
        model: its name, with the tag of its weights if any.
        preparation: how pictures are prepared, in the words of `timm.data.create_transform`; the model's own by default.
        origin: entries kept in the configuration that say where the weights came from.

    Raises:
        InputError: timm has no such model.
    """

    def __init__(self, model: str, preparation: Mapping[str, Any] | None = None, origin: Mapping[str, Any] | None = None):
        super().__init__()
        import timm

        with as_input_error(f"timm has no model {model!r}: {{first}}", RuntimeError, TypeError, AssertionError):
            self.net: Any = timm.create_model(model, pretrained=False, num_classes=0)
        self.dim = int(self.net.num_features)
        found = dict(preparation or timm.data.resolve_model_data_config(self.net))
        self.pixels: Any = timm.data.create_transform(**found, is_training=False)
        self.config = {**(origin or {}), "encoder": "timm", "model": model, "preparation": found}

    def prepare(self, pictures: list[Image.Image]) -> Tensor:
        """Pictures -> (B, 3, side, side)."""
        return torch.stack([self.pixels(picture.convert("RGB")) for picture in pictures])

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, dim), not normalised."""
        return self.net(pixels)


def build(folder: Path, config: dict[str, Any]) -> Timm:
    if not isinstance(config.get("model"), str):
        raise InputError('nothing says which model of timm this is: give "model", such as resnet18')
    return Timm(config["model"], config.get("preparation"), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The source's, otherwise those that timm has for the name; no classifier."""
    import timm

    if "source" in config:
        state = read_state(source_weights(config))
    else:
        with fetching(f"timm's {config['model']}"):
            state = timm.create_model(config["model"], pretrained=True, num_classes=0).state_dict()
    cfg = timm.get_pretrained_cfg(config["model"])
    head = (cfg.classifier if cfg else None) or ()
    names = (head,) if isinstance(head, str) else tuple(head)
    return {f"net.{k}": v for k, v in state.items() if not k.startswith(tuple(f"{name}." for name in names))}
