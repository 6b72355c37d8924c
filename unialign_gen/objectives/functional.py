"""The objectives as plain functions: `infonce({"image": z_i, "text": z_t}, tau=0.07)` -> scalar.

Each has the options of its class, but for `learnable`: a temperature that is learnt elsewhere goes in as a tensor (`tau=tau`).

>>> import torch
>>> z, tau = torch.eye(2), torch.tensor(1.0, requires_grad=True)
>>> infonce({"image": z, "text": z}, tau=tau).backward()
>>> tau.grad
tensor(0.2689)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ParamSpec, Protocol

from torch import Tensor

from ..errors import InputError
from .batch import Embeddings, Masks
from .cauchy_schwarz import CauchySchwarz
from .infonce import AnchoredInfoNCE, InfoNCE, MeanOfOthers
from .modgap import ModGap
from .objective import Objective
from .pmrl import PMRL
from .scalar import SCALAR
from .siglip import SigLIP
from .symile import Symile
from .tuples import GRAM, TRIANGLE
from .unialign import UniAlign

__all__ = [
    "unialign",
    "infonce",
    "anchored_infonce",
    "gram",
    "triangle",
    "pmrl",
    "modgap",
    "symile",
    "cauchy_schwarz",
    "siglip",
    "scalar",
    "mean_of_others",
]

P = ParamSpec("P")


class Function(Protocol[P]):
    """An objective's call and its options in one."""

    def __call__(self, embeddings: Embeddings, masks: Masks | None = None, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...


def function_of(kind: Callable[P, Objective], name: str, example: str, value: str) -> Function[P]:
    """The function of a class, with its options by keyword, but for `learnable`: a function keeps nothing to learn."""
    options = {n: p.replace(kind=p.KEYWORD_ONLY) for n, p in inspect.signature(kind).parameters.items() if n != "learnable"}
    fixed = {"learnable": False} if "learnable" in inspect.signature(kind).parameters else {}

    def run(embeddings: Embeddings, masks: Masks | None = None, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if args or set(kwargs) - set(options):
            raise InputError(
                f"{name} has the options {', '.join(options)}, by keyword; learn a tau outside and give it as a tensor"
            )
        return kind(**kwargs, **fixed).eval()(embeddings, masks)  # type: ignore[arg-type, call-arg]

    given = list(inspect.signature(run).parameters.values())[:2]
    run.__signature__ = inspect.Signature([*given, *options.values()], return_annotation=Tensor)  # type: ignore[attr-defined]
    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"""`{kind.__name__}` as a function, out of training mode. Scalar.

    >>> import torch
    >>> z, y = torch.eye(4), torch.eye(4).roll(1, 0)
    >>> {name}({example})
    {value}
    """  # type: ignore[attr-defined]
    return run


TWO, THREE = '{"image": z, "text": z}', '{"image": z, "text": z, "audio": y}'

unialign = function_of(UniAlign, "unialign", f"{TWO}, tau=1.0", "tensor(-22.4082)")
infonce = function_of(InfoNCE, "infonce", f"{TWO}, tau=1.0", "tensor(0.7437)")
anchored_infonce = function_of(AnchoredInfoNCE, "anchored_infonce", f"{TWO}, tau=1.0", "tensor(0.7437)")
gram = function_of(GRAM, "gram", f"{THREE}, tau=1.0", "tensor(1.0564)")
triangle = function_of(TRIANGLE, "triangle", f"{THREE}, tau=1.0", "tensor(1.0875)")
pmrl = function_of(PMRL, "pmrl", f"{THREE}", "tensor(0.0004)")
modgap = function_of(ModGap, "modgap", f"{TWO}, tau=1.0", "tensor(-3.2563)")
symile = function_of(Symile, "symile", f"{THREE}, tau=1.0", "tensor(1.4161)")
cauchy_schwarz = function_of(CauchySchwarz, "cauchy_schwarz", f"{TWO}, tau=1.0, divergence_weight=0", "tensor(0.7437)")
siglip = function_of(SigLIP, "siglip", f"{TWO}, tau=1.0, bias=0.0", "tensor(2.3927)")
scalar = function_of(SCALAR, "scalar", f"{THREE}, tau=1.0", "tensor(1.0564)")
mean_of_others = function_of(MeanOfOthers, "mean_of_others", f"{THREE}, tau=1.0", "tensor(1.3105)")
