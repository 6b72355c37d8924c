"""Seeds for what is drawn: one for each purpose, stream, step and so on, independent of all others."""

from __future__ import annotations

import hashlib


def derived(*key: int) -> int:
    """A seed in [0, 2^63) from the SHA-256 of a key of numbers: other keys, however near, give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
