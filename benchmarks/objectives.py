"""Time and peak memory of the objectives, side by side in one run with what people use today.

    python benchmarks/objectives.py --json > objectives.json     # the requirements' cells, about 8 minutes on two cores
    python benchmarks/objectives.py --batch 512 --batch 4096 --dim 512 --modalities 3

Peers, all forward and backward on the same inputs: naive autograd (whole B x B matrices), open_clip's ClipLoss over all pairs,
GRAM's volume as a batched determinant, PMRL through the full SVD, both written from the papers. Peak memory is what the process
held beyond the inputs (VmHWM, reset before each cell; Linux). A cell whose matrices alone would pass --limit is left out.

`over_floor` is an objective's time over that of the matrix products which it cannot avoid without holding a B x B matrix, at
the rate of one large product measured in the same run. `busy` is the processor's time over the wall clock's: far below the
number of threads where other processes are in the way, so compare ratios of one run only.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from unialign_gen.objectives import OBJECTIVES, UniAlign, build, cross_volumes
from unialign_gen.objectives.pmrl import singular_values

Z = dict[str, Tensor]
NAMES = ("image", "text", "audio", "video", "depth")
TAU = 0.07


def naive_uniformity(z: Tensor) -> Tensor:
    logits = (z @ z.T - 1) / TAU**2
    return (logits - torch.diag(torch.full((len(z),), torch.inf))).logsumexp(1).mean()


def naive_unialign(z: Z) -> Tensor:
    anchor, rest = z["image"].detach(), [v for n, v in z.items() if n != "image"]
    stack = torch.stack([anchor, *rest], 1)
    alignment = sum((anchor - v).square().sum(1).mean() for v in rest) / len(rest) / (2 * TAU**2)
    loss = sum(naive_uniformity(v) for v in z.values()) + alignment
    volume = torch.linalg.det(stack @ stack.mT).clamp(min=1e-6).sqrt().mean()
    return loss + 0.1 * (naive_uniformity(F.normalize(stack.mean(1), dim=1)) + volume)


def naive_infonce(z: Z) -> Tensor:
    target = torch.arange(len(next(iter(z.values()))))
    return sum(F.cross_entropy(z[m] @ z[n].T / TAU, target) for m, n in itertools.permutations(z, 2))


def clip_loss(z: Z) -> Tensor:
    import open_clip

    loss, scale = open_clip.ClipLoss(), torch.tensor(1 / TAU)
    return sum(loss(z[m], z[n], scale) for m, n in itertools.combinations(z, 2))


def published_gram(z: Z) -> Tensor:
    a, rest = z["text"], [v for n, v in z.items() if n != "text"]
    rows = [torch.ones(len(a), len(a)), *(a @ r.T for r in rest)]
    k = len(rest) + 1
    gram = torch.empty(len(a), len(a), k, k)
    for i, x in enumerate(rows):
        gram[..., 0, i] = gram[..., i, 0] = x
    for i, j in itertools.product(range(k - 1), repeat=2):
        gram[..., i + 1, j + 1] = (rest[i] * rest[j]).sum(1)
    volume = torch.linalg.det(gram).abs().clamp(min=1e-6).sqrt()
    target = torch.arange(len(a))
    return sum(F.cross_entropy(-v / TAU, target, label_smoothing=0.1) for v in (volume, volume.T)) / 2


def published_pmrl(z: Z) -> Tensor:
    u, s, _ = torch.linalg.svd(torch.stack(list(z.values()), 2), full_matrices=True)
    lead, target = u[..., 0], torch.arange(len(s))
    return F.cross_entropy(s / 0.05, torch.zeros_like(target)) + F.cross_entropy(lead @ lead.T / 0.1, target)


# Products of (B, d) with (d, B) or (B, B) with (B, d), forward and backward. A log-sum-exp of B x B logits: the logits, once
# more in the backward, a gradient for either side: 4; half the logits and one gradient, 2, where both sides are one set.
PRODUCTS: dict[str, Callable[[int], int]] = {
    "unialign": lambda m: 2 * (m + 1),
    "infonce": lambda m: 4 * math.comb(m, 2),
    "anchored_infonce": lambda m: 4 * (m - 1),
    "gram": lambda m: 4 * (m - 1),
    "triangle": lambda m: 4 * (m - 1),
    "pmrl": lambda m: 2,
    "modgap": lambda m: 4 * math.comb(m, 2) + 2,
    "symile": lambda m: 4 * m,
    "cauchy_schwarz": lambda m: 12 * (m - 1),
    "siglip": lambda m: 4 * math.comb(m, 2),
    "scalar": lambda m: 4 * (m - 1),
    "mean_of_others": lambda m: 4 * m,
}

CONTESTANTS: dict[str, Callable[[Z], Tensor]] = {
    **{name: build(name) for name in OBJECTIVES},
    "unialign, volume weight 1": UniAlign(volume_weight=1.0),
    "unialign geodesic": UniAlign(uniformity_geometry="geodesic", alignment_geometry="geodesic"),
    "UniAlign, naive autograd": naive_unialign,
    "InfoNCE, naive autograd": naive_infonce,
    "ClipLoss over all pairs (open_clip)": clip_loss,
    "GRAM, batched determinant": published_gram,
    "PMRL, full SVD": published_pmrl,
}


def matrices(name: str, b: int, m: int, d: int) -> int:
    """Numbers in the largest set of matrices that a formulation holds at once: what a cell costs at least."""
    pairs = m * (m - 1) // 2
    return {
        "UniAlign, naive autograd": 2 * (m + 1) * b * b,
        "InfoNCE, naive autograd": 4 * pairs * b * b,
        "ClipLoss over all pairs (open_clip)": 4 * pairs * b * b,
        "GRAM, batched determinant": 4 * m * m * b * b,
        "PMRL, full SVD": 4 * b * d * d,
    }.get(name, 0)


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def measure(run: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds, peak GB beyond what was held before, processor's over wall time. The first of several runs warms up."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, times, began = status("VmRSS"), [], time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        if times[0] > 20:
            break
    return statistics.median(times[1:] or times), (status("VmHWM") - before) / 1e9, (time.process_time() - began) / sum(times)


def embeddings(b: int, d: int, m: int) -> Z:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(b, d, generator=generator)
    return {n: F.normalize(common + torch.randn(b, d, generator=generator), dim=1).requires_grad_() for n in NAMES[:m]}


def step(loss: Callable[[Z], Tensor], z: Z) -> None:
    for v in z.values():
        v.grad = None
    loss(z).backward()


def cells(
    batches: list[int], dims: list[int], modalities: list[int], only: list[str], limit: float, repeats: int
) -> list[dict]:
    rows = []
    for b, d, m in itertools.product(batches, dims, modalities):
        z = embeddings(b, d, m)
        x = next(iter(z.values())).detach()[:4096]
        product = measure(lambda x=x: x @ x.T, 4)[0] * (b / len(x)) ** 2
        for name, loss in CONTESTANTS.items():
            if (only and name not in only) or 4 * matrices(name, b, m, d) > limit * 1e9 or (name == "triangle" and m != 3):
                continue
            seconds, peak, busy = measure(lambda loss=loss, z=z: step(loss, z), repeats)
            row = {"objective": name, "batch": b, "dim": d, "modalities": m, "seconds": seconds, "peak_gb": peak, "busy": busy}
            if name in PRODUCTS:
                row["over_floor"] = seconds / (product * PRODUCTS[name](m))
            rows.append(row)
            floor = f"{row['over_floor']:>7.2f} x floor" if "over_floor" in row else ""
            typer.echo(f"{name:<38}{b:>7}{d:>6}{m:>3}{seconds:>9.3f} s{peak:>8.2f} GB{floor}", err=True)
    return rows


def ratios(repeats: int) -> dict[str, float]:
    """The pairs that the project promises something about, each measured side by side."""
    z3 = [F.normalize(torch.randn(2048, 512), dim=1) for _ in range(3)]

    def batched_det() -> Tensor:
        dots = [z3[0] @ z3[1].T, z3[0] @ z3[2].T, (z3[1] * z3[2]).sum(1).expand(2048, -1)]
        one = torch.ones_like(dots[0])
        rows = [torch.stack(r, -1) for r in ((one, dots[0], dots[1]), (dots[0], one, dots[2]), (dots[1], dots[2], one))]
        return torch.linalg.det(torch.stack(rows, -2)).abs().sqrt()

    closed, *_ = measure(lambda: cross_volumes(z3[0], z3[1:]), repeats)
    batched, *_ = measure(batched_det, repeats)
    z = [F.normalize(torch.randn(512, 512), dim=1) for _ in range(3)]
    gram, *_ = measure(lambda: singular_values(z), repeats)
    svd, *_ = measure(lambda: torch.linalg.svd(torch.stack(z, 2), full_matrices=True), 1)
    return {
        "volume 2048 x 2048, batched det / ours": batched / closed,
        "singular vectors B 512 d 512, full SVD / ours": svd / gram,
    }


def main(
    batch: Annotated[list[int], typer.Option(help="Batch sizes.")] = [512, 4096],  # noqa: B006
    dim: Annotated[list[int], typer.Option(help="Dimensions.")] = [1024],  # noqa: B006
    modalities: Annotated[list[int], typer.Option(help="Numbers of modalities, 2 to 5.")] = [3],  # noqa: B006
    objective: Annotated[list[str] | None, typer.Option(help="Only these rows.")] = None,
    large: Annotated[bool, typer.Option(help="Also UniAlign at B = 32768, d = 1024, M = 3.")] = True,
    limit: Annotated[float, typer.Option(help="GB that a formulation's matrices may take.")] = 6.0,
    repeats: int = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prints the table, then the ratios."""
    rows = cells(batch, dim, modalities, objective or [], limit, repeats)
    if large:
        rows += cells([32768], [1024], [3], ["unialign"], limit, 1)
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "cells": rows, "ratios": ratios(repeats)}
    for b, d, m in itertools.product(batch, dim, modalities):
        at = {r["objective"]: r["seconds"] for r in rows if (r["batch"], r["dim"], r["modalities"]) == (b, d, m)}
        for peer in ("UniAlign, naive autograd", "ClipLoss over all pairs (open_clip)"):
            for ours in ("unialign", "unialign, volume weight 1"):
                if peer in at and ours in at:
                    result["ratios"][f"{ours} / {peer}, B {b} d {d} M {m}"] = at[ours] / at[peer]
    if as_json:
        json.dump(result, sys.stdout, indent=1)
        return
    for name, ratio in result["ratios"].items():
        typer.echo(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    typer.run(main)
