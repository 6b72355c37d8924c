"""From a study's pictures to its figures: features once, then every number with its interval, by method and by class."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from unialign_gen.data.extract_config import digest as digest_of_weights
from unialign_gen.loading import shipped_folder

from . import features, figures, scores
from .extractors import Extractor, prepare_one
from .figures import Row, row
from .intervals import bootstrap, from_halves, halves
from .judge import Judge
from .pictures import Cell, file_name
from .scores import DrawnFeatures
from .study import SELF, Study

INITIALS = {"text": "T", "audio": "A", "video": "V", "image": "I"}
AVERAGED = ("text", "audio", "text+audio")  # the mean of table 3
MEAN = "mean"


def task_of(kind: str) -> str:
    """`text+audio` -> `(T+A)->I`, as table 3 writes it."""
    names = "+".join(INITIALS.get(m, m) for m in kind.split("+"))
    return f"({names})->I" if "+" in names else f"{names}->I"


def image_space(checkpoint: str, pipeline: Any) -> Extractor:
    """The checkpoint's own image encoder and head, as an extractor of unit embeddings."""
    found = pipeline.aligner.part("image")
    name = f"{checkpoint} image space-{digest_of_weights(found.encoder)[:8]}"
    return Extractor(name, "the encoder's own", partial(prepare_one, found.encoder), found, "")


def vocabulary(judge: Judge) -> dict[str, frozenset[str]]:
    """Class names of corpora to the judge's concepts: its own names, and VGGSound's classes of them."""
    found = {c: frozenset([c]) for c in judge.concepts}
    for name, classes in json.loads((shipped_folder() / "judge" / "vggsound.json").read_text("utf-8")).items():
        several = classes.split(" / ")
        for label in {classes, *several, *(s.split(",")[0] for s in several)} if name in judge.concepts else ():
            found[label] = found.get(label, frozenset()) | {name}
    return found


def cells(study: Study, decoder: str) -> list[Cell]:
    plan = study.plan
    rows = [(kind, name) for kind in plan.kinds for name in ([SELF] if kind == "image" else [m.name for m in plan.methods])]
    return [Cell(decoder, name, kind, seed) for kind, name in rows for seed in range(plan.seeds)]


def load_drawn(
    study: Study, cell: Cell, extractors: Mapping[str, Extractor], space: Extractor, judge: Judge | None
) -> DrawnFeatures:
    """A cell's pictures as features, kept beside the pictures."""
    files = cell.files(study.plan.out, study.ids)
    folder = study.plan.out / "measured" / cell.decoder / cell.method / cell.kind / str(cell.seed)
    found = {name: features.cached(e, files, folder / f"{e.name}.safetensors") for name, e in extractors.items()}
    image = F.normalize(features.cached(space, files, folder / f"{space.name}.safetensors".replace("/", "_")), dim=1)
    number = cell.seed if (cell.method, cell.seed) in study.embedded else 0
    hits: Mapping[str, np.ndarray] = {}
    if judge is not None:
        names = vocabulary(judge)
        wanted = [names.get(label or "", frozenset()) for label in study.labels]
        hits = scores.judged(top_concepts(judge, found["judge"]), wanted)
    return DrawnFeatures(found, image, study.embedded[cell.method, number][cell.kind], hits)


@torch.no_grad()
def top_concepts(judge: Judge, x: Tensor, k: int = 5) -> list[list[str]]:
    return [[judge.concepts[i] for i in best] for best in judge.probe(x).topk(k, dim=1).indices.tolist()]


def names_of(extractor: Extractor) -> tuple[str, str, str]:
    """What the three distances in its features are called: FID, KID and MIND are Inception's alone."""
    if extractor.distance == "FID":
        return "FID", "KID", "MIND"
    name = extractor.distance
    return name, name.replace("Frechet", "kernel"), name.replace("Frechet", "sliced Wasserstein")


def measure(study: Study, extractors: Mapping[str, Extractor], resamples: int = 100, seed: int = 0) -> dict[str, list[Row]]:
    """Every figure of every decoder, method and kind of prompt: `rows`, paired `differences`, and `classes`.

    Args:
        extractors: by name; the judge's must be among them for the judge's shares.
        resamples: halves of the clips that the distances' intervals come from.
    """
    plan = study.plan
    parts = list(halves(len(study.ids), resamples, seed)) if len(study.ids) >= 16 else []
    if not parts:
        warnings.warn(f"{len(study.ids)} clips are too few for intervals of distances", stacklevel=2)
    real = {
        name: features.cached(e, study.references, plan.out / "measured" / "reference" / f"{e.name}.safetensors")
        for name, e in extractors.items()
    }
    judge = Judge.from_folder() if "judge" in extractors else None
    out: dict[str, list[Row]] = {"rows": [], "differences": [], "classes": []}
    for decoder, pipeline in study.pipelines.items():
        space = image_space(plan.checkpoint, pipeline)
        sets: dict[tuple[str, str], list[DrawnFeatures]] = {}
        for cell in cells(study, decoder):
            sets.setdefault((cell.method, cell.kind), []).append(load_drawn(study, cell, extractors, space, judge))
        about = {"dataset": study.corpus.name, "checkpoint": plan.checkpoint, "decoder": decoder}
        add_distances(out, sets, real, extractors, parts, about, len(study.ids))
        add_shares(out, sets, about, space.name.rsplit("-", 1)[0])
        add_classes(out, sets, study.labels, about)
        if judge is not None:
            out["rows"] += ceiling(study, judge, real["judge"], about)
    return out


Values = dict[tuple[str, str], dict[str, list[float]]]


def add_distances(
    out: dict[str, list[Row]],
    sets: Mapping[tuple[str, str], Sequence[DrawnFeatures]],
    real: Mapping[str, Tensor],
    extractors: Mapping[str, Extractor],
    parts: Sequence[np.ndarray],
    about: Mapping[str, Any],
    count: int,
) -> None:
    """Distances between sets: means over draws, intervals from halves of the clips, each draw's value beside them."""
    for name, extractor in extractors.items():
        values: Values = {}
        draws: dict[tuple[str, str], dict[str, list[float]]] = {}
        limits: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for key, drawn in tqdm(sets.items(), desc=f"distances, {name}", disable=None):
            each = [scores.distances(d.features[name], real[name], names_of(extractor), parts) for d in drawn]
            values[key] = {metric: np.mean([e[metric] for e in each], 0).tolist() for metric in each[0]}
            draws[key] = {metric: [e[metric][0] for e in each] for metric in each[0]}
            limits[key] = [scores.infinity(d.features[name], real[name]) for d in drawn]
        add_means(values)
        add_means(draws)
        source = {**about, "extractor": extractor.name, "resize": extractor.resize}
        for (method, kind), table in values.items():
            task = MEAN if kind == MEAN else task_of(kind)
            for metric, found in table.items():
                made = row(
                    metric, from_halves(found[0], found[1:], count, *bounds(metric)), count, method=method, task=task, **source
                )
                out["rows"].append(made | {"draws": draws[method, kind][metric]})
        for (method, kind), found_limits in limits.items():
            value, error = (float(np.mean(v)) for v in zip(*found_limits, strict=True))
            fitted = figures.Estimate(value, value - 1.959964 * error, value + 1.959964 * error)
            metric = f"{names_of(extractor)[0]}, N -> infinity (interval of the fit alone)"
            out["rows"].append(row(metric, fitted, count, method=method, task=task_of(kind), **source))
        compare(out, values, count, source)


def bounds(metric: str) -> tuple[float, float]:
    """Between what a figure can be; the unbiased kernel distance can be anything."""
    if metric in ("precision", "recall", "coverage"):
        return 0.0, 1.0
    return -math.inf if "kernel" in metric or metric == "KID" else 0.0, math.inf


def add_means(values: Values) -> None:
    """The mean over T, A and T+A of each method that has all three."""
    for method in dict.fromkeys(m for m, _ in values):
        if all((method, kind) in values for kind in AVERAGED):
            tables = [values[method, kind] for kind in AVERAGED]
            values[method, MEAN] = {metric: np.mean([t[metric] for t in tables], 0).tolist() for metric in tables[0]}


def compare(out: dict[str, list[Row]], values: Values, count: int, about: Mapping[str, Any]) -> None:
    """Differences between methods on the same clips and the same halves."""
    for kind in dict.fromkeys(k for _, k in values):
        for one, other in figures.pairs([m for m, k in values if k == kind]):
            for metric, a in values[one, kind].items():
                b = values[other, kind][metric]
                gaps = [x - y for x, y in zip(a, b, strict=True)]
                task = MEAN if kind == MEAN else task_of(kind)
                made = row(metric, from_halves(gaps[0], gaps[1:], count), count, method=f"{one} - {other}", task=task, **about)
                out["differences"].append(made)


def per_clip(drawn: Sequence[DrawnFeatures], space: str) -> dict[str, np.ndarray]:
    """Figures that every clip has by itself (N,), means over draws."""
    agreement = f"agreement ({space})"
    found = {
        agreement: np.mean([scores.agreement(d) for d in drawn], 0),
        f"{agreement}, mismatched": np.mean([scores.mismatched_agreement(d, i) for i, d in enumerate(drawn)], 0),
    }
    for metric in drawn[0].hits:
        found[metric] = np.mean([d.hits[metric] for d in drawn], 0)
    for name in drawn[0].features:
        found[f"diversity ({name})"] = np.mean([scores.spread(d.features[name]) for d in drawn], 0)
        if len(drawn) > 1:
            found[f"diversity of draws ({name})"] = scores.spread_of_seeds([d.features[name] for d in drawn])
    return found


def add_shares(
    out: dict[str, list[Row]], sets: Mapping[tuple[str, str], Sequence[DrawnFeatures]], about: Mapping[str, Any], space: str
) -> None:
    """Figures clip by clip: bootstrap over clips, paired between methods."""
    found = {key: per_clip(drawn, space) for key, drawn in sets.items()}
    for (method, kind), table in found.items():
        for metric, values in table.items():
            n = int((~np.isnan(values)).sum())
            if n:
                out["rows"].append(row(metric, bootstrap(values), n, method=method, task=task_of(kind), **about))
    for kind in dict.fromkeys(k for _, k in found):
        for one, other in figures.pairs([m for m, k in found if k == kind]):
            for metric, values in found[one, kind].items():
                gap = values - found[other, kind][metric]
                n = int((~np.isnan(gap)).sum())
                if n:
                    name = f"{one} - {other}"
                    out["differences"].append(row(metric, bootstrap(gap), n, method=name, task=task_of(kind), **about))


def add_classes(
    out: dict[str, list[Row]],
    sets: Mapping[tuple[str, str], Sequence[DrawnFeatures]],
    labels: Sequence[str | None],
    about: Mapping[str, Any],
) -> None:
    """Agreement and the judge's share of each class."""
    names = np.array([label or "" for label in labels])
    for (method, kind), drawn in sets.items():
        values = {"agreement": np.mean([scores.agreement(d) for d in drawn], 0)}
        values |= {metric: np.mean([d.hits[metric] for d in drawn], 0) for metric in drawn[0].hits}
        for label in sorted(set(names) - {""}):
            entry: Row = {**about, "method": method, "task": task_of(kind), "class": label, "n": int((names == label).sum())}
            for metric, found in values.items():
                entry[metric] = float(np.mean(found[names == label]))
            out["classes"].append(entry)


def ceiling(study: Study, judge: Judge, real: Tensor, about: Mapping[str, Any]) -> list[Row]:
    """The judge on the clips' own pictures, the set's own diversity."""
    names = vocabulary(judge)
    hits = scores.judged(top_concepts(judge, real), [names.get(label or "", frozenset()) for label in study.labels])
    found = {**hits, "diversity (judge)": scores.spread(real)}
    source = {**about, "method": "the clips' own pictures", "task": "-"}
    return [row(m, bootstrap(v), int((~np.isnan(v)).sum()), **source) for m, v in found.items() if (~np.isnan(v)).any()]


def choose_examples(study: Study, count: int) -> list[dict[str, Any]]:
    """The first clips of the selection, whose order is a hash: prompt, own picture and every method's, draw 0."""
    found = []
    for clip, text, label in list(zip(study.ids, study.texts, study.labels, strict=True))[:count]:
        entry: dict[str, Any] = {"id": clip, "text": text, "label": label, "pictures": []}
        entry["reference"] = str((study.plan.out / "reference" / file_name(clip)).relative_to(study.plan.out))
        for decoder in study.pipelines:
            for cell in cells(study, decoder):
                if cell.seed == 0:
                    path = cell.files(study.plan.out, [clip])[0].relative_to(study.plan.out)
                    about = {"decoder": decoder, "method": cell.method, "task": task_of(cell.kind)}
                    entry["pictures"].append({**about, "path": str(path)})
        found.append(entry)
    return found
