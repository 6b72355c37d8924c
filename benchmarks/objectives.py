"""Time and peak memory of the objectives, side by side in one run with what people use today.

    python benchmarks/objectives.py                       # what the project promises of them, about 5 minutes on two idle cores
    python benchmarks/objectives.py --table --batch 512   # every objective and its authors' formula at one size

Forward and backward on the same inputs, the median of five after a warm-up (one run alone where it is long). Peers: open_clip's
ClipLoss over all pairs, and the formulas of the objectives' authors in plain autograd, with whole B x B matrices. `over floor`
is an objective's time over that of the matrix products which it cannot avoid without holding a B x B matrix, at the rate of
one large product measured beside it. `busy` is the processor's time over the wall clock's: far below the number of threads
where other processes are in the way. Peak memory is what the process held beyond the inputs (VmHWM, Linux).
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from timing import spent
from torch import Tensor

from unialign_gen.bench.run import peak_memory
from unialign_gen.objectives import OBJECTIVES, UniAlign, build

Z = dict[str, Tensor]
NAMES = ("image", "text", "audio", "video", "depth")
TAU = 0.07
SMALL, MIDDLE, LARGE = 512, 4096, 32768  # batches that something is promised of
CLIP = "ClipLoss over all pairs (open_clip)"
OURS = {
    **{name: build(name) for name in OBJECTIVES},
    "unialign, volume weight 1": UniAlign(volume_weight=1.0),
    "unialign, geodesic": UniAlign(uniformity_geometry="geodesic", alignment_geometry="geodesic"),
}
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


def cross(logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy both ways, its mean."""
    target = torch.arange(len(logits))
    return sum(F.cross_entropy(x, target, label_smoothing=smoothing) for x in (logits, logits.T)) / 2


def uniformity(z: Tensor) -> Tensor:
    logits = (z @ z.T - 1) / TAU**2
    return (logits - torch.diag(torch.full((len(z),), torch.inf))).logsumexp(1).mean()


def unialign(z: Z) -> Tensor:
    anchor, *rest = z.values()
    stack = torch.stack([anchor.detach(), *rest], 1)
    alignment = sum((anchor.detach() - v).square().sum(1).mean() for v in rest) / len(rest) / (2 * TAU**2)
    volume = torch.linalg.det(stack @ stack.mT).clamp(min=1e-6).sqrt().mean()
    middle = uniformity(F.normalize(stack.mean(1), dim=1))
    return sum(uniformity(v) for v in z.values()) + alignment + 0.1 * (middle + volume)


def clip_loss(z: Z) -> Tensor:
    import open_clip

    loss, scale = open_clip.ClipLoss(), torch.tensor(1 / TAU)
    return sum(loss(x, y, scale) for x, y in itertools.combinations(z.values(), 2))


def gram(z: Z) -> Tensor:
    a, rest = z["text"], [v for n, v in z.items() if n != "text"]
    dots = [a @ r.T for r in rest]
    one = torch.ones_like(dots[0])
    inner = [[(x * y).sum(1).expand(len(a), -1) for y in rest] for x in rest]
    rows = [torch.stack([one, *dots], -1), *(torch.stack([d, *i], -1) for d, i in zip(dots, inner, strict=True))]
    return cross(-torch.linalg.det(torch.stack(rows, -2)).abs().clamp(min=1e-6).sqrt() / TAU, 0.1)


def triangle(z: Z) -> Tensor:
    """By its edges, (B, B, d) each."""
    a, (b, c) = z["text"], [v for n, v in z.items() if n != "text"]
    u, v = a[:, None] - b, a[:, None] - c
    area = (u.square().sum(2) * v.square().sum(2) - (u * v).sum(2).square()).clamp(min=1e-6).sqrt() / 2
    return cross(-area / TAU, 0.1)


def pmrl(z: Z) -> Tensor:
    u, s, _ = torch.linalg.svd(torch.stack(list(z.values()), 2), full_matrices=True)
    lead, target = u[..., 0], torch.arange(len(s))
    return F.cross_entropy(s / 0.05, torch.zeros_like(target)) + F.cross_entropy(lead @ lead.T / 0.1, target)


def modgap(z: Z) -> Tensor:
    pairs = list(itertools.combinations(z.values(), 2))
    apart = sum((x - y).norm(dim=1).pow(2).mean() for x, y in pairs)
    contrast = sum(cross(x @ y.T / TAU) for x, y in pairs)
    return contrast + apart + torch.pdist(F.normalize(sum(z.values()), dim=1)).pow(2).mul(-2).exp().mean().log()


def symile(z: Z) -> Tensor:
    total, scale = torch.zeros(()), torch.tensor(0.3, requires_grad=True)  # its logarithm, which is learnt
    for a in z:
        others = [v[torch.randperm(len(v))] for n, v in z.items() if n != a]
        logits = z[a] @ math.prod(others[1:], start=others[0]).T
        own = math.prod(z.values()).sum(1)
        logits = torch.where(torch.eye(len(own), dtype=torch.bool), own, logits)
        total = total + F.cross_entropy(scale.exp() * logits, torch.arange(len(own)))
    return total / len(z)


def cauchy_schwarz(z: Z) -> Tensor:
    def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / 2).mean().log()

    anchor, *rest = z.values()
    return sum(
        cross(anchor @ y.T / TAU) + mean_kernel(anchor, anchor) + mean_kernel(y, y) - 2 * mean_kernel(anchor, y) for y in rest
    )


def siglip(z: Z) -> Tensor:
    from open_clip.loss import SigLipLoss

    loss, scale, bias = SigLipLoss(), torch.tensor(10.0, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    return sum(loss(x, y, scale, bias) for x, y in itertools.combinations(z.values(), 2))


def scalar(z: Z) -> Tensor:
    """From dot products, without the centroids (B, B, d) themselves, which would take 4 GB at B 1024."""
    t, rest = z["text"], torch.stack([v for n, v in z.items() if n != "text"], 1)  # (B, K, d)
    dots = torch.einsum("id,jkd->ijk", t, rest)
    weights = (dots / 0.1).softmax(2)
    length = torch.einsum("ijk,ijl,jkl->ij", weights, weights, rest @ rest.mT).sqrt()
    return cross((weights * dots).sum(2) / length / TAU, 0.1)


AUTHORS: dict[str, Callable[[Z], Tensor]] = {
    "unialign": unialign,
    "infonce": clip_loss,
    "anchored_infonce": lambda z: sum(clip_loss({"image": z["image"], n: v}) for n, v in z.items() if n != "image"),
    "gram": gram,
    "triangle": triangle,
    "pmrl": pmrl,
    "modgap": modgap,
    "symile": symile,
    "cauchy_schwarz": cauchy_schwarz,
    "siglip": siglip,
    "scalar": scalar,
}  # the mean of the others is a baseline without authors


def of_unit(loss: Callable[[Z], Tensor]) -> Callable[[Z], Tensor]:
    """A formula of embeddings of any norm, as ours and their authors' models take them."""
    return lambda z: loss({name: F.normalize(v, dim=1) for name, v in z.items()})


LONG = ("pmrl", "triangle")  # an SVD with whole bases a sample; tensors (B, B, d)


def measure(run: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds after a warm-up, peak GB beyond what was held before, processor's over wall time."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = peak_memory(reset=True)
    clocks, used = zip(*(spent(run) for _ in range(repeats + 1)), strict=True)
    return statistics.median(clocks[1:] or clocks), (peak_memory() - before) / 1e9, sum(used) / sum(clocks)


def embeddings(b: int, d: int, m: int) -> Z:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(b, d, generator=generator)
    return {n: F.normalize(common + torch.randn(b, d, generator=generator), dim=1).requires_grad_() for n in NAMES[:m]}


def step(loss: Callable[[Z], Tensor], z: Z) -> None:
    for v in z.values():
        v.grad = None
    loss(z).backward()


def cell(name: str, loss: Callable[[Z], Tensor], z: Z, repeats: int, products: int = 0, rate: float = 0.0) -> dict:
    """One row of a table; `rate` is the seconds of one product."""
    b, d = next(iter(z.values())).shape
    seconds, peak, busy = measure(lambda: step(loss, z), repeats)
    row = {"objective": name, "batch": b, "dim": d, "modalities": len(z), "seconds": seconds, "peak_gb": peak, "busy": busy}
    if products:
        row["over_floor"] = seconds / (rate * products)
    floor = f"{row['over_floor']:>7.2f} x floor" if products else ""
    typer.echo(f"{name:<38}{b:>7}{d:>6}{len(z):>3}{seconds:>9.3f} s{peak:>8.2f} GB{busy:>6.2f} busy{floor}", err=True)
    return row


def of_product(z: Z, repeats: int) -> float:
    """Seconds of one (B, d) x (d, B) product."""
    x = next(iter(z.values())).detach()[:4096]
    return measure(lambda: x @ x.T, repeats)[0] * (len(next(iter(z.values()))) / len(x)) ** 2


def table(batch: int, dim: int, modalities: int, repeats: int, authors: bool) -> list[dict]:
    """Every objective, and with `authors` its authors' formula beside it."""
    z = embeddings(batch, dim, modalities)
    rate, rows = of_product(z, repeats), []
    for name, loss in OURS.items():
        plain = name.split(",")[0]
        if plain == "triangle" and modalities != 3:
            continue
        rows.append(cell(name, loss, z, repeats, PRODUCTS[plain](modalities), rate))
        if authors and name in AUTHORS:
            rows.append(cell(f"{name}, authors' formula", of_unit(AUTHORS[name]), z, 0 if name in LONG else repeats))
    return rows


def promises(dim: int, repeats: int) -> list[tuple[str, float, float]]:
    """What is promised: its words, what was measured, and the bound."""
    found = []
    z = embeddings(MIDDLE, dim, 3)
    rate = of_product(z, repeats)
    for name in ("unialign, volume weight 1", "unialign"):
        ours = cell(name, OURS[name], z, repeats, PRODUCTS["unialign"](3), rate)
        clip = cell(CLIP, clip_loss, z, repeats)
        found.append((f"{name} / {CLIP}, B {MIDDLE}", ours["seconds"] / clip["seconds"], 0.5))
        found.append((f"{name} over its floor, B {MIDDLE}", ours["over_floor"], 1.7))
    for name, loss in AUTHORS.items():
        z = embeddings(SMALL, dim, 3)
        ours = cell(name, OURS[name], z, repeats)
        theirs = cell(f"{name}, authors' formula", of_unit(loss), z, 0 if name in LONG else repeats)
        found.append((f"{name} / its authors' formula, B {SMALL}", ours["seconds"] / theirs["seconds"], 1.0))
    row = cell("unialign", OURS["unialign"], embeddings(LARGE, dim, 3), 0)
    return [*found, (f"unialign at B {LARGE}: GB beyond the inputs", row["peak_gb"], 3.0)]


def main(
    whole: Annotated[bool, typer.Option("--table", help="Every objective at --batch, instead of what is promised.")] = False,
    batch: Annotated[int, typer.Option(help="Of the table.")] = 4096,
    dim: int = 1024,
    modalities: Annotated[int, typer.Option(help="2 to 5.")] = 3,
    repeats: int = 5,
) -> None:
    """Prints the promises with what was measured (exit code 1 if one is broken), or the table, as JSON too."""
    about = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    if whole:
        json.dump(about | {"cells": table(batch, dim, modalities, repeats, authors=True)}, sys.stdout, indent=1)
        return
    found = promises(dim, repeats)
    rows = table(MIDDLE, dim, 3, 3, authors=False)
    typer.echo(json.dumps(about))
    for row in rows:
        typer.echo(f"{row['objective']:<32}{row['seconds']:>8.3f} s{row.get('over_floor', 0):>7.2f} x floor")
    for words, value, bound in found:
        typer.echo(f"{'ok ' if value <= bound else 'NO '}{words}: {value:.2f} (at most {bound:g})")
    if any(value > bound for _, value, bound in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
