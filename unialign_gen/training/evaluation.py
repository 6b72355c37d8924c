"""What a run measures while it trains, on samples that are never drawn: recall, concepts, gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from .features import Source

Embed = Callable[[str, Source, Tensor], Tensor]


def recall_at_1(query: Tensor, target: Tensor) -> float:
    """Share of rows (N, d) whose nearest target row, by cosine, is their own; ties count as misses."""
    scores = query @ target.T
    own = scores.diagonal().clone()
    scores.fill_diagonal_(-2)
    return float((own > scores.amax(1)).float().mean())


@torch.no_grad()
def evaluate(
    modalities: Sequence[str],
    embed: Embed,
    sources: Mapping[str, Source],
    means: Mapping[str, Tensor],
    anchor: str,
    limit: int,
) -> dict[str, float]:
    """Measures modalities on the held-out samples.

    Args:
        embed: modality, source and sample numbers (n,) to unit embeddings (n, d); zeros for a sample that lacks it.
        means: unit means (d,) of the labels, in the anchor's space.

    Returns, for each modality that has them: `<modality>/r1`, both directions' mean over samples that have the anchor too;
    `<modality>/label1`, how often a sample lies nearest to its own label's mean; `<modality>/gap`, the distance of the two
    modalities' means; and `r1`, `label1`, their means over the modalities.
    """
    found: dict[str, list[dict[str, float]]] = {}
    names = list(means)
    table = torch.stack([means[n] for n in names]) if names else None
    for name in modalities:
        for source in sources.values():
            rows = (source.held_out & source.has(name)).nonzero()[:, 0][:limit]
            if not len(rows):
                continue
            z = embed(name, source, rows)
            target = embed(anchor, source, rows) if anchor in source.rows else torch.zeros_like(z)
            row: dict[str, float] = {}
            both = (target != 0).any(1) & (z != 0).any(1)
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


def measurable(
    modalities: Sequence[str], sources: Mapping[str, Source], labels: Iterable[str], anchor: str, limit: int
) -> list[str]:
    """The names of what `evaluate` finds, from which samples have what alone: nothing is embedded."""

    def there(name: str, source: Source, rows: Tensor) -> Tensor:
        return source.has(name)[rows, None].float()

    return list(evaluate(modalities, there, sources, {label: torch.ones(1) for label in labels}, anchor, limit))


def summary(found: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """Means over the caches by modality, then over the modalities."""
    out: dict[str, float] = {}
    for metric in ("r1", "label1", "gap"):
        values = {name: [row[metric] for row in rows if metric in row] for name, rows in found.items()}
        means = {f"{name}/{metric}": sum(some) / len(some) for name, some in values.items() if some}
        out |= means
        if means and metric != "gap":
            out[metric] = sum(means.values()) / len(means)
    return out
