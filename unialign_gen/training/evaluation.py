"""What a run measures while it trains, on samples that are never drawn: recall, concepts, gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..notes import note
from ..retrieval import Cosine, ranks
from .features import Source

Embed = Callable[[str, Source, Tensor], Tensor]


FEW = 100  # pairs, of which a recall of one half has an interval of a tenth to both sides


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

    Returns, for each modality that has them: `<modality>/r1`, both directions' mean over the `<modality>/n` samples that have
    the anchor too, ties as in `retrieval.ranks`; `<modality>/label1`, how often a sample lies nearest to its own label's mean;
    `<modality>/gap`, the distance of the two modalities' means; and `r1`, `label1`, their means over the modalities.
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
            if (pairs := int(both.sum())) > 1:
                ranked = ranks(Cosine(z[both], target[both]), torch.arange(pairs))
                row["r1"] = float(ranked.to_clip.hits[1].mean() + ranked.to_text.hits[1].mean()) / 2
                row["n"] = pairs
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
    """The names of what `evaluate` finds, from which samples have what alone: nothing is embedded. Too few are a note."""

    def there(name: str, source: Source, rows: Tensor) -> Tensor:
        return source.has(name)[rows, None].float()

    found = evaluate(modalities, there, sources, {label: torch.ones(1) for label in labels}, anchor, limit)
    counts = {name: int(found.pop(f"{name}/n")) for name in modalities if f"{name}/n" in found}
    if few := [f"{name}/r1 of {n}" for name, n in counts.items() if n < FEW]:
        note("few held out", f"held out are too few pairs to tell much: {', '.join(few)}; raise evaluation.held_out")
    return list(found)


def summary(found: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """Means over the caches by modality, then over the modalities."""
    out: dict[str, float] = {}
    for metric in ("r1", "label1", "gap"):
        values = {name: [row[metric] for row in rows if metric in row] for name, rows in found.items()}
        means = {f"{name}/{metric}": sum(some) / len(some) for name, some in values.items() if some}
        out |= means
        if means and metric != "gap":
            out[metric] = sum(means.values()) / len(means)
    return out | {f"{name}/n": sum(r.get("n", 0) for r in rows) for name, rows in found.items() if any("n" in r for r in rows)}
