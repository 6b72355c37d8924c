"""The retrieval protocol: tables 1 and 2 over kept features, for any number of methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from unialign_gen.errors import InputError

from .embeddings import Features, owners, pooled, rows
from .figures import Row, pairs, row
from .intervals import bootstrap
from .methods import Method, head
from .retrieval import AT, Cosine, Ranks, Score, Scorer, Volume, dual_softmax_ranks, ranks, recalls, rescored_ranks

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner

INITIALS = {"video": "V", "audio": "A", "image": "I"}


def subsets(features: Features, others: Sequence[str]) -> dict[str, Tensor]:
    """Which samples (bool, (N,)) a table is of: all that have text and the first modality, and those that have all of them.

    MSR-VTT's 1000 test clips and the 884 with sound are these two.
    """
    has = {m: features.features(m).counts > 0 for m in ("text", *others)}
    every = has["text"] & has[others[0]]
    whole = torch.stack(list(has.values())).all(0)
    if len(others) > 1 and bool((every != whole).any()):
        return {f"with {others[0]}": every, f"with {' and '.join(others)}": whole}
    return {"all": every}


def scores(text: Tensor, clips: dict[str, Tensor]) -> dict[str, Score]:
    """Every way to score texts (Q, d) against clips by their modalities (N, d each), by its name."""
    found: dict[str, Score] = {}
    for name, z in clips.items():
        found[f"T-{initial(name)} cosine"] = Cosine(text, z)
    if len(clips) > 1:
        joint = "".join(initial(name) for name in clips)
        found[f"T-{joint} cosine"] = Cosine(text, F.normalize(torch.stack(list(clips.values())).mean(0), dim=1))
        found[f"T-{joint} volume"] = Volume(text, list(clips.values()))
    return found


def initial(modality: str) -> str:
    return INITIALS.get(modality, modality)


def measure(
    features: Features,
    method: Method,
    others: Sequence[str],
    aligner: Aligner | None,
    dsl: float | None = None,
    scorers: tuple[Scorer, Scorer] | None = None,
) -> dict[tuple[str, str], tuple[list[Ranks], Tensor]]:
    """(subset, score) -> the ranks of each of the method's runs, and the texts' owners.

    Args:
        dsl: also rows "+DSL" with this scale, where pairs are one to one.
        scorers: also rows "+ITM": a matching model's scores by text and by clip, numbered as in the subset.
    """
    captions = features.features("text")
    owner = owners(captions)
    found: dict[tuple[str, str], tuple[list[Ranks], Tensor]] = {}
    for run in method.runs:
        text = rows(captions, head("text", run, aligner))
        clips = {m: pooled(features.features(m), head(m, run, aligner)).z for m in others}
        widths = {z.shape[1] for z in (text, *clips.values())}
        if len(widths) > 1:
            raise InputError(
                f"{method.name}: embeddings differ in width ({sorted(widths)}): a modality has no head of this space"
            )
        for subset, keep in subsets(features, others).items():
            number = keep.cumsum(0) - 1
            mine, kept = keep[owner], {m: z[keep] for m, z in clips.items()}
            if subset == f"with {others[0]}":
                kept = {others[0]: kept[others[0]]}
            of = number[owner[mine]]
            for label, score in scores(text[mine], kept).items():
                found.setdefault((subset, label), ([], of))[0].append(ranks(score, of))
                if dsl is not None and len(of) == int(keep.sum()):
                    found.setdefault((subset, f"{label} +DSL"), ([], of))[0].append(dual_softmax_ranks(score, of, dsl))
                if scorers is not None:
                    found.setdefault((subset, f"{label} +ITM"), ([], of))[0].append(rescored_ranks(score, of, *scorers))
    return found


def per_clip(hits: np.ndarray, owner: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Means of (queries,) over each clip's queries, and how many there are: what is drawn anew together."""
    if owner is None:
        return hits, np.ones(len(hits))
    counts = np.bincount(owner.numpy())
    return np.bincount(owner.numpy(), weights=hits) / counts, counts


def evaluate(
    features: Features,
    methods: Sequence[Method],
    others: Sequence[str],
    aligner: Aligner | None = None,
    dsl: float | None = None,
    scorers: tuple[Scorer, Scorer] | None = None,
    **dimensions: Any,
) -> dict[str, list[Row]]:
    """`rows` and paired `differences` of every method, score, subset and direction.

    Recalls are means over a method's runs, with intervals over clips; median ranks are means over runs and have none.

    Raises:
        InputError: the features lack text or another modality, or the heads do not fit.
    """
    missing = [m for m in ("text", *others) if m not in features.modalities]
    if missing or not others:
        raise InputError(f"retrieval needs text and another modality; the features have {', '.join(features.modalities)}")
    found = {m.name: measure(features, m, others, aligner, dsl, scorers) for m in tqdm(methods, desc="methods", disable=None)}
    out: dict[str, list[Row]] = {"rows": [], "differences": []}
    for subset, label in next(iter(found.values())):
        for arrow in ("to_clip", "to_text"):
            target = label.split()[0].removeprefix("T-")
            task = f"T->{target}" if arrow == "to_clip" else f"{target}->T"
            about = {**dimensions, "task": task, "subset": subset, "label": label}
            hits: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
            for name, table in found.items():
                runs, owner = table[(subset, label)]
                every = np.stack([getattr(r, arrow) for r in runs])
                for k in AT:
                    hits[name, k] = per_clip((every <= k).mean(0), owner if arrow == "to_clip" else None)
                    out["rows"].append(row(f"R@{k}", bootstrap(*hits[name, k]), every.shape[1], method=name, **about))
                medians = [recalls(r)["median_rank"] for r in every]
                out["rows"].append(
                    {**about, "method": name, "metric": "median rank", "value": float(np.mean(medians)), "n": every.shape[1]}
                )
            for one, other in pairs(list(found)):
                for k in AT:
                    (a, counts), (b, _) = hits[one, k], hits[other, k]
                    out["differences"].append(
                        row(f"R@{k}", bootstrap(a - b, counts), int(counts.sum()), method=f"{one} - {other}", **about)
                    )
    return out
