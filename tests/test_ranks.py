"""Objectives across processes (gloo): value and gradients equal those of one process with the whole batch."""

import os

import processes
import pytest
import torch
import torch.distributed as dist
from embeddings import batch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unialign_gen.objectives import (
    GRAM,
    PMRL,
    SCALAR,
    TRIANGLE,
    AnchoredInfoNCE,
    CauchySchwarz,
    InfoNCE,
    MeanOfOthers,
    ModGap,
    SigLIP,
    Symile,
    UniAlign,
    kernel,
)

B, FEATURES, DIM = 16, 10, 6
LOSSES = {
    "unialign": lambda: UniAlign(tau=0.5, tau_centroid=0.4),
    "unialign geodesic": lambda: UniAlign(tau=0.5, uniformity_geometry="geodesic", alignment_geometry="geodesic"),
    "infonce": lambda: InfoNCE(0.2, learnable=True),
    "anchored": lambda: AnchoredInfoNCE(tau=0.2, learnable=True),
    "gram": lambda: GRAM(tau=0.2, learnable=True),
    "triangle": lambda: TRIANGLE(tau=0.2),
    "pmrl": lambda: PMRL(0.3, 0.2),
    "modgap": lambda: ModGap(tau=0.2),
    "symile": lambda: Symile(tau=0.2),
    "cauchy_schwarz": lambda: CauchySchwarz(tau=0.2, bandwidth=0.7),
    "siglip": lambda: SigLIP(tau=0.2, bias=-2.0),
    "scalar": lambda: SCALAR(tau=0.2, masked=0.9, steps=1e-9),
    "mean_of_others": lambda: MeanOfOthers(tau=0.2),
}


class Heads(nn.Module):
    """Three heads and a loss with its own parameters, as a training step would have them."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleDict({n: nn.Linear(FEATURES, DIM) for n in ("image", "text", "audio")})
        self.loss = loss
        if hasattr(loss, "calls"):
            loss.calls += 1  # past the first step, where no view is masked

    def forward(self, features, masks):
        return self.loss({n: head(features[n]) for n, head in self.heads.items()}, masks)


def data(masked):
    features = batch(B, FEATURES, spread=0.5)  # fp64: in fp32 the geodesic kernel differs by 2e-5 with rounding alone
    # the first rank of four has no text at all
    masks = {"text": torch.arange(B) >= 5, "audio": torch.arange(B) % 3 > 0} if masked else None
    return features, masks


def step(model, rows, masked):
    features, masks = data(masked)
    value = model({n: x[rows] for n, x in features.items()}, masks and {n: m[rows] for n, m in masks.items()})
    value.backward()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return value.item(), [torch.zeros(()) if p.grad is None else p.grad.clone() for p in inner.parameters()]


def alone(rows, wrap=lambda module: module):
    """The gradient of a temperature that is in no wrapper, beside a head that is."""
    torch.manual_seed(0)
    loss, head = InfoNCE(0.2, learnable=True).double(), wrap(nn.Linear(FEATURES, DIM).double())
    loss({n: head(x[rows]) for n, x in data(False)[0].items()}).backward()
    return loss.temperature.log_scale.grad


def worker(rank, world, folder):
    dist.init_process_group("gloo")
    kernel.TILE, kernel.BLOCK = 5, 40  # several tiles
    out = {}
    rows = slice(rank * B // world, (rank + 1) * B // world)
    for name, make in LOSSES.items():
        for masked in (False, True):
            model = DistributedDataParallel(Heads(make()).double(), find_unused_parameters=False)
            out[name, masked] = step(model, rows, masked)
    out["alone"] = alone(rows, DistributedDataParallel)
    ragged = {n: x[: 4 + rank] for n, x in data(False)[0].items()}
    broken = {n: x[:4].clone() for n, x in data(False)[0].items()}
    if rank == world - 1:
        broken["text"][2] = float("nan")
    for name, given in (("ragged", ragged), ("broken", broken)):
        try:
            UniAlign()(given)
        except ValueError as error:
            out[name] = str(error)
    torch.save(out, os.path.join(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_equal_one_process(world, tmp_path):
    processes.together(world, worker, tmp_path)
    results = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(world)]
    for name, make in LOSSES.items():
        for masked in (False, True):
            value, grads = step(Heads(make()).double(), slice(None), masked)
            for got_value, got in (r[name, masked] for r in results):
                assert got_value == pytest.approx(value, rel=1e-9), (name, masked)
                for a, b in zip(got, grads, strict=True):
                    assert torch.allclose(a, b, atol=1e-7 * max(1.0, float(b.abs().max()))), (name, masked)
    assert all(float(r["alone"]) == pytest.approx(float(alone(slice(None))), rel=1e-9) for r in results)
    assert all("drop the last" in r["ragged"] for r in results)
    assert "text: row 2 is NaN" in results[-1]["broken"]
    assert all(f"rank {world - 1}" in r["broken"] for r in results[:-1])
