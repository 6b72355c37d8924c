"""How far a long step is, and how long it will take still."""

from __future__ import annotations

import sys
import time


class Progress:
    """Says on stderr, every ten seconds, what is done and what is left.

    Args:
        name: of the step.
        total: number of items.
    """

    def __init__(self, name: str, total: int):
        self.name, self.total, self.at, self.computed = name, total, 0, 0
        self.start = self.said = time.monotonic()

    def skip(self, count: int) -> None:
        """Items that were there already."""
        self.at += count

    def done(self, count: int, **measured: float) -> None:
        """Items that took their time, and what is said of the last one."""
        self.at += count
        self.computed += count
        now = time.monotonic()
        if now - self.said > 10 or (self.at >= self.total and now - self.start > 1):
            self.said = now
            left = (self.total - self.at) * (now - self.start) / self.computed
            values = "".join(f", {name} {value:.3f}" for name, value in measured.items())
            sys.stderr.write(f"{self.name}: {self.at} of {self.total}, {left / 60:.1f} minutes left{values}\n")
