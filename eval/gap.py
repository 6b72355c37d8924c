"""The gap protocol: how far apart a space's modalities lie, in numbers and as a map (figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from unialign_gen import diagnostics
from unialign_gen.errors import InputError

from .embeddings import Features, first, pooled
from .figures import Row, pairs, row
from .intervals import from_halves, halves
from .methods import Method, head

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner

COLOURS = {"image": "#1f77b4", "video": "#17becf", "text": "#ff7f0e", "audio": "#2ca02c"}


def embed(
    features: Features, modalities: Sequence[str], run: Path | None, aligner: Aligner | None, limit: int, seed: int = 0
) -> dict[str, Tensor]:
    """Unit embeddings (n, d) by modality of the samples that have all of them; at most `limit`, drawn with `seed`.

    Raises:
        InputError: fewer than 16 samples have all, or the heads do not fit.
    """
    every = {}
    for name in modalities:
        one = first if name == "text" else pooled
        every[name] = one(features.features(name), head(name, run, aligner))
    both = torch.stack([e.has for e in every.values()]).all(0).nonzero()[:, 0]
    if len(both) < 16:
        raise InputError(f"only {len(both)} samples have all of {', '.join(modalities)}: at least 16 are needed")
    if len({e.z.shape[1] for e in every.values()}) > 1:
        raise InputError(f"embeddings of {', '.join(modalities)} differ in width: a modality has no head of this space")
    order = torch.randperm(len(both), generator=torch.Generator().manual_seed(seed))[:limit].sort().values
    return {name: e.z[both[order]] for name, e in every.items()}


def numbers(z: Mapping[str, Tensor], anchor: str, tau: float, bandwidth: float) -> dict[str, float]:
    """Every figure of a set of embeddings (n, d) by modality; `task|metric` names them. See `unialign_gen.diagnostics`."""
    z = {name: part.double() for name, part in z.items()}
    found = {f"anchor {anchor}|{k}": v for k, v in diagnostics.conflicts(z, anchor, tau).summary().items()}
    found[f"{len(z)} modalities|Hoelder divergence"] = diagnostics.hoelder_divergence(
        z, bandwidth, anchor, leave_one_out=True, anchor_averaging=True
    )
    for pair, gap in diagnostics.modality_gap(z).items():
        found |= {f"{pair}|gap": gap["distance"], f"{pair}|separability": gap["separability"], f"{pair}|cosine": gap["cosine"]}
    for one, other in combinations(z, 2):
        found[f"{one}|{other}|alignment"] = diagnostics.alignment(z[one], z[other])
    for name, part in z.items():
        found[f"{name}|uniformity"] = diagnostics.uniformity(part)
    return found


def evaluate(
    features: Features,
    methods: Sequence[Method],
    modalities: Sequence[str],
    aligner: Aligner | None = None,
    anchor: str | None = None,
    tau: float = 0.07,
    bandwidth: float = 0.3,
    limit: int = 4096,
    resamples: int = 40,
    seed: int = 0,
    **dimensions: Any,
) -> dict[str, list[Row]]:
    """`rows` and paired `differences` of every method: means over its runs, intervals from halves of the samples.

    Args:
        anchor: see `choose_anchor`.
        bandwidth: of the Hoelder divergence's kernels; at the temperature of training a kernel sees no neighbour at all.

    Raises:
        InputError: a modality that the features or the heads do not have.
    """
    missing = [m for m in modalities if m not in features.modalities]
    if missing or len(modalities) < 2:
        raise InputError(f"the gap is between two modalities or more; the features have {', '.join(features.modalities)}")
    anchor = choose_anchor(anchor, modalities)
    whole: dict[str, dict[str, float]] = {}
    parts: dict[str, list[dict[str, float]]] = {}
    count = 0
    for method in tqdm(methods, desc="methods", disable=None):
        sets = [embed(features, modalities, run, aligner, limit, seed) for run in method.runs]
        count = len(next(iter(sets[0].values())))
        whole[method.name] = mean([numbers(z, anchor, tau, bandwidth) for z in sets])
        parts[method.name] = [
            mean([numbers({m: v[torch.from_numpy(h)] for m, v in z.items()}, anchor, tau, bandwidth) for z in sets])
            for h in halves(count, resamples, seed)
        ]
    out: dict[str, list[Row]] = {"rows": [], "differences": []}
    for key in next(iter(whole.values())):
        task, _, metric = key.rpartition("|")
        about = {**dimensions, "task": task}
        for name in whole:
            estimate = from_halves(whole[name][key], [p[key] for p in parts[name]], count)
            out["rows"].append(row(metric, estimate, count, method=name, **about))
        for one, other in pairs(list(whole)):
            replicates = [a[key] - b[key] for a, b in zip(parts[one], parts[other], strict=True)]
            estimate = from_halves(whole[one][key] - whole[other][key], replicates, count)
            out["differences"].append(row(metric, estimate, count, method=f"{one} - {other}", **about))
    return out


def choose_anchor(anchor: str | None, modalities: Sequence[str]) -> str:
    """The named one; without a name image, else video, else the first.

    Raises:
        InputError: the named one is not among the modalities.
    """
    if anchor is None:
        return next((m for m in ("image", "video") if m in modalities), modalities[0])
    if anchor not in modalities:
        raise InputError(f"the anchor {anchor!r} is not among the modalities {', '.join(modalities)}")
    return anchor


def mean(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([t[key] for t in tables])) for key in tables[0]}


def project(z: Mapping[str, Tensor], seed: int = 0) -> dict[str, np.ndarray]:
    """t-SNE (van der Maaten & Hinton 2008) of all modalities together: (n, 2) for each.

    Raises:
        InputError: scikit-learn is not there.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise InputError("t-SNE needs scikit-learn: install the extra `eval`, or give --plot 0") from error
    together = torch.cat(list(z.values())).numpy()
    perplexity = min(30.0, (len(together) - 1) / 4)
    flat = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(together)
    return dict(zip(z, np.split(flat, len(z)), strict=True))


def plot(maps: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """One panel a method: the points of `project`, coloured by modality.

    Raises:
        InputError: matplotlib is not there.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the plot needs matplotlib: install the extra `eval`, or give --plot 0") from error
    figure = Figure(figsize=(3.6 * len(maps), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, points) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        for modality, xy in points.items():
            axis.scatter(*xy.T, s=5, alpha=0.7, linewidths=0, color=COLOURS.get(modality), label=modality)
        axis.set(title=name, xticks=[], yticks=[])
    axis.legend(loc="lower right", fontsize=8, markerscale=2)
    figure.savefig(path, dpi=130, metadata={"Software": None})
