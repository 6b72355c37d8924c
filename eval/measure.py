"""From a study's pictures to its figures: features once, then every number with its interval, by method and by class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from unialign_gen.data.extract_config import digest as digest_of_weights
from unialign_gen.errors import InputError

from . import scores
from .embeddings import initial
from .extractors import Extractor, prepare_one
from .features import cached, kept
from .figures import Estimate, Row, bootstrap, from_halves, halves, row, tabulate
from .frechet import frechet_infinity
from .judge import Judge
from .pictures import Cell, file_name
from .study import Study

if TYPE_CHECKING:
    from unialign_gen.aligner import Aligner

AVERAGED = ("text", "audio", "text+audio")  # the mean of table 3
MEAN = "mean"
REAL, SHUFFLED = "the clips' own pictures", "shuffled prompts"  # rows of the ceiling and of the floor
Values = dict[str, dict[tuple[str, str], np.ndarray]]  # see `figures.Values`


def task_of(kind: str) -> str:
    """`text+audio` -> `(T+A)->I`, as table 3 writes it."""
    names = "+".join(map(initial, kind.split("+")))
    return f"({names})->I" if "+" in names else f"{names}->I"


def image_space(name: str, aligner: Aligner) -> Extractor:
    """An aligner's image encoder and head, as an extractor of unit embeddings."""
    found = aligner.part("image")
    made = f"{name.replace('/', '_')} image space-{digest_of_weights(found.encoder)[:8]}"
    return Extractor(made, "the encoder's own", partial(prepare_one, found.encoder), found, "")


class Space:
    """A judge of one's choice: an aligner whose pictures, and texts or sounds, lie in one space.

    Attributes:
        image: the extractor of its pictures.
        classes: embeddings (C, d) of the clips' class names; none where there are no classes or it does not read texts.
        right: numbers of each clip's classes.
        sounds: of the clips' sounds (N, d); none where a clip has none or it does not hear.
        real: of the clips' own pictures (N, d).
    """

    @torch.no_grad()
    def __init__(self, name: str, aligner: Aligner, study: Study):
        """Embeds class names, sounds and real pictures; sounds and pictures are kept in the study's folder."""
        self.name, self.image, folder = name, image_space(name, aligner), study.plan.out / "measured" / "reference"
        known = sorted({c for names in study.classes for c in names})
        self.classes = torch.as_tensor(aligner.embed("text", known)) if known and "text" in aligner.modalities else None
        self.right = [[known.index(c) for c in names] for names in study.classes]
        self.sounds: Tensor | None = None
        files = [study.corpus.samples[i].audio for i in study.keep.tolist()]
        if "audio" in aligner.modalities:
            try:
                if not all(files):
                    raise InputError("a clip names none")
                about = {"encoder": digest_of_weights(aligner.part("audio").encoder), "clips": study.digest}
                place = folder / f"{name.replace('/', '_')} sounds.safetensors"
                heard = kept(place, about, lambda: torch.cat([torch.as_tensor(aligner.embed("audio", [f])) for f in files]))
                self.sounds = heard
            except InputError as error:  # of a silent video, say
                warnings.warn(f"{name}: no AIS, since not every clip has a sound ({error})", stacklevel=2)
        self.real = cached(self.image, study.references, folder / f"{self.image.name}.safetensors")

    def figures(self, x: Tensor) -> dict[str, np.ndarray]:
        """Class accuracy, IIS and AIS of pictures' embeddings (N, d), by clip."""
        found = {f"IIS ({self.name})": scores.similarity_share(x, self.real, self.real)}
        if self.sounds is not None:
            found[f"AIS ({self.name})"] = scores.similarity_share(x, self.sounds, self.sounds)
        if self.classes is not None:
            found[f"AIC ({self.name})"] = scores.class_hits(x, self.classes, self.right)
            found[f"class accuracy, top-5 ({self.name})"] = scores.class_hits(x, self.classes, self.right, 5)
        return found


class Judges:
    """Who says what pictures show: the checkpoint's own image space, the shipped judge if it is asked for, and others."""

    def __init__(self, study: Study, pipeline: Any, probe: bool, aligners: Mapping[str, Aligner]):
        self.own = image_space(study.plan.checkpoint, pipeline.aligner)
        self.probe = Judge.from_folder() if probe else None
        names = self.probe.vocabulary() if self.probe else {}
        self.wanted = [frozenset().union(*(names.get(c, frozenset()) for c in classes)) for classes in study.classes]
        self.spaces = [Space(name, aligner, study) for name, aligner in aligners.items()]

    def hits(self, features: Mapping[str, Tensor], shift: int = 0) -> dict[str, np.ndarray]:
        """What is judged of each clip (N,), of features by extractor; `shift` gives every clip another's picture."""
        found = {}
        if self.probe is not None:
            top = self.probe.named(features["judge"].roll(shift, 0))
            found = {f"judge top-{k}": scores.hits_of([t[:k] for t in top], self.wanted) for k in (1, 5)}
        for space in self.spaces:
            found |= space.figures(features[space.image.name].roll(shift, 0))
        return found


class DrawnFeatures:
    """A cell's pictures as features, row i of clip i, kept beside the pictures.

    Attributes:
        features: (N, d) by the name of an extractor in the call, or, of unit length, of a judge's own.
        prompt: unit embeddings of the prompts (N, e) in the checkpoint's own image space.
    """

    def __init__(self, study: Study, cell: Cell, extractors: Mapping[str, Extractor], judges: Judges):
        files = cell.files(study.plan.out, study.ids)
        folder = study.plan.out / "measured" / cell.decoder / cell.method / cell.kind / str(cell.seed)

        def of(extractor: Extractor) -> Tensor:
            return cached(extractor, files, folder / f"{extractor.name}.safetensors")

        self.features = {e.name: F.normalize(of(e), dim=1) for e in (judges.own, *(s.image for s in judges.spaces))}
        self.features |= {name: of(e) for name, e in extractors.items()}
        number = cell.seed if (cell.method, cell.seed) in study.embedded else 0
        self.prompt = study.embedded[cell.method, number][cell.kind]

    def figures(self, judges: Judges, shift: int = 0) -> dict[str, np.ndarray]:
        """What every clip has by itself (N,)."""
        name = f"agreement ({judges.own.name.rsplit('-', 1)[0]})"
        agreement = scores.cosines(self.prompt, self.features[judges.own.name].roll(shift, 0))
        return {name: agreement} | judges.hits(self.features, shift)


Drawn = Mapping[tuple[str, str], Sequence[DrawnFeatures]]  # (method, kind of prompt) -> draws


def measure(
    study: Study,
    extractors: Mapping[str, Extractor],
    resamples: int = 100,
    seed: int = 0,
    judges: Mapping[str, Aligner] | None = None,
) -> dict[str, list[Any]]:
    """Every figure of every decoder, method and kind of prompt: `rows`, paired `differences`, `classes`, and `curves` in N.

    Args:
        extractors: by name; the judge's must be among them for the judge's shares.
        resamples: halves of the clips that the distances' intervals come from.
        judges: aligners by name that say what pictures show: class accuracy, AIS, IIS and AIC, see `Space`.
    """
    plan = study.plan
    parts = list(halves(len(study.ids), resamples, seed)) if len(study.ids) >= 16 else []
    if not parts:
        warnings.warn(f"{len(study.ids)} clips are too few for intervals of distances", stacklevel=2)
    real = {
        name: cached(e, study.references, plan.out / "measured" / "reference" / f"{e.name}.safetensors")
        for name, e in extractors.items()
    }
    out: dict[str, list[Any]] = {"rows": [], "differences": [], "classes": [], "curves": []}
    for decoder, pipeline in study.pipelines.items():
        asked = Judges(study, pipeline, "judge" in extractors, judges or {})
        drawn: dict[tuple[str, str], list[DrawnFeatures]] = {}
        for cell in study.cells[decoder]:
            drawn.setdefault((cell.method, cell.kind), []).append(DrawnFeatures(study, cell, extractors, asked))
        about = {"dataset": study.name, "checkpoint": plan.checkpoint, "decoder": decoder}
        found = [distances(drawn, name, real[name], extractor, parts, about) for name, extractor in extractors.items()]
        for made in (*found, shares(study, drawn, real, asked, about)):
            for part, rows in made.items():
                out[part] += rows
    return out


def distances(
    drawn: Drawn, name: str, real: Tensor, extractor: Extractor, parts: Sequence[np.ndarray], about: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Distances between sets: means over draws, intervals from halves of the clips, each draw's value beside them."""
    names, count = extractor.distances, len(real)
    source = {**about, "extractor": extractor.name, "resize": extractor.resize}
    values: Values = {}
    draws: Values = {}
    limits, series = [], {}
    for (method, kind), sets in tqdm(drawn.items(), desc=f"distances, {name}", disable=None):
        each = [scores.distances(d.features[name], real, names, parts) for d in sets]
        for metric in each[0]:
            values.setdefault(method, {})[task_of(kind), metric] = np.mean([e[metric] for e in each], 0)
            draws.setdefault(method, {})[task_of(kind), metric] = np.array([e[metric][0] for e in each])
        if count >= 8:
            fits = [frechet_infinity(d.features[name], real) for d in sets]
            value, error = (float(np.mean([getattr(f, part) for f in fits])) for part in ("value", "error"))
            fitted = Estimate(value, value - 1.959964 * error, value + 1.959964 * error, count)
            metric = f"{names[0]}, N -> infinity (interval of the fit alone)"
            limits.append(row(metric, fitted, **source, method=method, task=task_of(kind)))
            points = np.mean([f.points for f in fits], 0)
            series[f"{method} {task_of(kind)}"] = [[int(n), float(v)] for n, v in points]
    add_means(values)
    add_means(draws)
    out: dict[str, list[Any]] = dict(tabulate(values, lambda m, x: from_halves(x[0], x[1:], count, *bounds(m)), **source))
    for entry in out["rows"]:
        entry["draws"] = draws[entry["method"]][entry["task"], entry["metric"]].tolist()
    out["rows"] += limits
    return out | {"curves": [{"title": f"{names[0]} by number of pictures; {about['decoder']}", "series": series}]}


def bounds(metric: str) -> tuple[float, float]:
    """Between what a figure can be; a difference (no metric) and the unbiased kernel distance can be anything."""
    if metric in ("precision", "recall", "coverage"):
        return 0.0, 1.0
    return -math.inf if not metric or "kernel" in metric or metric == "KID" else 0.0, math.inf


def add_means(values: Values) -> None:
    """The mean over T, A and T+A of each method that has all three."""
    tasks = [task_of(kind) for kind in AVERAGED]
    for found in values.values():
        for metric in dict.fromkeys(m for _, m in found):
            if all((task, metric) in found for task in tasks):
                found[MEAN, metric] = np.mean([found[task, metric] for task in tasks], 0)


def shares(
    study: Study, drawn: Drawn, real: Mapping[str, Tensor], judges: Judges, about: Mapping[str, Any]
) -> dict[str, list[Row]]:
    """Figures clip by clip, bootstrap over clips, paired between methods; with the rows of floor and ceiling, and by class.

    The floor, "shuffled prompts", is another clip's picture; the ceiling the clips' own pictures.
    """
    values: Values = {}
    floor: Values = {}
    classes: list[Row] = []
    shift = 1 + len(study.ids) // 3
    labels = np.array([label or "" for label in study.labels])
    for (method, kind), sets in drawn.items():
        task = task_of(kind)
        found = mean_of([d.figures(judges) for d in sets])
        for label in sorted(set(labels.tolist()) - {""}):
            mine = labels == label
            means = {metric: float(np.mean(x[mine])) for metric, x in found.items()}
            classes.append({**about, "method": method, "task": task, "class": label, "n": int(mine.sum()), **means})
        for name in real:
            found[f"diversity ({name})"] = np.mean([scores.spread(d.features[name]) for d in sets], 0)
            if len(sets) > 1:
                found[f"diversity of draws ({name})"] = scores.spread_of_seeds([d.features[name] for d in sets])
        values.setdefault(method, {}).update({(task, metric): x for metric, x in found.items()})
        shuffled = mean_of([d.figures(judges, shift) for d in sets])
        floor.setdefault(f"{method}, {SHUFFLED}", {}).update({(task, metric): x for metric, x in shuffled.items()})
    own = judges.hits({**real, **{s.image.name: s.real for s in judges.spaces}})
    own |= {f"diversity ({name})": scores.spread(x) for name, x in real.items()}
    made = tabulate(values, lambda _, x: bootstrap(x), **about)
    for group in (floor, {REAL: {("-", metric): x for metric, x in own.items()}}):
        made["rows"] += tabulate(group, lambda _, x: bootstrap(x), **about)["rows"]
    return {**made, "classes": classes}


def mean_of(each: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {metric: np.mean([e[metric] for e in each], 0) for metric in each[0]}


def choose_examples(study: Study, count: int) -> list[dict[str, Any]]:
    """The first clips of the selection, whose order is a hash: prompt, own picture and every method's, draw 0."""
    shown = [(decoder, cell) for decoder, cells in study.cells.items() for cell in cells if cell.seed == 0]
    found = []
    for clip, text, label in list(zip(study.ids, study.texts, study.labels, strict=True))[:count]:
        pictures = [
            {"decoder": decoder, "method": cell.method, "task": task_of(cell.kind), "path": str(cell.files(Path(), [clip])[0])}
            for decoder, cell in shown
        ]
        about = {"id": clip, "text": text, "label": label, "reference": f"reference/{file_name(clip)}"}
        found.append(about | {"pictures": pictures})
    return found
