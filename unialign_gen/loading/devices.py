"""Devices and dtypes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError, as_input_error

if TYPE_CHECKING:
    import torch
DTYPES = {"float32": "float32", "fp32": "float32", "float16": "float16", "fp16": "float16", "half": "float16"}
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia")  # that torch may have
DTYPES |= {"bfloat16": "bfloat16", "bf16": "bfloat16", "auto": "auto"}


def dtype_of(dtype: Any, device: Any = "cpu") -> torch.dtype:
    """A dtype of torch by itself or by its name; fp32 if None. `auto` is fp16 on a GPU, fp32 on a CPU.

    >>> dtype_of("float16"), dtype_of("bf16"), dtype_of(None), dtype_of("auto")
    (torch.float16, torch.bfloat16, torch.float32, torch.float32)

    Raises:
        InputError: it is none of float32, float16 and bfloat16.
    """
    import torch

    name = name_of_dtype(dtype)
    if name == "auto":
        name = "float32" if torch.device(device).type == "cpu" else "float16"
    return getattr(torch, name)


def check_names(device: str, dtype: str = "float32") -> None:
    """What can be seen to be wrong with the two without torch, which takes seconds to import.

    Raises:
        InputError: a dtype that is not used here, or no device at all.
    """
    name_of_dtype(dtype)
    if device.partition(":")[0] not in DEVICES:
        raise InputError(f"device {device!r} is not available here (--device)")


def name_of_dtype(dtype: Any) -> str:
    name = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype or "float32")).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}: choose from auto, float32, float16, bfloat16 (--dtype)")
    return DTYPES[name]


def check_device(device: Any) -> Any:
    """The device, if this machine has it. `auto` is the first GPU, by CUDA or Apple's MPS, and the CPU without one.

    >>> check_device("cpu")
    'cpu'

    Raises:
        InputError: it is not here, or there is no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    with as_input_error(f"device {str(device)!r} is not available here (--device)", RuntimeError, AssertionError, TypeError):
        torch.zeros(1, device=device)
    return device
