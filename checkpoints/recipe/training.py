"""What the recipe's trainings share: one resumable loop, a clock for sittings, a moving average, bf16 convolutions."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn

SHIFT = 4  # pixels


class Stateful(Protocol):
    """A model, an optimiser, an average: what a state file keeps."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Clock:
    """Counts a sitting's seconds; ends it when they are used up or when the process is asked to stop.

    SIGTERM and SIGINT end the loop at the next step instead of killing it, so that the state is saved.
    """

    def __init__(self, minutes: float, timer: Callable[[], float] = time.monotonic):
        self.timer = timer
        self.start = timer()
        self.limit = minutes * 60
        self.stopped = False
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    @property
    def seconds(self) -> float:
        return self.timer() - self.start

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


def first_says(value: float) -> float:
    """The first process's value, in all of them: clocks differ, and learning rates must not."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return shared.item()


class Average:
    """Exponential moving average of a module's parameters with the warm-up of Karras et al. 2022, `1 - 1/(t+1)` capped.

    Floating-point buffers are averaged too, others stay as they were: the models here have none that change.
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


def loop(
    step: Callable[[float, torch.Generator], Tensor],
    parts: Mapping[str, Stateful],
    state: Path,
    *,
    samples: int,
    minutes: float,
    batch: int,
    seed: int = 0,
    last: bool = False,
    timer: Callable[[], float] = time.monotonic,
    counted: str = "samples",
) -> None:
    """Calls `step(progress, generator) -> loss` until `samples` in all or `minutes` of this sitting are used up.

    `progress` is the share of `samples` done, or in the `last` sitting the share of its time if that is more, so that a
    learning rate that cools with progress reaches its end whatever the machine's speed. The generator depends on the number
    of samples done and the seed alone: a resumed run draws what an uninterrupted one would. `parts` are kept in the file
    `state` every five minutes and at the end, and taken from it at the start. Every minute the running mean of the loss goes
    to `log.jsonl` beside it; `timer` (seconds) may be the processor's time instead of the wall's. Under `torchrun` the
    processes stop together, and the first one alone writes.
    """
    first = processes()[0] == 0
    done = 0
    if known := load_state(state):
        for name, part in parts.items():
            part.load_state_dict(known[name])
        done = known["done"]

    def save() -> None:
        if first:
            save_state(state, {name: part.state_dict() for name, part in parts.items()} | {"done": done})

    clock, logged, saved = Clock(minutes, timer), 0.0, 0.0
    running: float | None = None
    while agreed(done < samples and clock.left()):
        progress = first_says(max(done / samples, clock.seconds / clock.limit if last else 0.0))
        loss = step(progress, torch.Generator().manual_seed(seed * 1_000_003 + done)).item()
        done += batch
        running = loss if running is None else 0.99 * running + 0.01 * loss
        if first and clock.seconds - logged > 60:
            logged = clock.seconds
            log(state.parent / "log.jsonl", **{counted: done, "seconds": clock.seconds, "loss": running})
        if clock.seconds - saved > 300:
            saved = clock.seconds
            save()
    save()


def update(loss: Tensor, optimiser: torch.optim.Optimizer, lr: float) -> None:
    """One optimiser step at the rate `lr`, gradients clipped to norm 1."""
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()


@contextmanager
def bf16_convolutions(*modules: nn.Module | None) -> Iterator[None]:
    """Convolutions in bf16, everything else and all parameters in fp32.

    On processors with bf16 dot products a UNet's step takes two thirds of the time. Autocast gains less, since group norms
    and activations are slower in bf16.
    """
    changed = [m for module in modules if module is not None for m in module.modules() if isinstance(m, nn.Conv2d)]

    def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
        if isinstance(conv, Conv2dSame):  # TensorFlow's padding depends on the input's size
            x = pad_same(x, conv.weight.shape[-2:], conv.stride, conv.dilation)
        bias = None if conv.bias is None else conv.bias.bfloat16()
        y = F.conv2d(x.bfloat16(), conv.weight.bfloat16(), bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        return y.float()

    for conv in changed:
        conv.forward = functools.partial(convolve, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in changed:
            vars(conv).pop("forward", None)


def pixels_of(pictures: Tensor) -> Tensor:
    """uint8 (N, h, w, 3) to float (N, 3, h, w) in [-1, 1], channels last."""
    return (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, h, w) moved by up to four pixels, all alike, on white."""
    y, x = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    h, w = pictures.shape[-2:]
    moved = F.pad(pictures, (SHIFT,) * 4, value=1.0)[..., y : y + h, x : x + w]
    return moved.contiguous(memory_format=torch.channels_last)
