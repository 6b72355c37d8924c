"""Names of the first edition, which go on working for one release."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {  # of the first edition, old to new
    "calibrate": "loading.scale",
    "checkpoint": "loading",
    "eval.manifold": "eval.prdc",
    "published": "loading.description",
    "recognition": "heads.recognition",
    "settings_png": "request.picture_settings",
    "showcase": "film.showcase",
    "towers": "encoders",
    "towers.base": "encoders.base",
}
NAMES = {"Settings": "PictureSettings", "Tower": "Encoder", "read_png": "read_picture", "save_png": "save_picture"}  # in them
NAMES |= {"Manifold": "PRDCScores", "load_tower": "load_encoder", "manifold": "prdc", "save_tower": "save_encoder"}

KEYS = {"tower": "encoder", "towers": "encoders"}  # of encoders' and checkpoints' JSON, old to new
CONFIG_KEYS = {"towers": "encoders", "tower_rate": "encoder_rate", "cool": "decay_fraction"}  # of configuration files


def current_keys(config: Any) -> Any:
    """A configuration with its old keys renamed, at any depth."""
    if isinstance(config, dict):
        return {KEYS.get(key, key): current_keys(value) for key, value in config.items()}
    return [current_keys(value) for value in config] if isinstance(config, list) else config


def current_config(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration file's keys with old ones renamed; of its entries only those of `encoders`, since others are names
    that users chose.
    """
    for old in sorted(CONFIG_KEYS.keys() & config.keys()):
        warn_renamed(f"{old}:", f"{CONFIG_KEYS[old]}:")
    config = {CONFIG_KEYS.get(key, key): value for key, value in config.items()}
    encoders = config.get("encoders")
    if isinstance(encoders, dict):
        if any("tower" in entry for entry in encoders.values() if isinstance(entry, dict)):
            warn_renamed("tower:", "encoder:")
        config["encoders"] = {name: current_keys(entry) for name, entry in encoders.items()}
    return config


def warn_renamed(old: str, new: str) -> None:
    """Says once a place that an old name was used."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release", FutureWarning, stacklevel=3)


def renamed(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that answers to old names, with a warning."""

    def find(old: str) -> Any:
        if old not in names:
            raise AttributeError(f"module {module!r} has no attribute {old!r}")
        warn_renamed(f"{module}.{old}", f"{module}.{names[old]}")
        return getattr(sys.modules[module], names[old])

    return find


class Moved:
    """Finds and loads `MODULES`, for `sys.meta_path`: each has the names of its successor, and a warning."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        loader: Any = cls
        package, _, old = name.partition(".")
        return ModuleSpec(name, loader, is_package=True) if package == __package__ and old in MODULES else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Python's own empty module will do."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        old = module.__name__.partition(".")[2]
        place = MODULES[old]
        warn_renamed(module.__name__, f"{__package__}.{place}")
        found = vars(import_module(f".{place.partition('.')[0]}", __package__)) | vars(import_module(f".{place}", __package__))
        names = {k: v for k, v in found.items() if not k.startswith("_") and not isinstance(v, ModuleType)}
        names |= {name: names[now] for name, now in NAMES.items() if now in names}
        vars(module).update(names, __all__=[*names])
        for below in (name for name in MODULES if name.startswith(f"{old}.")):
            import_module(f".{below}", __package__)
