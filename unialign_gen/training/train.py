"""The training loop, on Accelerate: one process or many, any device, the same batches and the same losses."""

from __future__ import annotations

import copy
import math
import shutil
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from ..config import to_dict
from ..errors import InputError
from ..notes import note
from ..objectives import Objective
from .checkpoint import fill, gathered, load_shares, save_shares, state_of
from .config import TrainConfig
from .evaluation import evaluate, measurable
from .features import Source, embed_mean
from .folder import HEADS, RunFolder
from .model import is_lost, loss_of, whole_batch_gradients
from .parallel import compile_blocks, fsdp_plugin, merged, recompute, shard, whole
from .rows import Rows, StreamBatch
from .schedule import warm_then_cool
from .seeds import derived
from .state import prepare
from .trackers import flat, tracker_options

RAW_ROWS = 32  # samples that a trained encoder sees at a time when it is measured
FORMAT = 2  # of the saved state


class DivergedError(InputError):
    """Weights or losses that are no numbers any more."""

    def __init__(self, what: str, step: int):
        super().__init__(f"the training diverged, {what} at step {step}: lower lr, or use precision bf16 or no")


def seed(number: int, device: torch.device) -> None:
    """Seeds what is drawn on a device. `torch.manual_seed` notes the call stack for GPUs not in use, milliseconds each time."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Set by SIGTERM or SIGINT inside the block: the loop ends at the next step. Threads other than the main one get none."""
    asked, main = threading.Event(), threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, lambda *_: asked.set()) for s in ((signal.SIGTERM, signal.SIGINT) if main else ())}
    try:
        yield asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@dataclass
class Result:
    """How a call ended.

    Attributes:
        step: steps done in all; `finished` says whether that is all of them.
        metrics: of the last measurement.
        heads: the folder of the kept heads, if some are kept yet.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    heads: Path | None

    @property
    def finished(self) -> bool:
        return self.step >= self.steps


def train(config: TrainConfig, accelerator: Accelerator | None = None) -> Result:
    """Trains until the run's end or until the process is asked to stop; goes on from the run folder's state.

    Under `accelerate launch` or `torchrun` the processes share every batch. The same configuration gives the same losses
    however often the run is stopped and resumed; with no dropout also on any number of processes, up to rounding.

    Raises:
        InputError: a configuration that cannot be run, or a run folder of another one.
    """
    installed = {str(tracker.value) for tracker in get_available_trackers()}
    if absent := [name for name in config.trackers if name not in installed]:
        raise InputError(f"trackers: {absent[0]} is not there: install it, or choose from {', '.join(sorted(installed))} or []")
    if accelerator is None:
        AcceleratorState._reset_state()  # of an earlier run in this process, perhaps of another precision
    accelerator = accelerator or Accelerator(
        mixed_precision=config.precision,
        log_with=config.trackers or None,
        project_dir=config.out,
        cpu=not torch.accelerator.is_available(),  # without it processes on a machine without a GPU would not find each other
    )
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError("precision fp16 would change nothing on a processor: choose bf16, or no")
    return Trainer(config, accelerator).go()


class Trainer:
    """One process's side of a run."""

    def __init__(self, config: TrainConfig, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        for i, stream in enumerate(config.streams):
            if stream.batch % self.world:
                raise InputError(f"streams[{i}]: a batch of {stream.batch} cannot be shared by {self.world} processes")
        self.folder = RunFolder(config.out)
        self.folder.check(config)
        plugin = fsdp_plugin()
        self.state = prepare(config)
        self.folder.check_inputs(self.state.inputs)
        self.plain = self.state.heads
        # what is kept is whole and without LoRA: where the trained weights are not, a copy of them takes their values
        apart = plugin is not None or bool(config.lora)
        self.copy = copy.deepcopy(self.plain) if apart and accelerator.is_main_process else None
        if config.activation_checkpointing or (plugin is not None and plugin.activation_checkpointing):
            recompute(self.plain)
        if config.compile is not None:
            compile_blocks(self.plain, config.compile)
        self.sharded = plugin is not None
        if plugin is None:
            self.heads = accelerator.prepare(self.plain)
        else:
            shard(self.plain, plugin, accelerator.device, self.world)
            self.heads = self.plain
        self.objective = self.state.objective.to(accelerator.device)
        self.trained = [p for p in self.plain.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": list(self.plain.heads.parameters()), "rate": 1.0}]
        if moving := [p for p in self.plain.encoders.parameters() if p.requires_grad]:
            groups.append({"params": moving, "rate": config.encoder_rate})
        if own := list(self.objective.parameters()):
            groups.append({"params": own, "weight_decay": 0.0, "rate": 1.0})
        self.optimiser = torch.optim.AdamW(
            groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.average = [p.detach().clone() for p in self.trained] if config.ema else []
        self.ahead = ThreadPoolExecutor(1)  # draws a step's batch while the one before is computed
        self.next: tuple[int, Future[list[StreamBatch]]] | None = None
        sources, means, limit = self.state.sources, self.state.means, config.evaluation.limit
        self.measured = sorted(config.heads.keys() - {config.anchor})
        names = measurable(self.measured, sources, means, config.anchor, limit)
        self._check_metric(names)  # not after the first steps
        if not names and config.evaluation.held_out:
            note("few held out", "nothing that is held out can be measured, the last heads are kept: raise evaluation.held_out")
        self.step, self.saved, self.best = 0, 0, -math.inf
        self.metrics: dict[str, float] = {}
        accelerator.wait_for_everyone()  # until all have found the folder as it was
        self.run_id = self.folder.start(config, self.state.inputs) if accelerator.is_main_process else ""
        if (state := self.folder.load_state()) is not None:
            self._load(state)
        if accelerator.is_main_process:
            self.folder.forget_after(self.step)

    def _check_metric(self, names: Collection[str]) -> None:
        """Refuses a metric that is not among what can be measured, if anything can."""
        metric = self.config.evaluation.metric
        if names and metric not in names:
            raise InputError(f"evaluation.metric: there is no {metric}, but {', '.join(names)}")

    def _tensors(self) -> dict[str, Tensor]:
        return state_of(self.plain, self.objective, self.optimiser, self.average)

    def _load(self, state: dict[str, Any]) -> None:
        if state.get("format") != FORMAT:
            raise InputError(
                f"{self.folder.path} holds the state of another version: finish the run with the version that about.json "
                "names, or choose another folder"
            )
        if state["shares"]:
            load_shares(self._tensors(), self.folder.path / state["shares"])
        else:
            fill(self._tensors(), state["tensors"])
        self.objective.load_state_dict(state["objective"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.metrics = state["step"], state["best"], state["metrics"]
        self.saved = self.step

    def _save(self) -> None:
        """Keeps the state to go on from: all processes take part."""
        if self.step == self.saved:
            return
        tensors, shares, main = self._tensors(), "", self.accelerator.is_main_process
        if self.config.sharded_state and self.world > 1:
            shares = f"state-{self.step}"
            if main:
                shutil.rmtree(self.folder.path / shares, ignore_errors=True)  # a kill may have left some
            self.accelerator.wait_for_everyone()
            save_shares(tensors, self.folder.path / shares)
        else:
            tensors = gathered(tensors, keep=main)
        self.saved = self.step
        if not main:
            return
        scaler = self.accelerator.scaler
        self.folder.save_state(
            {
                "format": FORMAT,
                "tensors": {} if shares else tensors,
                "shares": shares,
                "objective": self.objective.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
                "step": self.step,
                "best": self.best,
                "metrics": self.metrics,
            }
        )
        self.folder.forget_shares(but=shares)

    def _keep(self) -> None:
        """Writes the trained weights as heads and encoders that load by themselves: all processes take part."""
        into = {} if self.copy is None else self.copy.state_dict()
        if self.sharded or into:
            for name, value in self.plain.state_dict().items():
                value = whole(value)
                if into:
                    into[name].copy_(value)
        if self.accelerator.is_main_process:
            trained = self.plain if self.copy is None else merged(self.copy) if self.config.lora else self.copy
            self.folder.keep(trained, self.state.descriptions)

    def go(self) -> Result:
        accelerator, steps = self.accelerator, self.state.steps
        if self.config.trackers:
            config = flat(to_dict(self.config)) if self.step == 0 else None  # a run that goes on has it
            options = tracker_options(self.config.out, self.run_id, self.step)
            accelerator.init_trackers("unialign_gen", config, {k: v for k, v in options.items() if k in self.config.trackers})
        bar = tqdm(total=steps, initial=min(self.step, steps), desc="training", disable=None if self.rank == 0 else True)
        with stop_signals() as stop, bar:
            while self.step < steps and not self._any(stop.is_set()):
                row = self.update()
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                self._measure(row, steps)
                if self.step % self.config.save_every == 0 or self.step == steps:
                    self._save()
        if self.step < steps:  # some process was asked to stop
            self._save()
        if self.config.trackers:
            accelerator.end_training()
        self.ahead.shutdown()
        if self.state.raw_inputs is not None:
            found = gather_object(list(self.state.raw_inputs.problems.values()))
            if self.accelerator.is_main_process:
                self.folder.keep_problems(found)
        heads = self.folder.path / HEADS
        return Result(self.step, steps, self.metrics, heads if heads.is_dir() else None)

    def _any(self, asked: bool) -> bool:
        """Whether it is so in any process: they stop, and keep what they trained, at the same step."""
        if self.world == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def update(self) -> dict[str, Any]:
        """One step; returns its row of the log."""
        config, accelerator, scaler = self.config, self.accelerator, self.accelerator.scaler
        factor = warm_then_cool(self.step / self.state.steps, config.warmup, config.decay_fraction)
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * factor * group["rate"]
        batches = [batch.to(accelerator.device) for batch in self._batches()]
        terms: dict[str, float] = {}

        def encode(rows: list[dict[str, Rows]], part: int) -> list[dict[str, Tensor]]:
            seed(derived(config.seed, self.step, self.rank, part), accelerator.device)
            with accelerator.autocast():
                return self.heads(rows)

        def value(z: list[dict[str, Tensor]]) -> Tensor:
            total = []
            for i, (points, batch, stream) in enumerate(zip(z, batches, config.streams, strict=True)):
                try:
                    loss, parts = loss_of(self.objective, points, batch, config.anchor, stream.detach)
                except InputError as error:
                    if not any(is_lost(x, batch.rows[name]) for name, x in points.items()):
                        raise
                    raise DivergedError(str(error), self.step + 1) from error
                prefix = f"{i}/" if len(batches) > 1 else ""
                terms.update({f"{prefix}{name}": float(part) for name, part in parts.items()})
                total.append(stream.weight * loss)
            return torch.stack(total).sum()

        self.optimiser.zero_grad()
        loss = whole_batch_gradients(
            encode,
            batches,
            value,
            list(self.objective.parameters()),
            config.micro_batch,
            (lambda loss: loss) if scaler is None else scaler.scale,
            nullcontext if self.sharded else lambda: accelerator.no_sync(self.heads),  # shares of gradients need less memory
        )
        for parameter in self.objective.parameters() if self.world > 1 else ():  # averaged as those of the heads are
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
        row: dict[str, Any] = {"step": self.step + 1, "loss": float(loss), "lr": config.lr * factor, **terms}
        if scaler is not None:
            scaler.unscale_(self.optimiser)
        if config.clip:
            row["gradient"] = float(whole(torch.nn.utils.clip_grad_norm_(self.trained, config.clip)))
        if not math.isfinite(row["loss"]):
            raise DivergedError(f"the loss is {row['loss']}", self.step + 1)
        if scaler is None:
            self.optimiser.step()
        else:
            scaler.step(self.optimiser)
            scaler.update()
        if isinstance(self.objective, Objective):
            self.objective.after_step()
        if self.average:
            decay = min(config.ema, (1 + self.step) / (10 + self.step)) if self.step else 0.0  # the start is soon forgotten
            for mean, parameter in zip(self.average, self.trained, strict=True):
                mean.lerp_(parameter.detach(), 1 - decay)
        return row

    def _batches(self) -> list[StreamBatch]:
        """This step's batches; those of the next are begun where the processor waits for a device, or for files."""

        def draw(step: int) -> list[StreamBatch]:
            return [b.batch(step, self.rank, self.world) for b in self.state.batches]

        if self.accelerator.device.type == "cpu" and self.state.raw_inputs is None:
            return draw(self.step)
        drawn = self.next[1].result() if self.next is not None and self.next[0] == self.step else draw(self.step)
        self.next = (self.step + 1, self.ahead.submit(draw, self.step + 1))
        return drawn

    def _measure(self, row: dict[str, Any], steps: int) -> None:
        """Logs a step, and measures and keeps the heads when it is time."""
        every = self.config.evaluation.every
        if self.step == steps or (every and self.step % every == 0):
            self.metrics = self._evaluate()
            row |= self.metrics
        if not self.accelerator.is_main_process:
            return
        self.folder.log({k: v if isinstance(v, int) else float(f"{v:.6g}") for k, v in row.items()})
        if self.config.trackers:
            self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=self.step)

    def _evaluate(self) -> dict[str, float]:
        """Measures the averaged weights, and keeps them if they are the best so far (or if nothing can be measured)."""
        state, config = self.state, self.config
        self._swap()
        try:
            self.plain.eval()
            found = evaluate(self.measured, self._embed, state.sources, state.means, config.anchor, config.evaluation.limit)
            self._check_metric(found)
            score = found.get(config.evaluation.metric, math.inf)
            if config.evaluation.metric.endswith("gap") and math.isfinite(score):  # the smallest is best
                score = -score
            if self._any(self.accelerator.is_main_process and score >= self.best):  # its numbers count: a last bit may differ
                self.best = score
                self._keep()
            self.plain.train()
        finally:
            self._swap()
        return found

    def _embed(self, modality: str, source: Source, samples: Tensor) -> Tensor:
        """Unit embeddings (n, d) of samples on the processor, with the weights as they are; zeros where one lacks it."""
        if modality not in self.config.heads:  # the frozen anchor
            return self.state.points[source.name][samples]
        z = self._embedded(modality, source, samples)
        if not bool(z.isfinite().all()) or bool((source.has(modality)[samples] & ~z.any(1)).all()):
            raise DivergedError(f"{modality} is zero, NaN or infinite", self.step)
        return z

    def _embedded(self, modality: str, source: Source, samples: Tensor) -> Tensor:
        device, raw_inputs = self.accelerator.device, self.state.raw_inputs
        if raw_inputs is not None and modality in raw_inputs.encoders:
            parts = []
            for some in samples.split(RAW_ROWS):
                nothing = torch.zeros(len(some))
                rows = raw_inputs.rows(modality, [source.name], nothing.long(), some, nothing)
                parts.append(self.plain.encode(modality, rows.to(device)).cpu())
            return torch.cat(parts)
        ragged = source.rows[modality].some(samples)
        if self.config.heads[modality].rows == "one":
            ragged = ragged.first()
        return embed_mean(ragged, self.plain.heads[modality], device)

    @torch.no_grad()
    def _swap(self) -> None:
        """Puts the average in place of the weights, and the weights in its place."""
        for mean, parameter in zip(self.average, self.trained, strict=bool(self.average)):
            now = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(now)
