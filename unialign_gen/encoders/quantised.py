"""Weights in eight bits: whole numbers and a scale for each row of their first axis."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

SCALE = "_scale"  # what the name of a tensor's scales ends with


def pack(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Weights `names` as int8, -127 to 127, and their scales (rows,) in fp32; the others as they are.

    What was stored so before, with the row's largest value at 127, comes out the same.
    """
    packed = {}
    for name, value in state.items():
        if name in names:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(1).clamp(min=1e-12) / 127
            packed[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
            packed[name + SCALE] = scale
        else:
            packed[name] = value
    return packed


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` packed, in fp32; a state without such weights stays as it is.

    Raises:
        KeyError: a tensor of int8 has no scales.
    """
    unpacked = {}
    scales = {name + SCALE for name, value in state.items() if value.dtype == torch.int8}
    for name, value in state.items():
        if value.dtype == torch.int8:
            scale = state[name + SCALE]
            unpacked[name] = value.float() * scale.reshape(-1, *[1] * (value.ndim - 1))
        elif name not in scales:
            unpacked[name] = value
    return unpacked


def stored_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in `folder/model.safetensors`, those in eight bits as fp32.

    Raises:
        InputError: no such file.
    """
    from safetensors.torch import load_file

    if not (folder / "model.safetensors").is_file():
        raise InputError(f'{folder} has no model.safetensors: put one there, or name a "checkpoint" in config.json')
    return unpack(load_file(folder / "model.safetensors"))
