"""What a trained space is worth: figures of each sample, to be paired between objectives, and figures of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import diagnostics
from ..data.cache import FeatureCache
from ..eval.embeddings import whole
from ..eval.search import without
from ..retrieval import Cosine, QueryWeightedCentroid, Score, Volume, ranks
from ..training.features import embed_mean

TAU, BANDWIDTH = 0.07, 0.3  # of the conflicts and of the Hoelder divergence: one for all objectives, whatever they train with
JOINT = ("centroid", "volume", "query-weighted centroid", "product")
Space = tuple[dict[str, Tensor], Tensor, list[int]]


def embed(cache: FeatureCache, heads: Mapping[str, nn.Module]) -> Space:
    """Unit embeddings (n, d) by modality, labels (n,) as numbers, -1 for none, and row numbers of the samples that have every
    modality.
    """
    z = {name: embed_mean(cache.features(name).first(), head) for name, head in heads.items()}
    rows = whole(z).nonzero()[:, 0]
    names = {label: i for i, label in enumerate(sorted({label for label in cache.labels if label}))}
    labels = torch.tensor([names.get(label or "", -1) for label in cache.labels])[rows]
    return {name: part[rows] for name, part in z.items()}, labels, rows.tolist()


def turned(z: Mapping[str, Tensor], anchor: str, by: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same space with each modality on the anchor's side: turned by -1 if pairs `by` (validation's) look away from it.

    A volume and a singular value know no sign, so objectives of them alone may align two modalities the wrong way round; the
    losses of what is turned are the same. Nothing is turned where pairs already look the same way.
    """
    return {name: part if (by[name] * by[anchor]).sum() >= 0 else -part for name, part in z.items()}


def retrieval(score: Score) -> np.ndarray:
    """R@1 of each pair (n,), the mean of both directions."""
    found = ranks(score, torch.arange(score.texts))
    return (found.to_clip.hits[1] + found.to_text.hits[1]) / 2


def precision(query: Tensor, wanted: Tensor, labels: Tensor, targets: Tensor, itself: bool = False) -> np.ndarray:
    """R-precision of labels (n,): of the R nearest targets, R being how many have the query's label, the share that has it;
    NaN where the query has none.

    Args:
        itself: the queries (n, d) are the first n of the targets (N, d), and do not count as their own.
    """
    scores = query @ wanted.T  # (n, N)
    same = (labels[:, None] == targets) & (targets >= 0)  # (n, N)
    if itself:
        scores.fill_diagonal_(-torch.inf)
        same = same & ~torch.eye(*same.shape, dtype=torch.bool)
    count = same.sum(1)  # (n,)
    most = int(count.max())
    ordered = same.gather(1, scores.topk(most).indices)
    nearest = torch.arange(most) < count[:, None]
    return ((ordered & nearest).sum(1) / count).double().numpy()


def groups(z: Mapping[str, Tensor], labels: Tensor) -> np.ndarray:
    """R-precision (n,) among all samples of all modalities together: what a gap between modalities is in the way of."""
    everything, count = torch.cat(list(z.values())), len(labels)
    repeated, found = labels.repeat(len(z)), []
    for i in range(len(z)):  # each modality's points first
        turned = everything.roll(-i * count, 0)
        found.append(precision(turned[:count], turned, labels, repeated, itself=True))
    return np.mean(found, 0)


def of_samples(
    z: Mapping[str, Tensor], labels: Tensor, query: str, ids: Sequence[str], missing: Sequence[float]
) -> dict[str, np.ndarray]:
    """Figures of each sample (n,) by `metric|task`."""
    rest = {name: part for name, part in z.items() if name != query}
    found = {}
    for name, part in rest.items():
        found[f"R@1|{query}, {name}"] = retrieval(Cosine(z[query], part))
        if several(labels):
            both = [precision(z[query], part, labels, labels), precision(part, z[query], labels, labels)]
            found[f"label precision|{query}, {name}"] = np.mean(both, 0)
    if len(rest) > 1:
        for rate in (0.0, *missing):
            there = without(rest, ids, rate) if rate else rest
            gone = f", {rate:.0%} missing" if rate else ""
            for name, score in joint(z[query], there).items():
                found[f"R@1|{name}{gone}"] = retrieval(score)
        for name in JOINT:
            best = max((found[f"R@1|{query}, {m}"] for m in rest), key=np.mean)
            found[f"gain in R@1 over the best pathway alone|{name}"] = found[f"R@1|{name}"] - best
    if several(labels):
        found["label precision|all modalities together"] = groups(z, labels)
    return found


def several(labels: Tensor) -> bool:
    """Whether labels tell samples apart."""
    return len(labels[labels >= 0].unique()) > 1


def joint(query: Tensor, rest: Mapping[str, Tensor]) -> dict[str, Score]:
    """Every way to look for all modalities together: each objective finds its own score among them.

    The product is Symile's: sum_d of the query times every modality, those that are missing left out. Each is brought to a mean
    square of 1, which scales all scores alike and keeps them from vanishing where there are many.
    """
    parts = list(rest.values())
    middle = F.normalize(torch.stack(parts).sum(0), dim=1)
    factors = torch.stack([torch.where(z.any(1, keepdim=True), z * z.shape[1] ** 0.5, 1) for z in parts])  # (K, n, d)
    product = Cosine(query, factors.prod(0))
    scores: list[Score] = [Cosine(query, middle), Volume(query, parts), QueryWeightedCentroid(query, parts), product]
    return dict(zip(JOINT, scores, strict=True))


def of_space(z: Mapping[str, Tensor], anchor: str) -> dict[str, float]:
    """Figures of the space as a whole; see `unialign_gen.diagnostics`. Pairs of modalities count equally.

    `gap` is the distance of two modalities' means; `distribution gap` what remains: the mean distance of pairs after each
    modality is centred and brought back to the sphere.
    """
    pairs = diagnostics.modality_gap(z).values()
    centred = {name: F.normalize(part - part.mean(0), dim=1) for name, part in z.items()}
    apart = [float(torch.linalg.vector_norm(centred[m] - centred[n], dim=1).mean()) for m, n in combinations(z, 2)]
    conflicts = diagnostics.conflicts(z, anchor, TAU).summary()
    bound = {"bound of chi": conflicts["bound"]} if "bound" in conflicts else {}
    return {
        "gap": float(np.mean([p["distance"] for p in pairs])),
        "distribution gap": float(np.mean(apart)),
        "separability": float(np.mean([p["separability"] for p in pairs])),
        "cosine of pairs": float(np.mean([p["cosine"] for p in pairs])),
        "zeta": conflicts["zeta"],
        "chi": conflicts["chi"],
        **bound,
        "Hoelder divergence": diagnostics.hoelder_divergence(z, BANDWIDTH, anchor, leave_one_out=True, anchor_averaging=True),
        "uniformity": float(np.mean([diagnostics.uniformity(part) for part in z.values()])),
    }


def with_gap(z: Mapping[str, Tensor], anchor: str, gap: float) -> dict[str, Tensor]:
    """The same space with a gap of choice: each modality moved as a whole, and brought back to the sphere.

    Every modality's mean goes to the anchor's, then all but the anchor's points move by `gap`, each modality in a direction of
    its own. Points nearly keep their places within their modality; a wide gap in a narrow space bends it.
    """
    generator = torch.Generator().manual_seed(0)
    middle = z[anchor].mean(0)
    found = {}
    for name, part in z.items():
        away = F.normalize(torch.randn(len(middle), generator=generator), dim=0)
        found[name] = F.normalize(part - part.mean(0) + middle + gap * away * (name != anchor), dim=1)
    return found


def pathways(z: Mapping[str, Tensor], labels: Tensor, query: str) -> dict[str, float]:
    """R@1 and the labels' R-precision of the query's pathways, all counting equally, and of all modalities together."""
    rest = [part for name, part in z.items() if name != query]
    found = {"R@1": float(np.mean([retrieval(Cosine(z[query], part)).mean() for part in rest]))}
    if several(labels):
        found["label precision"] = float(np.nanmean([precision(z[query], part, labels, labels) for part in rest]))
        found["label precision|all modalities together"] = float(np.nanmean(groups(z, labels)))
    return found


def validation_score(z: Mapping[str, Tensor], labels: Tensor, query: str) -> float:
    """What settings are chosen by: R@1 of the query's pathways, that of all together by the best score, and label precision.

    They count equally, as far as there are any: so that no objective is chosen for by a score that is not its own.
    """
    found = pathways(z, labels, query)
    rest = {name: part for name, part in z.items() if name != query}
    values = [found[metric] for metric in ("R@1", "label precision") if metric in found]
    if len(rest) > 1:
        values.append(max(retrieval(score).mean() for score in joint(z[query], rest).values()))
    return float(np.mean(values))
