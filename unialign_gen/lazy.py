"""Names of a package that are imported when they are first asked for, so that a light part of it does not wait for torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`.

    Args:
        places: name to the module of the package that defines it; "" for a module itself.

    >>> lazy("unialign_gen.media", {"Excerpt": "files"})("Excerpt").__name__
    'Excerpt'
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = import_module(f"{package}.{places[name] or name}")
        value = getattr(found, name) if places[name] else found
        setattr(sys.modules[package], name, value)
        return value

    return find
