"""Splits that depend on nothing but an item's name."""

import hashlib


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) from the parts, the same on every machine."""
    return int(hashlib.sha1("|".join(parts).encode()).hexdigest()[:8], 16) / 2**32
