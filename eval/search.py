"""The retrieval protocol: tables 1 and 2 over kept features, for any number of methods.

Every pathway by itself (T-V, T-A), the modalities together by centroid, by volume and by query-weighted centroid, and what
together gains over the best pathway alone; where captions repeat in both readings, strict and with equal captions right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from unialign_gen.errors import InputError
from unialign_gen.loading.methods import Method, tell_borrowed
from unialign_gen.retrieval import (
    AT,
    DEPTH,
    Cosine,
    DualSoftmax,
    QueryWeightedCentroid,
    Ranking,
    Ranks,
    Reranked,
    Score,
    Volume,
    both_ways,
    equal_rows,
    ranks,
    recalls,
)
from unialign_gen.training.seeds import unit_hash

from .embeddings import head_of, initial, of_modality, owners, rows
from .figures import Estimate, bootstrap, row, tabulate

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner
    from unialign_gen.data.cache import FeatureCache

__all__ = ["retrieval_figures"]

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of a clip's modalities that are taken away
EQUAL = ", equal captions right"
ARROWS = ("to_clip", "to_text")
GAIN = "gain in R@1 over the best pathway alone"
Table = dict[tuple[str, str], tuple[list[Ranks], Tensor]]  # (subset, score) -> a method's runs, and the texts' clips


def retrieval_figures(text: Tensor, clips: Mapping[str, Tensor], owner: Tensor | None = None) -> dict[str, float]:
    """Every figure between texts (Q, d) and the clips' modalities (N, d) each, unit embeddings, both ways, by `task|metric`.

    Args:
        clips: a clip that lacks a modality has a row of zeros there.
        owner: of each text the number of its clip (Q,); row i of clip i by default.

    Returns:
        Each modality alone (`T->V cosine|R@1`, `V->T cosine|R@1`), all together by `centroid`, `volume` and `query-weighted
        centroid`, and `gain`: R@1 together minus that of the best modality alone.

    Raises:
        InputError: a clip without a text.

    Example:
        >>> z = torch.eye(4)
        >>> found = retrieval_figures(z, {"video": z, "audio": z.flip(0)})
        >>> found["T->V cosine|R@1"], found["T->VA volume|R@1"], found["T->VA volume|gain"]
        (1.0, 0.5, -0.5)
    """
    found: dict[str, float] = {}
    for label, score in scores_of(text, clips):
        made = ranks(score, torch.arange(len(text)) if owner is None else owner)
        for arrow in ARROWS:
            task = f"{task_of(label, arrow)} {label.partition(' ')[2]}"
            found |= {f"{task}|{metric}": value for metric, value in recalls(getattr(made, arrow)).items()}
            if not label.endswith("cosine"):
                alone = [found[f"{task_of(f'T-{initial(m)}', arrow)} cosine|R@1"] for m in clips]
                found[f"{task}|gain"] = found[f"{task}|R@1"] - max(alone)
    return found


def task_of(label: str, arrow: str) -> str:
    target = label.split()[0].removeprefix("T-")
    return f"T->{target}" if arrow == "to_clip" else f"{target}->T"


def scores_of(
    text: Tensor, clips: Mapping[str, Tensor], ids: Sequence[str] = (), rates: Sequence[float] = ()
) -> Iterator[tuple[str, Score]]:
    """Texts (Q, d) against the clips' modalities (N, d each), every score by name: each alone, then all of them together."""
    for modality, z in clips.items():
        yield f"T-{initial(modality)} cosine", Cosine(text, z)
    if len(clips) < 2:
        return
    name = f"T-{''.join(initial(m) for m in clips)}"
    for rate in (None, *rates):
        rest = list((clips if rate is None else without(clips, ids, rate)).values())  # rows of zeros are what is missing
        gone = "" if rate is None else f", {rate:.0%} missing"
        yield f"{name} centroid{gone}", Cosine(text, F.normalize(torch.stack(rest).sum(0), dim=1))
        yield f"{name} volume{gone}", Volume(text, rest)
        yield f"{name} query-weighted centroid{gone}", QueryWeightedCentroid(text, rest)


def without(clips: Mapping[str, Tensor], ids: Sequence[str], rate: float) -> dict[str, Tensor]:
    """Modalities of clips taken away, each with chance `rate` by a hash of clip and modality; every clip keeps one at least."""
    drawn = torch.tensor([[unit_hash(f"{i}:{m}") for m in clips] for i in ids])  # (N, M)
    keep = drawn >= rate
    keep[torch.arange(len(ids)), drawn.argmax(1)] = True
    return {m: z * keep[:, i, None] for i, (m, z) in enumerate(clips.items())}


def subsets(features: FeatureCache, others: Sequence[str], ids: frozenset[str] | None = None) -> dict[str, Tensor]:
    """Which samples (bool, (N,)) a table is of, of `ids` if given: those with text and the first modality, and those with all.

    MSR-VTT's 1000 test clips and the 884 with sound are these two.
    """
    has = {m: features.features(m).counts > 0 for m in ("text", *others)}
    if ids is not None:
        has["text"] = has["text"] & torch.tensor([i in ids for i in features.ids])
    every = has["text"] & has[others[0]]
    whole = torch.stack(list(has.values())).all(0)
    if not bool(whole.any()):
        raise InputError(f"no sample has all of text, {', '.join(others)}: leave one of them out (--modality)")
    if len(others) > 1 and bool((every != whole).any()):
        return {f"with {others[0]}": every, f"with {' and '.join(others)}": whole}
    return {"all": every}


def measure(
    features: FeatureCache,
    method: Method,
    others: Sequence[str],
    aligner: Aligner | None,
    chosen: dict[str, Tensor],
    groups: Tensor,
    dsl: float | None,
    missing: bool,
    rerank: Tensor | None,
) -> Table:
    """The ranks of a method's runs; see `evaluate`."""
    captions = features.features("text")
    owner = owners(captions)
    found: Table = {}
    for run in method.runs:
        text = rows(captions, head_of(features, "text", run, aligner))
        clips = {m: of_modality(features, m, run, aligner) for m in others}
        if len({z.shape[1] for z in (text, *clips.values())}) > 1:
            raise InputError(f"{method.name}: embeddings differ in width: a modality has no head of this space")
        for subset, keep in chosen.items():
            mine, kept = keep[owner], others[:1] if subset == f"with {others[0]}" else others
            of, equal = (keep.cumsum(0) - 1)[owner[mine]], groups[mine]  # the texts' clips, numbered within the subset
            ids = [i for i, there in zip(features.ids, keep.tolist(), strict=True) if there]
            for label, score in scores_of(text[mine], {m: clips[m][keep] for m in kept}, ids, RATES if missing else ()):
                made = {label: ranks(score, of)}
                if len(torch.unique(equal)) < len(equal):
                    made[label + EQUAL] = ranks(score, of, equal)
                if dsl is not None and len(of) == len(ids):
                    made[f"{label} +DSL"] = both_ways(partial(DualSoftmax, score, of, scale=dsl), of)
                if rerank is not None:
                    made[f"{label} +rerank"] = both_ways(partial(Reranked, score, rerank[mine][:, keep]), of)
                for name, found_ranks in made.items():
                    found.setdefault((subset, name), ([], of))[0].append(found_ranks)
    return found


def figures_of(runs: Sequence[Ranking], owner: Tensor | None) -> dict[str, np.ndarray]:
    """Figures of each clip (N,), means over its queries and over runs."""
    found = {f"R@{k}": np.mean([r.hits[k] for r in runs], 0) for k in AT}
    found |= {"mAP": np.mean([r.ap for r in runs], 0), f"nDCG@{DEPTH}": np.mean([r.ndcg for r in runs], 0)}
    if owner is None:
        return found
    clip = owner.numpy()  # whose queries are drawn anew together
    return {metric: np.bincount(clip, weights=values) / np.bincount(clip) for metric, values in found.items()}


def evaluate(
    features: FeatureCache,
    methods: Sequence[Method],
    others: Sequence[str],
    aligner: Aligner | None = None,
    dsl: float | None = None,
    missing: bool = False,
    ids: frozenset[str] | None = None,
    rerank: Tensor | None = None,
    **dimensions: Any,
) -> dict[str, Any]:
    """`rows` and paired `differences` of every method, score, subset and direction, and what the `captions` allow.

    Figures are means over a method's runs, with intervals over clips; median ranks are means over runs and have none.

    Args:
        dsl: also rows "+DSL" with this scale, where pairs are one to one.
        missing: also with modalities taken away, at five rates.
        ids: only these samples.
        rerank: another model's scores of all texts with all samples (Q, N), for rows "+rerank", see `retrieval.Reranked`.

    Raises:
        InputError: the features lack text or another modality, or the heads do not fit.
    """
    if {"text", *others} - set(features.modalities) or not others:
        raise InputError(f"retrieval needs text and another modality; the features have {', '.join(features.modalities)}")
    if "text" in others:
        raise InputError("retrieval asks by text: text is none of the modalities that are found, leave it out")
    chosen = subsets(features, others, ids)
    captions = features.features("text")
    if rerank is not None and rerank.shape != (len(captions.values), len(captions)):
        raise InputError(
            f"a reranker's scores are ({len(captions.values)} texts, {len(captions)} clips): got {(*rerank.shape,)}"
        )
    tell_borrowed(methods, ["text", *others], aligner)
    groups = equal_rows(captions.values[:])
    facts = {name: caption_facts(owners(captions), groups, keep) for name, keep in chosen.items()}
    progress = tqdm(methods, desc="methods", disable=None)
    found = {m.name: measure(features, m, others, aligner, chosen, groups, dsl, missing, rerank) for m in progress}
    out: dict[str, Any] = {"rows": [], "differences": [], "captions": facts}
    for subset, label in next(iter(found.values())):
        for arrow in ARROWS:
            about = {**dimensions, "subset": subset, "label": label}
            task, values, pathways = task_of(label, arrow), {}, {}
            owner = next(iter(found.values()))[subset, label][1] if arrow == "to_clip" else None
            counts = None if owner is None else np.bincount(owner.numpy())
            for name, table in found.items():
                runs = [getattr(r, arrow) for r in table[subset, label][0]]
                values[name] = {(task, metric): v for metric, v in figures_of(runs, owner).items()}
                median = Estimate(float(np.mean([np.median(r.rank) for r in runs])), n=len(runs[0]))
                out["rows"].append(row("median rank", median, **about, method=name, task=task))
                if alone := alone_of(table, subset, label, arrow):
                    pathways[name] = max(alone, key=lambda p: float(np.average(alone[p], weights=counts)))
                    values[name][task, GAIN] = values[name][task, "R@1"] - alone[pathways[name]]
            made = tabulate(values, lambda _, x: bootstrap(x, counts), **about)  # noqa: B023  it is called at once
            for entry in made["rows"]:
                if entry["metric"] == GAIN:
                    entry["pathway"] = pathways[entry["method"]]
            for part in made:
                out[part] += made[part]
    return out


def alone_of(table: Table, subset: str, label: str, arrow: str) -> dict[str, np.ndarray]:
    """R@1 of each clip (N,) by each pathway alone, for modalities together under the plain score; else none."""
    reading = EQUAL if label.endswith(EQUAL) else ""
    if label.endswith((f"cosine{reading}", "+DSL", "+rerank")) or "missing" in label:
        return {}
    return {
        other: figures_of([getattr(r, arrow) for r in runs], owner if arrow == "to_clip" else None)["R@1"]
        for (there, other), (runs, owner) in table.items()
        if there == subset and other.endswith(f" cosine{reading}")
    }


def caption_facts(owner: Tensor, groups: Tensor, keep: Tensor) -> dict[str, Any]:
    """How many captions there are, how many distinct, and the best R@1 that the strict reading allows a perfect model."""
    mine = keep[owner]
    of, groups = (keep.cumsum(0) - 1)[owner[mine]], groups[mine]
    pairs_of, at = torch.unique(torch.stack([groups, of], 1), dim=0, return_inverse=True)
    clips_of_caption = torch.bincount(pairs_of[:, 0], minlength=int(groups.max()) + 1)[groups]
    own, size = torch.bincount(at)[at], torch.bincount(groups)[groups]  # copies of a text at its clip, and everywhere
    best = torch.zeros(int(of.max()) + 1, dtype=torch.float64).scatter_reduce(0, of, own.double() / size, "amax")
    return {
        "captions": len(groups),
        "distinct": len(torch.unique(groups)),
        "strict ceiling of R@1, text to clip": float((1 / clips_of_caption.double()).mean()),
        "strict ceiling of R@1, clip to text": float(best.mean()),
    }
