"""The training that autoencoder, decoders and upscaler share: it can be killed and goes on; Muon, a weight average, bf16."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unialign_gen.errors import as_input_error
from unialign_gen.output import written
from unialign_gen.training.train import stop_signals

from .rows import numbered

STATE, LOG = "state.pt", "log.jsonl"
WARM_STEPS = 200
MOMENTUM, DECAY, SCHULZ = 0.95, 0.01, (3.4445, -4.775, 2.0315)
BF16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))  # processors without it imitate bf16, many times slower


def train(
    model: nn.Module,
    loss: Callable[[int, torch.Generator], Tensor],
    write: Callable[[Any], dict[str, float] | None],
    folder: Path,
    *,
    lr: float,
    batch: int,
    minutes: float,
    cool: bool = False,
    device: str = "cpu",
    most: int | None = None,
    every: float = 300,
) -> Any:
    """Trains a model for so many minutes, or until SIGTERM or SIGINT, from where `folder` left it; returns the last average.

    The state lies in `state.pt`; a kill leaves the old one or the new one. The average of the weights is short at first
    (Karras et al. 2022).

    Args:
        loss: of one batch, by the number of samples that all sittings have seen before it, and a generator that depends on
            that number alone: a resumed run draws what an uninterrupted one would.
        write: writes an averaged copy of the model for others to read; what it measures, if anything, is logged.
        batch: samples a step.
        cool: the learning rate falls to zero over this sitting: for the last one.
        most: samples in this sitting at the most.
        every: seconds between states, which are written, logged and given to `write`, as they are at the end.

    Raises:
        InputError: `folder` holds the state of another network.
    """
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = Muon(model)
    mean = EMAModel(model.parameters(), decay=0.999, use_ema_warmup=True, inv_gamma=1.0, power=0.75, foreach=True)
    parts: dict[str, Any] = {"model": model, "optimiser": optimiser, "average": mean}
    done = 0
    if (folder / STATE).exists():
        known = torch.load(folder / STATE, weights_only=True, map_location=device)
        other = f"{folder / STATE} is of a network of other sizes, or of another version: choose another folder, or its sizes"
        with as_input_error(other, RuntimeError, ValueError, KeyError):
            for name, part in parts.items():
                part.load_state_dict(known[name])
        done = known["done"]
    folder.mkdir(parents=True, exist_ok=True)
    start, first, losses = time.monotonic(), done, list[Tensor]()

    def keep() -> nn.Module:
        with written(folder / STATE) as file:
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"done": done}, file)
        averaged = copy.deepcopy(model).eval()
        mean.copy_to(averaged.parameters())
        seconds = time.monotonic() - start
        line = {"samples": done, "seconds": round(seconds, 1), "rate": round((done - first) / max(seconds, 0.1), 1)}
        if losses:
            line["loss"] = torch.stack(losses).mean().item()
            losses.clear()
        line |= write(averaged) or {}
        with (folder / LOG).open("a") as out:
            out.write(json.dumps(line) + "\n")
        sys.stderr.write(f"{line}\n")
        return averaged

    kept = start
    with stop_signals() as stop:
        while not stop.is_set() and (now := time.monotonic()) - start < 60 * minutes and (most is None or done - first < most):
            if now - kept > every:
                keep()
                kept = time.monotonic()
            with fast(device):
                value = loss(done, torch.Generator(device).manual_seed(done))
            rate = 1 - (now - start) / (60 * minutes) if cool else 1.0
            optimiser.step(value, lr * rate * min(1.0, (done / batch + 1) / WARM_STEPS))
            mean.step(model.parameters())
            losses.append(value.detach())
            done += batch
        return keep()


class Muon:
    """Muon (Jordan et al. 2024) for the weights of convolutions and linear layers, AdamW for all else.

    A convolution's weight is a matrix (out, height * width * in), a view of the same memory where the model is channels last.
    First and last layer, whose sides are small, stay with AdamW. torch's own Muon takes matrices only, and multiplies them in
    bf16, which processors without it imitate: a step of the decoders took a minute.
    """

    def __init__(self, model: nn.Module):
        self.model, self.rest, self.matrices = model, list[nn.Parameter](), list[nn.Parameter]()
        for name, p in model.named_parameters():
            small = p.ndim < 2 or min(p.shape[0], p[0].numel()) < 32 or "conv_in" in name or "conv_out" in name
            (self.rest if small else self.matrices).append(p)
        self.momenta = [torch.zeros_like(as_matrix(p.data)) for p in self.matrices]
        self.adamw = torch.optim.AdamW(self.rest, betas=(0.9, 0.98), weight_decay=DECAY, fused=True)

    def step(self, loss: Tensor, lr: float) -> None:
        """One step at the rate `lr`. Muon's steps have a size of their own, so only the other gradients are clipped."""
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        self.adamw.param_groups[0]["lr"] = lr
        self.adamw.step()
        for p, momentum in zip(self.matrices, self.momenta, strict=True):
            if p.grad is not None:
                weight, gradient = as_matrix(p.data), as_matrix(p.grad)
                momentum.lerp_(gradient, 1 - MOMENTUM)
                update = orthogonal(gradient.lerp(momentum, MOMENTUM))  # Nesterov's
                weight.mul_(1 - lr * DECAY).sub_(update, alpha=0.2 * lr * max(weight.shape) ** 0.5)  # as large as AdamW's

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adamw.load_state_dict(state["adamw"])
        for mine, kept in zip(self.momenta, state["momenta"], strict=True):
            mine.copy_(kept)


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix; that of a convolution kept channels last becomes a view of it."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1) if weight.ndim == 4 else weight


def orthogonal(x: Tensor) -> Tensor:
    """A matrix (m, n) with all its singular values brought near 1, by five steps of Newton and Schulz.

    The steps are polynomials of x x^T, so they are taken on it, which is smaller: the last product alone is as large as x.
    """
    if len(x) > x.shape[1]:
        return orthogonal(x.T).T
    gram = x @ x.T  # (m, m)
    size = gram.trace().clamp(min=1e-14)  # of x, squared
    gram, whole = gram / size, torch.eye(len(x), device=x.device)
    for _ in range(5):
        once = SCHULZ[1] * gram + SCHULZ[2] * gram @ gram
        once.diagonal().add_(SCHULZ[0])
        whole, gram = once @ whole, once @ gram @ once
    return whole @ x * size.rsqrt()


class HalfConvolutions(TorchFunctionMode):
    """Convolutions in bf16, where the processor has that, between layers in fp32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.conv2d:
            return func(*args, **kwargs or {})
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            return func(*args, **kwargs or {}).float()


def fast(device: str) -> Any:
    """bf16 where it pays: autocast on CUDA; on a CPU the convolutions alone, since its group norms are slower in bf16."""
    return HalfConvolutions() if device == "cpu" else torch.autocast(device, torch.bfloat16)


def sampling_weights(drawn: Iterable[tuple[str, str, float]], shares: Mapping[str, float]) -> Tensor:
    """How often each of N pictures is drawn, with sum 1, by its name, kind and gain.

    A name counts with the square root of how many have it. The kinds have their shares of what is drawn.
    """
    names, kinds, gains = zip(*drawn, strict=True)
    name, kind = numbered(names), numbered(kinds)
    weights = torch.bincount(name)[name].rsqrt() * torch.tensor(gains)
    weights = weights / torch.zeros(len(kind)).index_add_(0, kind, weights)[kind] * torch.tensor([shares[k] for k in kinds])
    return weights / weights.sum()


def pixels_of(pictures: Tensor) -> Tensor:
    """uint8 (N, h, w, 3) to float (N, 3, h, w) in [-1, 1], channels last."""
    return (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
