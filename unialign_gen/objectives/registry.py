"""Objectives by name, so that a configuration file can choose; one's own by the place of its class."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError, as_input_error
from .cauchy_schwarz import CauchySchwarz
from .infonce import AnchoredInfoNCE, InfoNCE, MeanOfOthers
from .modgap import ModGap
from .pmrl import PMRL
from .scalar import SCALAR
from .siglip import SigLIP
from .symile import Symile
from .tuples import GRAM, TRIANGLE
from .unialign import UniAlign

OBJECTIVES: dict[str, type[nn.Module]] = {
    "unialign": UniAlign,
    "infonce": InfoNCE,
    "anchored_infonce": AnchoredInfoNCE,
    "gram": GRAM,
    "triangle": TRIANGLE,
    "pmrl": PMRL,
    "modgap": ModGap,
    "symile": Symile,
    "cauchy_schwarz": CauchySchwarz,
    "siglip": SigLIP,
    "scalar": SCALAR,
    "mean_of_others": MeanOfOthers,
}


def build(name: str, **options: Any) -> nn.Module:
    """The objective called `name`, with its options.

    Args:
        name: of `OBJECTIVES`; or one's own, `file:PATH:Class` or `module:Class`, a module that is called as `Objective` is.

    Raises:
        InputError: no such objective, an option that it does not have, or a bad value.

    >>> build("gram", anchor="text", tau="7e-2")
    GRAM(
      anchor='text', tau=0.07, smoothing=0.1, learnable=False
      (temperature): Temperature()
    )
    """
    kind = find(name)
    known = inspect.signature(kind).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        known = {**known, **dict.fromkeys(options)}  # type: ignore[assignment]
    if unknown := [o for o in options if o not in known]:
        raise InputError(f"{name} has no option {', '.join(map(repr, unknown))}: choose from {', '.join(known)}")
    with as_input_error(f"{name}: {{error}}", TypeError):  # an option that one's own class asks for and that is not given
        return kind(**options)


def find(name: str) -> type[nn.Module]:
    """The class of an objective.

    Raises:
        InputError: there is none of that name.

    >>> find("unialign_gen.objectives:UniAlign") is find("unialign")
    True
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    place, _, kind = name.rpartition(":")
    if not place:
        raise InputError(
            f"unknown objective {name!r}: choose from {', '.join(OBJECTIVES)}, or name your own file:PATH:Class or module:Class"
        )
    with as_input_error(f"{name}: cannot be imported: {{kind}}: {{error}}", Exception):  # whatever a user's own file raises
        if place.startswith("file:"):
            path = Path(place.removeprefix("file:")).expanduser()
            spec = importlib.util.spec_from_file_location(f"unialign_gen_objective_{path.stem}", path)
            if spec is None or spec.loader is None or not path.is_file():
                raise InputError(f"{name}: no such Python file: {path}")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    found = getattr(module, kind, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"{name}: {kind!r} is no class of {place} that derives from torch.nn.Module")
    return found
