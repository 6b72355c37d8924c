"""What training from a cache costs beyond its objective and heads, in one run: python benchmarks/training.py [--json].

The bare loop computes the same heads, objective, gradients and AdamW steps on batches that lie ready in memory, another one at
each step; turns alternate.

    python benchmarks/training.py --gigabytes 20 --processes 2

trains from a cache of that size, made in a temporary folder and removed, and prints the most anonymous memory (RssAnon, what a
process has for itself; the cache's mapped pages are not in it) of each process, and its losses; with `--in-memory` the features
are read whole, for comparison at a size that memory holds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from accelerate import Accelerator
from timing import memory, turns

from unialign_gen.config import load, to_dict
from unialign_gen.data.cache import FORMAT, FeatureCache, Ragged, Shard, counted, create, shard_path, write_shard
from unialign_gen.heads import Head
from unialign_gen.objectives import UniAlign
from unialign_gen.training.config import HeadConfig, StreamConfig, TrainConfig
from unialign_gen.training.train import Trainer, train

WIDTHS = {"image": 1664, "text": 384, "audio": 512}
LARGE = {"image": (1, 1664), "text": (2, 384), "video": (8, 1024)}  # rows and width: 21 kB a clip
SHARD = 4096  # clips


def write_cache(folder: Path, samples: int) -> None:
    """Random features: a picture, three captions and a sound each."""
    g = torch.Generator().manual_seed(0)
    rows = {"image": 1, "text": 3, "audio": 1}
    features = {
        name: Ragged(torch.randn(samples * k, WIDTHS[name], generator=g).half(), counted(torch.full((samples,), k)))
        for name, k in rows.items()
    }
    create(folder, {"format": FORMAT, "encoders": {n: {"dim": w} for n, w in WIDTHS.items()}, "shards": 1})
    write_shard(folder, 0, Shard([str(i) for i in range(samples)], [None] * samples, features))


def bare(batch: int, ready: int = 32) -> Callable[[], None]:
    """One step of heads and objective on the next of `ready` batches that are there already."""
    heads = {n: Head(WIDTHS[n], 256, 768, dropout=0.1).train() for n in ("text", "audio")}
    parameters = [p for h in heads.values() for p in h.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98))
    loss = UniAlign()
    anchors = [F.normalize(torch.randn(batch, 256), dim=1) for _ in range(ready)]
    batches = itertools.cycle([(anchor, {n: torch.randn(batch, WIDTHS[n]) for n in heads}) for anchor in anchors])

    def step() -> None:
        anchor, features = next(batches)
        optimiser.zero_grad(set_to_none=True)
        loss({"image": anchor, **{n: F.normalize(h(features[n]), dim=1) for n, h in heads.items()}}).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return step


def write_large_cache(folder: Path, size: float) -> int:
    """A cache of `size` bytes of random features; returns how many clips it has. What is written is on the disk at once."""
    clips = int(size / sum(2 * rows * width for rows, width in LARGE.values()))
    shards = -(-clips // SHARD)
    create(folder, {"format": FORMAT, "encoders": {n: {"dim": w} for n, (_, w) in LARGE.items()}, "shards": shards})
    dice = np.random.default_rng(0)
    for number in range(shards):
        count = min(SHARD, clips - number * SHARD)
        features = {}
        for name, (rows, width) in LARGE.items():
            bits = dice.integers(2**16, size=(rows * count, width), dtype=np.uint16)
            bits = bits & 0x83FF | 0x3800  # any sign and mantissa, with the exponent of 0.5: far quicker than normal numbers
            features[name] = Ragged(torch.from_numpy(bits.view(np.float16)), counted(torch.full((count,), rows)))
        ids = [f"clip{number * SHARD + i:08d}_000010" for i in range(count)]
        write_shard(folder, number, Shard(ids, [f"label {i % 309}" for i in range(count)], features))
        with shard_path(folder, number).open("rb") as f:  # the system need not keep what is read later
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return clips


def run(path: Path, in_memory: bool) -> None:
    """One process of a large run: trains, and writes the most anonymous memory that it had beside the configuration."""
    if in_memory:
        mapped = FeatureCache.features

        def read(cache: FeatureCache, modality: str) -> Ragged:
            found = mapped(cache, modality)
            return Ragged(found.values[:].clone(), found.offsets)

        FeatureCache.features = read  # type: ignore[method-assign]
    before, over = memory("RssAnon"), threading.Event()
    peak = [before]

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], memory("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    begun = time.perf_counter()
    result = train(load(TrainConfig, path))
    over.set()
    thread.join()
    found = {"before": before, "peak": peak[0], "steps": result.step, "seconds": time.perf_counter() - begun}
    path.with_name(f"process-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))


def large(gigabytes: float, processes: int, steps: int, batch: int, in_memory: bool) -> dict[str, Any]:
    """Trains from a cache of that size with that many processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = write_large_cache(folder / "cache", 1e9 * gigabytes)
        config = TrainConfig(
            folder / "run",
            caches={"all": folder / "cache"},
            heads={"text": HeadConfig(), "video": HeadConfig(rows="mean")},
            streams=[StreamConfig({"all": 1.0}, ["image", "text", "video"], batch=batch)],
            steps=steps,
            trackers=[],
        )
        (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        how = ["--in-memory"] if in_memory else []
        subprocess.run([*launch, __file__, "--worker", str(folder / "run.yaml"), *how], check=True)
        found = [json.loads(p.read_text()) for p in sorted(folder.glob("process-*.json"))]
        losses = [json.loads(line)["loss"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        return {"gigabytes": gigabytes, "clips": clips, "processes": found, "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, help="memory of a run from a cache of this size")
    parser.add_argument("--processes", type=int, default=2, help="of that run")
    parser.add_argument("--in-memory", action="store_true", help="that run with its features read whole")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10, help="of each turn")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.worker:
        run(options.worker, options.in_memory)
        return
    if options.gigabytes:
        found = large(options.gigabytes, options.processes, options.steps, options.batch, options.in_memory)
        print(json.dumps(found, indent=1))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        write_cache(cache, options.samples)
        config = TrainConfig(
            Path(folder) / "run",
            caches={"all": cache},
            heads={n: HeadConfig(hidden=768, dropout=0.1) for n in ("text", "audio")},
            streams=[StreamConfig({"all": 1.0}, ["image", "text", "audio"], batch=options.batch)],
            steps=options.steps * (options.turns + 1),
            lr=1e-3,
            trackers=[],
        )
        trainer, step = Trainer(config, Accelerator(cpu=True)), bare(options.batch)

        def ours() -> None:
            for _ in range(options.steps):
                trainer.update()
                trainer.step += 1

        calls = turns({"ours": ours, "bare": lambda: [step() for _ in range(options.steps)]}, options.turns + 1)
        trainer.ahead.shutdown()
    cached, plain = ([call.clock / options.steps for call in calls[name][1:]] for name in ("ours", "bare"))  # after a first one
    found = {
        "cached_ms": 1e3 * statistics.median(cached),
        "bare_ms": 1e3 * statistics.median(plain),
        "speed": statistics.median(b / a for a, b in zip(cached, plain, strict=True)),
        "samples_per_second": options.batch / statistics.median(cached),
    }
    text = (
        f"from cache {found['cached_ms']:.1f} ms a step, bare {found['bare_ms']:.1f} ms: {found['speed']:.0%} of the bare speed"
    )
    print(json.dumps(found) if options.json else text)  # noqa: T201


if __name__ == "__main__":
    main()
