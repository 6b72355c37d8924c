"""What the benchmarks measure with: seconds by the clock and of processors."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def spent(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a call by the clock, and of processors (all threads, and processes that it began and that have ended)."""
    begun, used = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - begun, sum(os.times()[:4]) - used


def seconds(
    work: Callable[[], Any],
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    device: str = "cpu",
) -> float:
    """The median of `repeats` calls after one that warms up, which alone counts where there are none.

    Args:
        device: what it is given is computed when a call counts as done.
    """
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(repeats + 1):
        wait()
        begun = clock()
        work()
        wait()
        times.append(clock() - begun)
    return statistics.median(times[1:] or times)
