"""Options of an objective: their types and ranges stand in its constructor's annotations, and are checked there."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from ..errors import InputError

Positive = Annotated[float, "above 0", lambda v: v > 0]
Weight = Annotated[float, "at least 0", lambda v: v >= 0]
Share = Annotated[float, "in [0, 1)", lambda v: 0 <= v < 1]
Tau = Annotated[float | Tensor, "above 0", lambda v: isinstance(v, Tensor) or v > 0]  # a tensor: one's own learnt temperature

Init = TypeVar("Init", bound=Callable[..., None])


def describe(hint: Any) -> str:
    """What an annotation accepts, in words."""
    if get_origin(hint) is Annotated:
        return f"{describe(get_args(hint)[0])} {get_args(hint)[1]}"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(describe, get_args(hint)))
    if get_origin(hint) is Mapping:
        return f"a mapping to {describe(get_args(hint)[1])}"
    names = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a name", NoneType: "null"}
    return names.get(hint, "a tensor" if hint is Tensor else str(hint))


def fit(value: Any, hint: Any) -> Any:
    """The value as its annotation has it.

    Raises:
        ValueError: it is of another type, not finite, or out of range.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = fit(value, args[0])
        if not args[2](value):
            raise ValueError
        return value
    if origin in (Union, UnionType):
        for choice in args:
            with suppress(ValueError):
                return fit(value, choice)
    if origin is Literal and value in args:
        return value
    if origin is Mapping and isinstance(value, Mapping):
        return {key: fit(part, args[1]) for key, part in value.items()}
    if hint is float and isinstance(value, (Real, str)) and not isinstance(value, bool):
        number = float(value)  # text too: YAML reads 7e-2 as that
        if math.isfinite(number):
            return number
    if hint is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if hint in (bool, str, NoneType) and isinstance(value, hint):
        return value
    if hint is Tensor and isinstance(value, Tensor) and value.numel() == 1:
        return value
    raise ValueError


def typed(init: Init) -> Init:
    """A constructor that checks every argument against its annotation, and keeps all of them in `self.options`.

    Raises:
        InputError: in one line, an option of a wrong type, not finite, or out of its range.
    """
    signature = inspect.signature(init)
    hints = cache(lambda: get_type_hints(init, include_extras=True))

    @wraps(init)
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        options = {}
        for name, value in list(bound.arguments.items())[1:]:
            try:
                options[name] = fit(value, hints()[name])
            except ValueError:
                accepted = describe(hints()[name])
                raise InputError(f"{type(self).__name__}: {name} is {accepted}, got {value!r}") from None
        init(self, **options)
        self.options = options

    return run  # type: ignore[return-value]
