"""Large encoders: LoRA, recomputed activations, compiled blocks, and weights that are shared out between processes.

What an encoder repeats (the layers of a transformer, the stages of a convolutional network) is wrapped block by block.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from ..errors import InputError, as_input_error
from .config import LoraConfig
from .model import Heads

COMPILED = 64  # variants of a block for other lengths and batch sizes, before it runs as it is


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that are repeated: members of a list or sequence of one class, two or more."""
    for child in module.children():
        members = list(child.children()) if isinstance(child, nn.ModuleList | nn.Sequential) else []
        if len(members) > 1 and len({type(m) for m in members}) == 1 and any(True for _ in child.parameters()):
            yield from members
        else:
            yield from blocks(child)


def add_lora(encoder: nn.Module, config: LoraConfig, name: str) -> None:
    """Freezes an encoder and puts trainable updates of low rank beside its linear layers (Hu et al. 2021).

    Raises:
        InputError: peft is not installed, or the encoder has no such layers.
    """
    with as_input_error(f"{name}: LoRA needs peft: pip install peft", ImportError):
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    inside = {id(m) for block in blocks(encoder) for m in block.modules()}
    names = [n for n, m in encoder.named_modules() if type(m) is nn.Linear and id(m) in inside]
    encoder.requires_grad_(False)
    torch.backends.mha.set_fastpath_enabled(False)  # torch's fast path of a whole layer reads the weights past the updates
    options: dict[str, Any] = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
    with as_input_error(f"{name}.layers: {{short}}", ValueError):
        inject_adapter_in_model(PeftConfig(target_modules=config.layers or names, **options), encoder)


def merged(heads: Heads) -> Heads:
    """A copy whose encoders have the updates of `add_lora` in their weights, as plain encoders."""
    made = copy.deepcopy(heads)
    for name, module in list(made.named_modules()):
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            module.merge()
            made.set_submodule(name, module.get_base_layer())
    return made


def recompute(heads: Heads) -> None:
    """Blocks of encoders compute their activations again in the backward pass, in place of keeping them (Chen et al. 2016)."""
    for block in blocks(heads.encoders):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def compile_blocks(heads: Heads, backend: str) -> None:
    """Compiles every block of the encoders, and every head; names of weights stay.

    Raises:
        InputError: no such backend.
    """
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        raise InputError(f"compile: there is no backend {backend}: choose from {', '.join(torch.compiler.list_backends())}")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED)
    for module in (*blocks(heads.encoders), *heads.heads.values()):
        module.compile(backend=backend)


def fsdp_plugin() -> FullyShardedDataParallelPlugin | None:
    """What the launcher's configuration says of FSDP, if it asks for it.

    Raises:
        InputError: FSDP's first version.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return None
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise InputError("this trains with FSDP2: set fsdp_version: 2 in Accelerate's configuration, or FSDP_VERSION=2")
    return plugin


def shard(heads: Heads, plugin: FullyShardedDataParallelPlugin, device: torch.device, world: int) -> None:
    """Shares every weight out over all processes (FSDP2), block by block; each is whole only while its block computes."""
    mesh = init_device_mesh(device.type, (world,))
    offload = plugin.cpu_offload if device.type != "cpu" else OffloadPolicy()
    options: dict[str, Any] = {"mesh": mesh, "offload_policy": offload}
    options["reshard_after_forward"] = bool(plugin.reshard_after_forward)
    for module in (*blocks(heads.encoders), *heads.encoders.values(), *heads.heads.values(), heads):
        fully_shard(module, **options)


def whole(value: Tensor) -> Tensor:
    """A tensor as it is in all processes together; all of them must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def place(value: Tensor, at: Tensor) -> None:
    """Copies a whole tensor into one that may be shared out."""
    if isinstance(at, DTensor):
        value = distribute_tensor(value.to(at.device), at.device_mesh, at.placements, src_data_rank=None)
    with torch.no_grad():
        at.copy_(value)
