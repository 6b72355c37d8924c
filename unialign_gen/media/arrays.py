"""Arrays and tensors, without importing torch before a tensor is made: a process that only decodes starts at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, as_input_error

if TYPE_CHECKING:
    from torch import Tensor


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor, of which there are none before torch is imported."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)  # there is none while another thread imports torch
    return kind is not None and isinstance(value, kind)


def to_tensor(array: np.ndarray) -> Tensor:
    """The same memory as a tensor."""
    from torch import from_numpy

    return from_numpy(array)


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
