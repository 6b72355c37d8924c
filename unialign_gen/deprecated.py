"""Names of the first edition, which go on working for one release."""

from __future__ import annotations

import warnings
from typing import Any

KEYS = {"tower": "encoder", "towers": "encoders"}  # of configurations, old to new


def current_keys(config: Any) -> Any:
    """A configuration with its old keys renamed, at any depth."""
    if isinstance(config, dict):
        return {KEYS.get(key, key): current_keys(value) for key, value in config.items()}
    return [current_keys(value) for value in config] if isinstance(config, list) else config


def warn_renamed(old: str, new: str) -> None:
    """Says once a place that an old name was used."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release", FutureWarning, stacklevel=3)
