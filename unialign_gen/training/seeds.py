"""What is drawn by a hash, the same wherever and whenever it is drawn."""

from __future__ import annotations

import hashlib


def derived(*key: int) -> int:
    """A seed in [0, 2^63) from the SHA-256 of a key of numbers: other keys, however near, give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def unit_hash(name: str) -> float:
    """In [0, 1), from SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
