"""What the recipe's training loops share: resumable state, a clock for sittings, an exponential moving average."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


class Clock:
    """Counts a sitting's seconds; ends it when they are used up or when the process is asked to stop.

    SIGTERM and SIGINT end the loop at the next step instead of killing it, so that the state is saved.
    """

    def __init__(self, minutes: float):
        self.start = time.monotonic()
        self.limit = minutes * 60
        self.stopped = False
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def left(self) -> bool:
        return not self.stopped and self.seconds < self.limit


def processes() -> tuple[int, int]:
    """(rank, world size), joining the group that `torchrun` describes in the environment; (0, 1) without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def agreed(going: bool) -> bool:
    """True while every process wants to go on: they leave a loop at the same step."""
    if not dist.is_initialized():
        return going
    flag = torch.tensor(float(going))
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


class Average:
    """Exponential moving average of a module's parameters with the warm-up of Karras et al. 2022, `1 - 1/(t+1)` capped.

    Buffers are copied, not averaged.
    """

    def __init__(self, module: torch.nn.Module, decay: float):
        self.module, self.decay, self.step_count = module, decay, 0
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def step(self) -> None:
        self.step_count += 1
        decay = min(self.decay, (1 + self.step_count) / (10 + self.step_count))
        live = self.module.state_dict()
        keys = [k for k, v in live.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in keys], [live[k] for k in keys], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow, "step_count": self.step_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow, self.step_count = state["shadow"], state["step_count"]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a training state so that a kill at any moment leaves the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True) if path.exists() else None


def log(path: Path, **values: float) -> None:
    """One JSON line for a program, the same line for a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    with path.open("a") as f:
        f.write(json.dumps(row) + "\n")
    print(" ".join(f"{k} {v}" for k, v in row.items()), flush=True)  # noqa: T201  a recipe step reports on stdout


def warm_then_cool(progress: float, warm: float = 0.02, cool: float = 0.25) -> float:
    """Learning-rate factor: linear warm-up, constant, cosine to zero over the last `cool` of the run."""
    if progress < warm:
        return max(progress / warm, 1e-3)
    if progress < 1 - cool:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 1 + cool) / cool)))
