"""Time of the evaluator's heavy parts beside their peers, in one run: features, and distances from them and from statistics.

    python benchmarks/metrics.py                                     # about 10 minutes on two cores
    python benchmarks/metrics.py --pictures 10000 --minutes 30       # features of as many as can be looked at in half an hour

Distances: 2048-d statistics of 4,096 pictures; peers are the routes of pytorch-fid and clean-fid (`scipy.linalg.sqrtm`) and of
torch-fidelity (eigenvalues of the product). FID of 10 thousand pictures: each library's metric on the same features. Features:
Inception with the same random weights, the same PNG files, the same batch size, TF1 resize, files to features, ours against
torch-fidelity's own loop, on blocks of pictures in turns. The order of the contestants alternates.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import scipy.linalg
import torch
import typer
from PIL import Image
from timing import spent
from torch import Tensor
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset
from torchmetrics.image import FrechetInceptionDistance

from unialign_gen.eval import FrechetDistance, extractors, features
from unialign_gen.eval.frechet import frechet_distance
from unialign_gen.eval.moments import FeatureSource, moments
from unialign_gen.media.picture_sets import open_pictures

SOURCE = FeatureSource("benchmark", "none")
CLOCKS = ("seconds", "processor seconds")
BLOCK = 128  # pictures that each looks at before the other's turn


def race(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Least seconds of each, by the clock and of processors, and what it gave. They take turns, every second round in the other
    order, so that all meet the same machine.
    """
    found: dict[str, dict[str, Any]] = {name: dict.fromkeys(CLOCKS, math.inf) for name in contestants}
    for number in range(repeats):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            best = found[name]
            both = spent(lambda: best.update(value=contestants[name]()))  # noqa: B023  it is called at once
            best |= {clock: min(best[clock], taken) for clock, taken in zip(CLOCKS, both, strict=True)}
    return found


def by_sqrtm(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> float:
    root = scipy.linalg.sqrtm((s1 @ s2).numpy())
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace()) - 2 * float(np.trace(root).real)


def by_eigenvalues(*statistics: dict[str, Any]) -> float:
    return float(fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def invented(count: int, width: int, seed: int) -> Tensor:
    """Features (count, width) as unequal, dependent and one-sided as Inception's."""
    mixed = torch.randn(width, width, generator=torch.Generator().manual_seed(9)) / width**0.5
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return (drawn * torch.logspace(0, -2, width) @ mixed).relu()


def distances(count: int, width: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds and values of every route."""
    x, y = (invented(count, width, seed) for seed in (0, 1))
    a, b = moments([x], SOURCE), moments([y], SOURCE)
    routes: dict[str, Callable[[], float]] = {
        "ours": lambda: frechet_distance(a, b),
        "scipy sqrtm": lambda: by_sqrtm(a.mean, a.cov, b.mean, b.cov),
        "torch-fidelity eigenvalues": lambda: by_eigenvalues(*({"mu": m.mean.numpy(), "sigma": m.cov.numpy()} for m in (a, b))),
    }
    return race(routes, repeats)


def streamed(count: int, width: int, repeats: int, batch: int = 256) -> dict[str, dict[str, float]]:
    """Seconds and values of FID from features in batches: our metric, torchmetrics', and torch-fidelity's on all of them."""
    x, y = (invented(count, width, seed) for seed in (0, 1))
    net = torch.nn.Identity()
    net.num_features = width  # type: ignore[assignment]

    def run(metric: Any) -> float:
        for side, real in ((x, False), (y, True)):
            for part in side.split(batch):
                metric.update(part, real=real)
        return float(metric.compute())

    routes: dict[str, Callable[[], float]] = {
        "ours": lambda: run(FrechetDistance(encoder=None)),
        "torchmetrics": lambda: run(FrechetInceptionDistance(net).set_dtype(torch.float64)),
        "torch-fidelity": lambda: by_eigenvalues(fid_features_to_statistics(x), fid_features_to_statistics(y)),
    }
    return race(routes, repeats)


def random_weights(folder: Path) -> Path:
    """A file in the layout of the published weights; the constructor always loads some, here none."""
    module, network = feature_extractor_inceptionv3, feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    path = folder / "weights.pth"
    with mock.patch.object(module, "load_state_dict_from_url", return_value={}), mock.patch.object(network, "load_state_dict"):
        torch.save(network("inception-v3-compat", ["2048"]).state_dict(), path)
    return path


def draw_noise(folder: Path, count: int, side: int, seed: int) -> None:
    """PNG files of smooth noise."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        noise.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.png")


def extraction(count: int, side: int, batch: int, minutes: float) -> dict[str, Any]:
    """Seconds from PNG files to features, of blocks of pictures in turns, until `count` or the minutes are over."""
    total: dict[str, Any] = {name: dict.fromkeys(CLOCKS, 0.0) for name in ("ours", "torch-fidelity")}
    done, apart, start = 0, 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        weights = random_weights(Path(name))
        ours = extractors.load("inception", weights, "tf1")
        peer = create_feature_extractor(
            "inception-v3-compat", ["2048"], cuda=False, feature_extractor_weights_path=str(weights), verbose=False
        )
        while done < count and time.perf_counter() - start < 60 * minutes:
            folder = Path(name) / str(done)
            draw_noise(folder, min(BLOCK, count - done), side, done)
            files = open_pictures(folder).pictures
            data = ImagesPathDataset([str(f) for f in files])
            routes: dict[str, Callable[[], Any]] = {
                "ours": lambda: features.extract(ours, files, batch),  # noqa: B023  it is called at once
                "torch-fidelity": lambda: get_featuresdict_from_dataset(data, peer, batch, False, False, False)["2048"],  # noqa: B023
            }
            found = race(dict(list(routes.items())[:: -1 if done // BLOCK % 2 else 1]), 1)
            for name_of, clock in product(routes, CLOCKS):
                total[name_of][clock] += found[name_of][clock]
            one, other = (found[n]["value"] for n in routes)
            apart = max(apart, float((one - other).abs().max() / other.std()))
            done += len(files)
            shutil.rmtree(folder)
    return {"pictures": done, "batch": batch, **total, "largest difference / spread of the features": apart}


def main(
    width: int = 2048,
    pictures: Annotated[int, typer.Option(help="Pictures to extract features of, at most.")] = 512,
    minutes: Annotated[float, typer.Option(help="After which no other block of pictures is begun.")] = 60,
    side: Annotated[int, typer.Option(help="Their side in pixels.")] = 256,
    batch: int = 32,
    repeats: int = 3,
    sets: Annotated[int, typer.Option(help="Pictures of each set whose FID is streamed.")] = 10_000,
) -> None:
    """Prints seconds, values and ratios, each part as a line of JSON when it is measured."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "FID from features": lambda: {"pictures": sets, **streamed(sets, width, repeats)},
        "features": lambda: extraction(pictures, side, batch, minutes),
        "distance": lambda: {"pictures": 2 * width, **distances(2 * width, width, repeats)},
    }
    typer.echo(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "width": width}))
    found: dict[str, dict[str, Any]] = {}
    for name, measure in parts.items():
        found[name] = measure()
        typer.echo(json.dumps({name: found[name]}))
    typer.echo(json.dumps({"ratios": ratios(found)}, indent=1))


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Time of a peer over ours, by the clock and of processors where it was long enough to be counted."""
    return {
        f"{peer} / ours, {name}": {clock: figures[clock] / part["ours"][clock] for clock in CLOCKS if part["ours"][clock]}
        for name, part in found.items()
        for peer, figures in part.items()
        if peer != "ours" and isinstance(figures, dict)
    }


if __name__ == "__main__":
    typer.run(main)
