"""The gap protocol: how far apart a space's modalities lie, in numbers and as a map (figure 2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from unialign_gen import diagnostics
from unialign_gen.errors import InputError, as_input_error
from unialign_gen.loading.methods import Method, tell_borrowed
from unialign_gen.notes import note

from .embeddings import of_modality, whole
from .figures import Row, from_halves, halves, tabulate
from .frechet import frechet_distance
from .kid import mean_kernel
from .moments import check_features

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner
    from unialign_gen.data.cache import FeatureCache

__all__ = ["distribution_gap", "gap_figures"]


def distribution_gap(x: Tensor, y: Tensor, bandwidth: float | None = None) -> dict[str, float]:
    """How far apart two modalities' embeddings (N, d) and (M, d) lie as distributions, fp64.

    Args:
        bandwidth: of the Gaussian kernel exp(-|x - y|^2 / 2 bandwidth^2); the median distance between rows by default.

    Returns:
        `gap`: the distance of the means (Liang et al. 2022, arXiv 2203.02053). `Frechet gap` and `MMD gap`: Frechet distance
        and unbiased squared MMD, which can be below 0; `..., centred`: after the modalities' means were subtracted, which is
        what stays when the gap of the means is closed (arXiv 2604.00279).

    Raises:
        InputError: fewer than two rows, or rows that are not finite.

    Example:
        >>> x = torch.eye(4)
        >>> found = distribution_gap(x, x + 1)
        >>> found["gap"], round(found["Frechet gap"], 6), round(found["Frechet gap, centred"], 6)
        (2.0, 4.0, 0.0)
    """
    check_features(x, y)
    x, y = x.double(), y.double()
    gap, whole = float((x.mean(0) - y.mean(0)).norm()), frechet_distance(x, y)
    if bandwidth is None:
        both = torch.cat([x, y])
        bandwidth = max(float(torch.pdist(both[:: 1 + len(both) // 1000]).median()), 1e-6)
    found = {"gap": gap, "Frechet gap": whole, "Frechet gap, centred": max(0.0, whole - gap**2)}
    for name, a, b in (("MMD gap", x, y), ("MMD gap, centred", x - x.mean(0), y - y.mean(0))):
        within = sum((mean_kernel(z, z, bandwidth) * len(z) - 1) / (len(z) - 1) for z in (a, b))  # without a row with itself
        found[name] = within - 2 * mean_kernel(a, b, bandwidth)
    return found


def gap_figures(z: Mapping[str, Tensor], anchor: str, tau: float = 0.07, bandwidth: float = 0.3) -> dict[str, float]:
    """Every figure of embeddings (n, d) by modality, row i of each of one sample, by `task|metric`.

    See `unialign_gen.diagnostics` and `distribution_gap`.

    Args:
        anchor: where the conflicts zeta and chi are measured.
        tau: their temperature.
        bandwidth: of the Hoelder divergence's kernels.

    Raises:
        InputError: an anchor that is not there, fewer than four rows, or rows that are zero or not finite.

    Example:
        >>> z = torch.nn.functional.normalize(torch.randn(8, 3), dim=1)
        >>> gap_figures({"image": z, "text": z}, "image")["image|text|gap"]
        0.0
    """
    z = {name: part.double() for name, part in z.items()}
    found = {f"anchor {anchor}|{k}": v for k, v in diagnostics.conflicts(z, anchor, tau).summary().items()}
    found[f"{len(z)} modalities|Hoelder divergence"] = diagnostics.hoelder_divergence(
        z, bandwidth, anchor, leave_one_out=True, anchor_averaging=True
    )
    gaps = diagnostics.modality_gap(z)
    for one, other in combinations(z, 2):
        pair, apart = f"{one}|{other}", distribution_gap(z[one], z[other])
        apart |= {name: gaps[pair][name] for name in ("separability", "cosine")}
        found |= {f"{pair}|{name}": value for name, value in apart.items()}
        found[f"{pair}|alignment"] = diagnostics.alignment(z[one], z[other])
    return found | {f"{name}|uniformity": diagnostics.uniformity(part) for name, part in z.items()}


def embed(
    features: FeatureCache, modalities: Sequence[str], run: Path | None, aligner: Aligner | None, limit: int, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    """Unit embeddings (n, d) by modality of the samples that have all of them, at most `limit`, drawn with `seed`; their rows.

    Raises:
        InputError: fewer than 16 samples have all, or the heads do not fit.
    """
    every = {m: of_modality(features, m, run, aligner) for m in modalities}
    both = whole(every).nonzero()[:, 0]
    if len(both) < 16:
        raise InputError(f"only {len(both)} samples have all of {', '.join(modalities)}: at least 16 are needed")
    if len({z.shape[1] for z in every.values()}) > 1:
        raise InputError(f"embeddings of {', '.join(modalities)} differ in width: a modality has no head of this space")
    some = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(seed))[:limit].sort().values]
    return {name: z[some] for name, z in every.items()}, some


def evaluate(
    features: FeatureCache,
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

    Where the samples have labels, also how well classes keep together, see `groups`, which has no interval.

    Args:
        anchor: see `choose_anchor`.
        bandwidth: of the Hoelder divergence's kernels; at the temperature of training a kernel sees no neighbour at all.

    Raises:
        InputError: a modality that the features or the heads do not have.
    """
    if set(modalities) - set(features.modalities) or len(modalities) < 2:
        raise InputError(f"the gap is between two modalities or more; the features have {', '.join(features.modalities)}")
    anchor = choose_anchor(anchor, modalities)
    tell_borrowed(methods, modalities, aligner)
    values: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    grouped: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    count, labels = 0, list[str | None]()
    for method in tqdm(methods, desc="methods", disable=None):
        runs, kept = [], torch.zeros(0)
        for run in method.runs:
            z, kept = embed(features, modalities, run, aligner, limit, seed)
            count = len(kept)
            parts = [z, *({m: v[torch.from_numpy(h)] for m, v in z.items()} for h in halves(count, resamples, seed))]
            runs.append((z, [gap_figures(part, anchor, tau, bandwidth) for part in parts]))
        keys = [key.rpartition("|")[::2] for key in runs[0][1][0]]
        found = np.mean([[list(part.values()) for part in parts] for _, parts in runs], 0)  # (1 + resamples, figures)
        values[method.name] = dict(zip(keys, found.T, strict=True))
        labels = [features.labels[i] for i in kept.tolist()]
        grouped[method.name] = mean_groups([z for z, _ in runs], labels, seed)
    out = tabulate(values, lambda _, x: from_halves(x[0], x[1:], count), **dimensions)
    others = tabulate(grouped, lambda _, x: from_halves(float(x), (), sum(map(bool, labels))), **dimensions)
    return {name: out[name] + others[name] for name in out}


def mean_groups(
    runs: Sequence[Mapping[str, Tensor]], labels: Sequence[str | None], seed: int
) -> dict[tuple[str, str], np.ndarray]:
    """Figures of classes by (modality, metric), means over runs, of the samples that have a label; none where all have one.

    The probe learns from one half of the samples, drawn with `seed`, and is tested on the other. So is zero-shot
    classification: a class is the mean embedding of its captions in that half, the label's own where captions are labels.
    """
    names = [label for label in labels if label]
    if len(set(names)) < 2:
        return {}
    if len(names) < len(labels):
        note("no label", f"figures of classes are of the {len(names)} of {len(labels)} samples that have a label")
    there = [i for i, label in enumerate(labels) if label]
    try:
        from . import groups
    except InputError as error:  # no scikit-learn
        warnings.warn(f"{error}", stacklevel=2)
        return {}
    fit = next(halves(len(names), 1, seed))
    known = sorted({names[i] for i in fit})
    test = np.array([i for i in np.setdiff1d(np.arange(len(names)), fit) if names[i] in known])
    learnt, asked = ([names[i] for i in part] for part in (fit, test))
    found: dict[tuple[str, str], list[float]] = {}
    for z in runs:
        z = {modality: x[there] for modality, x in z.items()}
        for modality, x in z.items():
            figures = groups.clustering(x, names, seed)
            if len(known) > 1 and len(test):
                figures |= groups.linear_probe(x[fit], learnt, x[test], asked)
                if "text" in z and modality != "text":
                    means = [z["text"][fit][[name == label for name in learnt]].mean(0) for label in known]
                    figures |= groups.zero_shot(
                        x[test], [known.index(a) for a in asked], F.normalize(torch.stack(means), dim=1)
                    )
            for metric, value in figures.items():
                found.setdefault((modality, metric), []).append(value)
    return {key: np.array(np.mean(v)) for key, v in found.items()}


def choose_anchor(anchor: str | None, modalities: Sequence[str]) -> str:
    """The named one, or an `InputError` if it is not among the modalities; without a name image, else video, else the first."""
    if anchor is None:
        return next((m for m in ("image", "video") if m in modalities), modalities[0])
    if anchor not in modalities:
        raise InputError(f"the anchor {anchor!r} is not among the modalities {', '.join(modalities)}")
    return anchor


def project(z: Mapping[str, Tensor], seed: int = 0) -> dict[str, list[list[float]]]:
    """t-SNE (van der Maaten & Hinton 2008) of all modalities together: (n, 2) for each, in [0, 1]."""
    with as_input_error("t-SNE needs scikit-learn: install the extra `eval`, or give --plot 0", ImportError):
        from sklearn.manifold import TSNE
    together = torch.cat(list(z.values())).numpy()
    flat = TSNE(2, perplexity=min(30.0, (len(together) - 1) / 4), init="pca", random_state=seed).fit_transform(together)
    flat = (flat - flat.min(0)) / np.ptp(flat, axis=0)
    return {name: part.round(3).tolist() for name, part in zip(z, np.split(flat, len(z)), strict=True)}
