"""Corollaries 1 and 2 of UniAlign in a synthetic study: conflicts of InfoNCE against the number of modalities.

    python benchmarks/conflicts.py --out out/conflicts        # about 2 minutes; writes conflicts.json and conflicts.png

Samples have hidden factors; each modality sees them through its own random linear map, with noise. Linear heads of two to nine
modalities are trained by all-pairs InfoNCE and by UniAlign, then zeta and chi are measured at the anchor over samples that
training has not seen, beside corollary 2's bound and the gap between modality means.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from unialign_gen.diagnostics import conflicts, modality_gap
from unialign_gen.objectives import InfoNCE, UniAlign

FACTORS, FEATURES, DIM, NOISE = 16, 32, 16, 0.5


def samples(count: int, modalities: int, generator: torch.Generator, maps: list[Tensor]) -> dict[str, Tensor]:
    hidden = torch.randn(count, FACTORS, generator=generator)
    out = {}
    for m in range(modalities):
        seen = hidden @ maps[m]
        out["anchor" if m == 0 else f"m{m}"] = seen + NOISE * seen.std() * torch.randn(seen.shape, generator=generator)
    return out


def study(modalities: int, loss: nn.Module, steps: int, seed: int, tau: float) -> dict[str, float]:
    """Trains heads with `loss`; the diagnostics on 2,048 new samples."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    maps = [torch.randn(FACTORS, FEATURES, generator=generator) for _ in range(modalities)]
    heads = nn.ModuleDict({n: nn.Linear(FEATURES, DIM) for n in samples(1, modalities, generator, maps)})
    optimiser = torch.optim.AdamW(heads.parameters(), lr=5e-3)
    for _ in range(steps):
        batch = samples(256, modalities, generator, maps)
        value = loss({n: heads[n](x) for n, x in batch.items()})
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    with torch.no_grad():
        z = {n: heads[n](x) for n, x in samples(2048, modalities, generator, maps).items()}
    gaps = [g["distance"] for pair, g in modality_gap(z).items() if "anchor" in pair]
    return conflicts(z, "anchor", tau).summary() | {"gap": sum(gaps) / len(gaps)}


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, colour in (("InfoNCE", "tab:red"), ("UniAlign", "tab:blue")):
        mine = [r for r in rows if r["objective"] == name]
        x = [r["modalities"] for r in mine]
        axes[0].errorbar(x, [r["zeta"] for r in mine], [r["zeta_spread"] for r in mine], color=colour, marker="o", label=name)
        axes[1].errorbar(x, [r["chi"] for r in mine], [r["chi_spread"] for r in mine], color=colour, marker="o", label=name)
        axes[1].plot(x, [r["bound"] for r in mine], color=colour, linestyle="--", label=f"bound of eq 7, {name}")
    axes[0].set(xlabel="modalities", ylabel="zeta: push along the pull", title="Alignment against uniformity (eq 4)")
    axes[1].set(xlabel="modalities", ylabel="chi: pull that cancels", title="Alignment against itself (eq 4)")
    for axis in axes:
        axis.legend()
    figure.savefig(path, dpi=120)


def main(
    out: Annotated[Path, typer.Option(help="Folder for conflicts.json and conflicts.png.")] = Path("out/conflicts"),
    steps: int = 200,
    seeds: int = 2,
    tau: float = 0.2,
) -> None:
    """Prints a table, and writes it with its plot."""
    rows = []
    for modalities in range(2, 10):
        for name, loss in (
            ("InfoNCE", InfoNCE(tau)),
            ("UniAlign", UniAlign("anchor", tau=0.5, tau_centroid=0.5, tau_alignment=0.5, alignment_weight=3)),
        ):
            runs = [study(modalities, loss, steps, seed, tau) for seed in range(seeds)]
            row: dict = {k: sum(r[k] for r in runs) / seeds for k in runs[0]}
            row |= {
                f"{k}_spread": torch.tensor([r[k] for r in runs]).std().item() if seeds > 1 else 0.0 for k in ("zeta", "chi")
            }
            row |= {
                "objective": name,
                "modalities": modalities,
                "bound_holds": all(r["chi"] >= r["bound"] - 1e-6 for r in runs),
            }
            rows.append(row)
            typer.echo(
                f"{name:<9} M {modalities}  zeta {row['zeta']:.3f}  chi {row['chi']:.3f} >= {row['bound']:.3f}"
                f" {row['bound_holds']}  cosine {row['mean_cosine']:.3f}  gap {row['gap']:.3f}"
            )
    out.mkdir(parents=True, exist_ok=True)
    settings = {"steps": steps, "seeds": seeds, "tau": tau, "factors": FACTORS, "dim": DIM, "noise": NOISE}
    (out / "conflicts.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
    plot(rows, out / "conflicts.png")


if __name__ == "__main__":
    typer.run(main)
