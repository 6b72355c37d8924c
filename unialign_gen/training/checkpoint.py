"""What a run goes on from: tensors by name, whole in one file or each process's share of them in a file of its own.

The names do not depend on how many processes there are, nor on how weights are shared out between them; so a run goes on from
either form on any number of processes. Shares are safetensors, written and read by `torch.distributed.checkpoint`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint, is_initialized
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from ..errors import InputError, as_input_error
from .parallel import place, whole

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, by parameter


def state_of(
    model: nn.Module, objective: nn.Module, optimiser: torch.optim.Optimizer, average: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Every tensor that training changes, by name, as it lies in this process; frozen weights are not among them.

    Args:
        average: of the trained weights, in their order; empty without one.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    found = {f"weights.{name}": value for name, value in model.state_dict().items() if name not in frozen}
    found |= {f"average.{name}": value for name, value in zip(trained, average, strict=False)}
    for name, parameter in (trained | {f"objective.{n}": p for n, p in objective.named_parameters()}).items():
        moments = optimiser.state[parameter]
        if not moments:  # before the first step: what is loaded needs a place
            moments |= {"step": torch.zeros(()), **{key: torch.zeros_like(parameter) for key in MOMENTS[1:]}}
        found |= {f"{key}.{name}": moments[key] for key in MOMENTS}
    return found


def gathered(state: dict[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Whole tensors on the processor. Every process must ask; one that does not keep them gets none."""
    found = {}
    for name, value in state.items():
        value = whole(value.detach())
        if keep:
            found[name] = value.cpu()
    return found


def fill(state: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Puts whole tensors where those of a state are.

    Raises:
        InputError: they are not those of this run.
    """
    if missing := sorted(state.keys() ^ saved.keys()):
        raise InputError(f"the saved state is of other weights, such as {missing[0]}: start anew in another folder")
    for name, value in state.items():
        place(saved[name], value)


def save_shares(state: dict[str, Tensor], folder: Path) -> None:
    """Each process writes its share of the tensors."""
    state = {name: value.detach().contiguous() for name, value in state.items()}
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    checkpoint.save(state, storage_writer=writer)


def load_shares(state: dict[str, Tensor], folder: Path) -> None:
    """Fills a state from the shares that any number of processes wrote.

    Raises:
        InputError: they are not there, or not those of this run.
    """
    values = {name: value.detach() for name, value in state.items()}
    said = f"the saved state in {folder} cannot be read: {{short}}"
    with as_input_error(said, OSError, RuntimeError, checkpoint.CheckpointException), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process may go on too
        checkpoint.load(values, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not is_initialized())
