"""What a run measures while it trains, on samples that are never drawn: recall, concepts, gap."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .features import Source, embed_mean


def recall_at_1(query: Tensor, target: Tensor) -> float:
    """Share of rows (N, d) whose nearest target row, by cosine, is their own; ties count as misses."""
    scores = query @ target.T
    own = scores.diagonal().clone()
    scores.fill_diagonal_(-2)
    return float((own > scores.amax(1)).float().mean())


@torch.no_grad()
def evaluate(
    heads: Mapping[str, nn.Module],
    sources: Mapping[str, Source],
    points: Mapping[str, Tensor],
    means: Mapping[str, Tensor],
    anchor: str,
    limit: int,
) -> dict[str, float]:
    """Measures the heads on the held-out samples.

    Returns, for each trained modality that has them: `<modality>/r1`, both directions' mean over samples that have the
    anchor too; `<modality>/label1`, how often a sample lies nearest to its own label's mean of the anchor; `<modality>/gap`,
    the distance of the two modalities' means; and `r1`, `label1`, their means over the modalities.
    """
    found: dict[str, list[dict[str, float]]] = {}
    names = list(means)
    table = torch.stack([means[n] for n in names]) if names else None
    for name, head in heads.items():
        if name == anchor:
            continue
        for source in sources.values():
            rows = (source.held_out & source.has(name)).nonzero()[:, 0][:limit]
            if name not in source.rows or not len(rows):
                continue
            z = first_rows(source, name, rows, head)
            row: dict[str, float] = {}
            if source.name in points:
                target = points[source.name][rows]
            elif anchor in heads and anchor in source.rows:
                target = embed_some(source, anchor, rows, heads[anchor])
            else:
                target = torch.zeros_like(z)
            both = (target != 0).any(1)
            if int(both.sum()) > 1:
                row["r1"] = (recall_at_1(z[both], target[both]) + recall_at_1(target[both], z[both])) / 2
                row["gap"] = float((z[both].mean(0) - target[both].mean(0)).norm())
            labelled = [i for i, r in enumerate(rows.tolist()) if set(source.labels[r]) & set(means)]
            if labelled and table is not None:
                nearest = (z[labelled] @ table.T).argmax(1).tolist()
                hits = [names[k] in source.labels[int(rows[i])] for i, k in zip(labelled, nearest, strict=True)]
                row["label1"] = sum(hits) / len(hits)
            found.setdefault(name, []).append(row)
    return summary(found)


def summary(found: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """Means over the caches by modality, then over the modalities."""
    out: dict[str, float] = {}
    for metric in ("r1", "label1", "gap"):
        means = []
        for name, rows in found.items():
            values = [row[metric] for row in rows if metric in row]
            if values:
                out[f"{name}/{metric}"] = sum(values) / len(values)
                means.append(out[f"{name}/{metric}"])
        if means and metric != "gap":
            out[metric] = sum(means) / len(means)
    return out


def first_rows(source: Source, modality: str, samples: Tensor, head: nn.Module) -> Tensor:
    """Unit embeddings (n, d) of the first row of each sample."""
    ragged = source.rows[modality]
    return F.normalize(head(ragged.values[ragged.offsets[samples]].float()), dim=1)


def embed_some(source: Source, modality: str, samples: Tensor, head: nn.Module) -> Tensor:
    """Unit embeddings (n, d) of samples; zeros for those that lack the modality."""
    ragged = source.rows[modality]
    return embed_mean(ragged.some(samples), head)
