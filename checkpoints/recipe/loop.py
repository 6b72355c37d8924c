"""What the decoders' trainings share: one resumable loop, Muon, a weight average, convolutions in bf16."""

from __future__ import annotations

import functools
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from unialign_gen.errors import InputError
from unialign_gen.output import written

logger = logging.getLogger(__name__)
STATE, LOG = "state.pt", "log.jsonl"


def loop(
    step: Callable[[int, float, torch.Generator], Tensor],
    parts: Mapping[str, Any],
    folder: Path,
    *,
    minutes: float,
    batch: int,
    write: Callable[[], dict[str, float]],
    cool: bool = False,
    device: str = "cpu",
    save_every: float = 60,
    write_every: float = 300,
    most: int | None = None,
) -> None:
    """Calls `step(done, rate, generator) -> loss` for so many minutes, or until SIGTERM or SIGINT.

    `done` counts the samples of all sittings; `rate` is a factor of the learning rate, 1, or where it is to `cool` the share of
    this sitting that is left. The generator depends on `done` alone: a resumed run draws what an uninterrupted one would.
    `parts`, which have a `state_dict`, are read from `state.pt` in `folder` and kept there every `save_every` seconds and at
    the end; a kill leaves the old state or the new one. `write()` is called every `write_every` seconds and at the end, for
    what others read; what it measures is logged. `most` ends this sitting after so many samples.

    Raises:
        InputError: `folder` holds the state of another network.
    """
    done = 0
    if (folder / STATE).exists():
        known = torch.load(folder / STATE, weights_only=True, map_location=device)
        try:
            for name, part in parts.items():
                part.load_state_dict(known[name])
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{folder / STATE} is of a network of other sizes: choose another folder, or its sizes") from error
        done = known["done"]
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {sig: signal.signal(sig, stop) for sig in (signal.SIGTERM, signal.SIGINT)}
    start = saved = shown = time.monotonic()
    first, losses = done, list[Tensor]()

    folder.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        with written(folder / STATE) as file:
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"done": done}, file)

    def log(**measured: float) -> None:
        seconds = round(time.monotonic() - start, 1)
        line = {"samples": done, "seconds": seconds, "rate": round((done - first) / max(seconds, 0.1), 1)}
        if losses:
            line["loss"] = torch.stack(losses).mean().item()
            losses.clear()
        with (folder / LOG).open("a") as out:
            out.write(json.dumps(line | measured) + "\n")
        logger.info("%s", line | measured)

    try:
        while not stopped and (now := time.monotonic()) - start < 60 * minutes and (most is None or done - first < most):
            rate = 1 - (now - start) / (60 * minutes) if cool else 1.0
            losses.append(step(done, rate, torch.Generator(device).manual_seed(done)))
            done += batch
            if time.monotonic() - saved > save_every:
                save()
                log()
                saved = time.monotonic()
            if time.monotonic() - shown > write_every:
                log(**write())
                shown = time.monotonic()
        save()
        log(**write())
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


class Muon:
    """Muon (Jordan et al. 2024) for the weights of convolutions and linear layers, AdamW for all else.

    torch's Muon takes matrices only, so a convolution's weight is shown to it as (out, height * width * in), a view of the same
    memory where the model is channels last. First and last layer, whose sides are small, stay with AdamW.
    """

    def __init__(self, model: nn.Module, betas: tuple[float, float] = (0.9, 0.98)):
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.rest: list[nn.Parameter] = []
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            if p.ndim < 2 or min(p.shape[0], p[0].numel()) < 32 or "conv_in" in name or "conv_out" in name:
                self.rest.append(p)
            else:
                self.pairs.append((p, nn.Parameter(as_matrix(p.data))))
        matrices = [m for _, m in self.pairs]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self.rest, betas=betas, weight_decay=0.01, fused=True),
            torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        ]

    def update(self, loss: Tensor, lr: float) -> None:
        """One step at the rate `lr`. Muon's steps have a size of their own, so only the other gradients are clipped."""
        for p in [*self.rest, *(p for p, _ in self.pairs)]:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        for p, matrix in self.pairs:
            matrix.grad = None if p.grad is None else as_matrix(p.grad)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = lr
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(i): optimiser.state_dict() for i, optimiser in enumerate(self.optimisers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, optimiser in enumerate(self.optimisers):
            optimiser.load_state_dict(state[str(i)])


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix; that of a convolution kept channels last becomes a view of it."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1) if weight.ndim == 4 else weight


def average(model: nn.Module, decay: float = 0.999) -> EMAModel:
    """A moving average of a model's parameters, short at first (Karras et al. 2022)."""
    return EMAModel(model.parameters(), decay=decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75, foreach=True)


@contextmanager
def averaged(model: nn.Module, mean: EMAModel) -> Iterator[None]:
    """The model with its averaged weights, in evaluation mode; afterwards it is as before."""
    mean.store(model.parameters())
    mean.copy_to(model.parameters())
    model.eval()
    try:
        yield
    finally:
        mean.restore(model.parameters())
        model.train()


@contextmanager
def fast(device: str, *modules: nn.Module | None) -> Iterator[None]:
    """bf16 where it pays: autocast on CUDA; on a CPU the convolutions alone, since its group norms are slower in bf16."""
    if device != "cpu":
        with torch.autocast(device, torch.bfloat16):
            yield
        return
    changed = [m for module in modules if module is not None for m in module.modules() if type(m) is nn.Conv2d]

    def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
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


def bytes_of(pixels: Tensor) -> Tensor:
    """Its inverse; what lies outside of [-1, 1] is clipped."""
    return (pixels.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1)
