"""Arrays and tensors as numpy's. Nothing here or below imports torch, so that a process that only decodes starts at once."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..errors import InputError, as_input_error


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor, of which there are none before torch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(array: Any, name: str) -> np.ndarray:
    """An array, a tensor or nested lists of numbers."""
    if is_tensor(array):
        array = array.detach().cpu()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    with as_input_error(f"{name} is no array: its rows differ in length", ValueError):
        found = np.asarray(array)
    if found.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold numbers, got {found.dtype}")
    return found
