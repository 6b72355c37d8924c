"""Time of the evaluator's heavy parts beside their peers, in one run: distances of statistics, features, ranks.

    python benchmarks/metrics.py                                  # about 10 minutes on two cores
    python benchmarks/metrics.py --pictures 10000 --repeats 1     # features, too, of 10 thousand pictures: most of an hour

Distances: 2048-d statistics of 4,096 pictures, and of 1,024, where the covariance is singular; peers are the routes of
pytorch-fid and clean-fid (`scipy.linalg.sqrtm`) and of torch-fidelity (eigenvalues of the product). FID of 10 thousand
pictures: each library's metric on the same features. Features: Inception with the same random weights, the same PNG files,
the same batch size, TF1 resize, files to features, ours against torch-fidelity's own loop. The order of the contestants
alternates, and the fastest of the repeats counts. Ranks: both directions between 100 thousand texts and as many clips, and of
a size at which whole matrices can be sorted (Linux).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor

from unialign_gen.eval import FrechetDistance, extractors, features
from unialign_gen.eval.frechet import frechet_distance
from unialign_gen.eval.mind import mind
from unialign_gen.eval.moments import FeatureSource, moments
from unialign_gen.media.picture_sets import open_pictures
from unialign_gen.retrieval import Cosine, QueryWeightedCentroid, Volume, ranks

SOURCE = FeatureSource("benchmark", "none")


def race(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of each."""
    best = dict.fromkeys(contestants, float("inf"))
    for i in range(repeats):
        for name in list(contestants)[:: -1 if i % 2 else 1]:
            start = time.perf_counter()
            contestants[name]()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def by_sqrtm(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> float:
    import scipy.linalg

    root = scipy.linalg.sqrtm((s1 @ s2).numpy())
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace()) - 2 * float(np.trace(root).real)


def by_eigenvalues(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    one, two = ({"mu": m.numpy(), "sigma": s.numpy()} for m, s in ((m1, s1), (m2, s2)))
    return fid_statistics_to_metric(one, two, False)["frechet_inception_distance"]


def distances(count: int, width: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds and values of every route, for `count` pictures with features as skewed and unequal as Inception's."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, width)
    x, y = (torch.randn(count, width, generator=generator).abs() * scales for _ in range(2))
    a, b = moments([x], SOURCE), moments([y], SOURCE)
    routes: dict[str, Callable[[], float]] = {
        "ours, statistics": lambda: frechet_distance(a, b),
        "scipy sqrtm": lambda: by_sqrtm(a.mean, a.cov, b.mean, b.cov),
        "torch-fidelity eigenvalues": lambda: by_eigenvalues(a.mean, a.cov, b.mean, b.cov),
    }
    if count < width:
        routes["ours, features (nuclear norm)"] = lambda: frechet_distance(x, y)
    seconds = race(routes, repeats)
    return {name: {"seconds": seconds[name], "value": route()} for name, route in routes.items()}


def streamed(count: int, width: int, batch: int = 256) -> dict[str, dict[str, float]]:
    """Seconds and values of FID from features in batches: our metric, torchmetrics', and torch-fidelity's on all of them."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image import FrechetInceptionDistance

    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, width)
    x, y = (torch.randn(count, width, generator=generator).abs() * scales for _ in range(2))
    net = torch.nn.Identity()
    net.num_features = width  # type: ignore[assignment]

    def run(metric: Any) -> float:
        for side, real in ((x, False), (y, True)):
            for part in side.split(batch):
                metric.update(part, real=real)
        return float(metric.compute())

    def fidelity() -> float:
        one, two = fid_features_to_statistics(x), fid_features_to_statistics(y)
        return float(fid_statistics_to_metric(one, two, False)["frechet_inception_distance"])

    routes: dict[str, Callable[[], float]] = {
        "ours": lambda: run(FrechetDistance(encoder=None)),
        "torchmetrics": lambda: run(FrechetInceptionDistance(net).set_dtype(torch.float64)),
        "torch-fidelity": fidelity,
        "ours, MIND": lambda: mind(x, y),
    }
    seconds = race(routes, 1)
    return {name: {"seconds": seconds[name], "value": route()} for name, route in routes.items()}


def random_weights(folder: Path) -> Path:
    """A file in the layout of the published weights; the constructor always loads some, here none."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    network = module.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    path = folder / "weights.pth"
    with mock.patch.object(module, "load_state_dict_from_url", return_value={}), mock.patch.object(network, "load_state_dict"):
        torch.save(network("inception-v3-compat", ["2048"]).state_dict(), path)
    return path


def extraction(count: int, side: int, batch: int, repeats: int) -> dict[str, float]:
    """Seconds from PNG files to features."""
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        for i in range(count):
            noise = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
            noise.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.png")
        weights = random_weights(folder)
        ours = extractors.load("inception", weights, "tf1")
        antialiased = extractors.load("inception", weights)
        peer = create_feature_extractor(
            "inception-v3-compat", ["2048"], cuda=False, feature_extractor_weights_path=str(weights), verbose=False
        )
        files = open_pictures(folder).pictures
        loop = {"cuda": False, "save_cpu_ram": False, "verbose": False}
        found: dict[str, Tensor] = {}

        def keep(name: str, run: Callable[[], Tensor]) -> Callable[[], None]:
            return lambda: found.update({name: run()})

        names = [str(f) for f in files]
        seconds = race(
            {
                "ours": keep("ours", lambda: features.extract(ours, files, batch)),
                "torch-fidelity": keep(
                    "peer", lambda: get_featuresdict_from_dataset(ImagesPathDataset(names), peer, batch, **loop)["2048"]
                ),
                "ours, Pillow's bicubic": keep("bicubic", lambda: features.extract(antialiased, files, batch)),
            },
            repeats,
        )
        spread = float(found["peer"].std())
        return {
            **seconds,
            "largest difference / spread of the features": float((found["ours"] - found["peer"]).abs().max()) / spread,
        }


def retrieval(count: int, width: int, naive_up_to: int = 4096) -> dict[str, float]:
    """Seconds and peak memory of ranks of both directions, by cosine and by volume, and of whole matrices where they fit."""
    z = [F.normalize(torch.randn(count, width), dim=1) for _ in range(3)]
    owner = torch.arange(count)
    found: dict[str, float] = {}
    for name, score in (
        ("cosine", Cosine(z[0], z[1])),
        ("volume", Volume(z[0], z[1:])),
        ("query-weighted centroid", QueryWeightedCentroid(z[0], z[1:])),
    ):
        Path("/proc/self/clear_refs").write_text("5")
        before, start = status("VmRSS"), time.perf_counter()
        ranks(score, owner)
        found[f"{name}, seconds"] = time.perf_counter() - start
        found[f"{name}, peak GB beyond the embeddings"] = (status("VmHWM") - before) / 1e9
    if count <= naive_up_to:
        start = time.perf_counter()
        scores = z[0] @ z[1].T
        for s in (scores, scores.T):
            s.argsort(dim=1, descending=True).argsort(dim=1).diagonal()
        found["cosine, two whole sorts, seconds"] = time.perf_counter() - start
    return found


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def main(
    width: int = 2048,
    pictures: Annotated[int, typer.Option(help="Pictures to extract features of.")] = 96,
    side: Annotated[int, typer.Option(help="Their side in pixels.")] = 256,
    batch: int = 32,
    repeats: int = 3,
    sets: Annotated[int, typer.Option(help="Pictures of each set whose FID is streamed.")] = 10_000,
    texts: Annotated[int, typer.Option(help="Texts, and as many clips, to rank.")] = 100_000,
) -> None:
    """Prints seconds, values and ratios."""
    many, few = distances(2 * width, width, repeats), distances(width // 2, width, repeats)
    times, fid = extraction(pictures, side, batch, repeats), streamed(sets, width)
    result = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        f"distance of {2 * width} pictures, {width}-d": many,
        f"distance of {width // 2} pictures, {width}-d": few,
        f"FID of {sets} pictures from their features": fid,
        f"features of {pictures} pictures, batch {batch}, seconds": times,
        f"ranks of {texts} x {texts}, 512-d": retrieval(texts, 512),
        f"ranks of {min(texts, 4096)} x {min(texts, 4096)}, 512-d": retrieval(min(texts, 4096), 512),
        "ratios": {
            "sqrtm / ours, statistics": many["scipy sqrtm"]["seconds"] / many["ours, statistics"]["seconds"],
            "sqrtm / ours, n < d, statistics": few["scipy sqrtm"]["seconds"] / few["ours, statistics"]["seconds"],
            "sqrtm / ours, n < d, features": few["scipy sqrtm"]["seconds"] / few["ours, features (nuclear norm)"]["seconds"],
            "torch-fidelity / ours, features": times["torch-fidelity"] / times["ours"],
            "torch-fidelity / ours, statistics": many["torch-fidelity eigenvalues"]["seconds"]
            / many["ours, statistics"]["seconds"],
            f"torch-fidelity / ours, FID of {sets} pictures from their features": fid["torch-fidelity"]["seconds"]
            / fid["ours"]["seconds"],
        },
    }
    typer.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
