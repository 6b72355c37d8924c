"""A bench from its configuration to its results: every objective on every data set, resumable, in one process or many."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import to_dict
from ..console import stage
from ..data.cache import FeatureCache, write_whole
from ..errors import InputError
from ..heads import load_head
from ..loading import frozen_head
from ..objectives import Objective, build
from ..output import make_folder
from ..training.config import EvaluationConfig, HeadConfig, StreamConfig, TrainConfig
from ..training.folder import STATE
from ..training.train import DivergedError, train
from . import datasets, generation, measure, report
from .config import RATE, BenchConfig

Settings = dict[str, Any]


def run(config: BenchConfig, processes: int = 1) -> Path:
    """Runs what is missing and writes the report; returns its folder.

    Args:
        processes: that share the objectives; the threads are shared among them.

    Raises:
        InputError: a data set or an objective cannot be had, or the folder holds a bench of another configuration.
    """
    make_folder(config.out)
    path, said = config.out / "config.json", json.dumps({k: v for k, v in to_dict(config).items() if k != "out"}, indent=1)
    if path.is_file() and path.read_text() != said:
        raise InputError(f"{config.out} holds a bench of another configuration: choose another folder, or delete it")
    write_whole(path, said.encode())
    for name, dataset in config.datasets.items():
        stage(f"data set {name}")
        datasets.write(dataset, config.out / "data" / name)
        there = opened(config.out, name, "train").modalities
        for entry, wanted in (("query", config.query), ("anchor", config.anchor)):
            if wanted not in there:
                raise InputError(f"{entry}: data set {name} has no {wanted}, but {', '.join(there)}")
    # data sets that use another's settings come after all that search
    for searched in (True, False):
        jobs = [
            (config, name, objective)
            for name, dataset in config.datasets.items()
            if (dataset.settings is None) == searched
            for objective in config.chosen(name)
        ]
        if processes == 1:
            for job in jobs:
                stage(" ".join(job[1:]))
                contest(*job)
            continue
        threads = max(1, torch.get_num_threads() // processes)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
            list(pool.map(contest, *zip(*jobs, strict=True)))
    return report.write(config)


def contest(config: BenchConfig, dataset: str, objective: str) -> None:
    """One objective on one data set: its search, then its trainings with every size and seed. Goes on where it was."""
    path, entry = config.result_path(dataset, objective), config.objectives[objective]
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"trials": [], "runs": []}
    make_folder(path.parent)

    def keep() -> None:
        write_whole(path, (json.dumps(found, indent=1) + "\n").encode())

    made = build(**entry.objective)
    wrong = made.problem(list(opened(config.out, dataset, "train").modalities)) if isinstance(made, Objective) else None
    if wrong := found.get("unusable") or wrong:  # such as modalities that are not TRIANGLE's three
        found["unusable"] = wrong
        keep()
        return
    if (earlier := config.datasets[dataset].settings) is None:
        found["settings"] = search(config, dataset, objective, found["trials"], keep)
    else:
        other = json.loads(config.result_path(earlier, objective).read_text())
        if "settings" not in other:
            raise InputError(f"{dataset}: {objective} has no settings on {earlier}")
        found["settings"] = other["settings"]
    for size in [*config.datasets[dataset].sizes, None]:
        for seed in range(config.seeds):
            if not any(r["size"] == size and r["seed"] == seed for r in found["runs"]):
                found["runs"].append(final(config, dataset, objective, found["settings"], size, seed))
                keep()
    keep()


@lru_cache
def opened(out: Path, dataset: str, split: str) -> FeatureCache:
    """A data set's cache of a split, opened once a process."""
    return FeatureCache.open(out / "data" / dataset / split)


def search(config: BenchConfig, dataset: str, objective: str, trials: list[dict[str, Any]], keep: Any) -> Settings:
    """The settings that are best on the validation split, one option after the other; `trials` grows by what was tried."""
    options = config.objectives[objective].search
    best: Settings = {name: values[0] for name, values in options.items()}

    def score(settings: Settings) -> float:
        for trial in trials:
            if trial["settings"] == settings:
                return float(trial["score"])
        folder = config.out / "runs" / dataset / objective / f"trial-{len(trials)}"
        try:
            heads, _ = trained(config, dataset, objective, settings, None, 0, folder)
            z, labels, _ = embedded(config, dataset, "validation", heads)
            value = measure.validation_score(z, labels, config.query)
        except DivergedError:  # a rate at which it does has lost
            value = 0.0
        trials.append({"settings": settings, "score": value})
        keep()
        shutil.rmtree(folder, ignore_errors=True)
        return value

    for name, values in options.items():
        scores = [score({**best, name: value}) for value in values]
        best[name] = values[scores.index(max(scores))]
    return best


def trained(
    config: BenchConfig, dataset: str, objective: str, settings: Settings, size: int | None, seed: int, folder: Path
) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """The heads of one training by the project's trainer, and what it cost."""
    data, entry = config.datasets[dataset], config.objectives[objective]
    names = list(opened(config.out, dataset, "train").modalities)
    frozen = data.checkpoint is not None
    head = HeadConfig(hidden=config.hidden, dropout=config.dropout)
    cache = config.out / "data" / dataset / ("train" if size is None else f"train-{size}")
    plan = TrainConfig(
        out=folder,
        caches={"train": cache},
        heads={name: head for name in names if not (frozen and name == config.anchor)},
        streams=[StreamConfig(draw={"train": 1}, modalities=names, batch=min(config.batch, size or config.batch))],
        objective={**entry.objective, **{k: v for k, v in settings.items() if k != RATE}},
        checkpoint=data.checkpoint or "starter",
        embed_dim=None if frozen else config.embed_dim,
        anchor=config.anchor,
        steps=config.steps,
        lr=settings.get(RATE, 1e-3),
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        seed=seed,
        save_every=config.steps,
        trackers=[],
        evaluation=EvaluationConfig(every=0, held_out=0.0),
    )
    before, began = peak_memory(reset=True), time.process_time()
    if not train(plan).finished:
        raise InputError("stopped: the same command goes on from here")
    cost = {"processor seconds": time.process_time() - began, "memory, MB": (peak_memory() - before) / 1e6}
    heads: dict[str, nn.Module] = {name: load_head(folder / "heads" / name) for name in plan.heads}
    if frozen:
        heads = {config.anchor: frozen_head(plan.checkpoint, config.anchor)[0], **heads}
    return {name: heads[name] for name in names}, cost


def peak_memory(reset: bool = False) -> float:
    """Bytes that this process held at most since the last reset; NaN where the system does not say (not Linux)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return float("nan")
    return 1024.0 * int(line.split()[1])


def embedded(config: BenchConfig, dataset: str, split: str, heads: dict[str, nn.Module]) -> measure.Space:
    """A split's samples that have every modality, turned as the validation split says, see `measure.turned`."""
    validation = measure.embed(opened(config.out, dataset, "validation"), heads)  # for each run, whose heads are its own
    z, labels, rows = validation if split == "validation" else measure.embed(opened(config.out, dataset, split), heads)
    return measure.turned(z, config.anchor, validation[0]), labels, rows


def final(config: BenchConfig, dataset: str, objective: str, settings: Settings, size: int | None, seed: int) -> dict[str, Any]:
    """One training with the chosen settings, measured on the test split."""
    data = config.datasets[dataset]
    folder = config.out / "runs" / dataset / objective / f"{size or 'all'}-{seed}"
    heads, cost = trained(config, dataset, objective, settings, size, seed, folder)
    cache = opened(config.out, dataset, "test")
    z, labels, rows = embedded(config, dataset, "test", heads)
    ids = [cache.ids[i] for i in rows]
    samples = measure.of_samples(z, labels, config.query, ids, config.missing)
    space = measure.of_space(z, config.anchor)
    apart = {f"{gap:g}": measure.with_gap(z, config.anchor, gap) for gap in config.gaps}
    moved = {gap: measure.pathways(far, labels, config.query) for gap, far in apart.items()}
    if data.pictures is not None and size is None:
        words = [cache.labels[i] for i in rows]
        drawn, distances = generation.measure(config, dataset, z, ids, words)
        samples, space = samples | drawn, space | distances
        for gap, far in apart.items() if objective == config.reference and seed == 0 else ():
            drawn, distances = generation.measure(config, dataset, far, ids, words)
            moved[gap] |= {k: float(np.nanmean(v)) for k, v in drawn.items()} | distances
    (folder / STATE).unlink(missing_ok=True)  # the heads are kept, what would resume the training is not
    return {
        "size": size,
        "seed": seed,
        "cost": cost,
        "space": space,
        # three digits are enough for shares of one sample
        "samples": {k: [None if np.isnan(x) else round(float(x), 3) for x in v] for k, v in samples.items()},
        "moved": moved,
    }
