"""Devices and dtypes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import torch
DTYPES = {"float32": "float32", "fp32": "float32", "float16": "float16", "fp16": "float16", "half": "float16"}
DTYPES |= {"bfloat16": "bfloat16", "bf16": "bfloat16"}


def dtype_of(dtype: Any) -> torch.dtype:
    """A dtype of torch by itself or by its name; fp32 if None.

    >>> dtype_of("float16"), dtype_of("bf16"), dtype_of(None)
    (torch.float16, torch.bfloat16, torch.float32)

    Raises:
        InputError: it is none of float32, float16 and bfloat16.
    """
    import torch

    name = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype or "float32")).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}: choose from float32, float16, bfloat16")
    return getattr(torch, DTYPES[name])


def check_device(device: Any) -> None:
    """Whether this machine has it.

    >>> check_device("cpu")

    Raises:
        InputError: it has not, or there is no such device.
    """
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device {str(device)!r} is not available here") from error
