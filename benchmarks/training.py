"""What a step of training from a cache costs, and what a run from a large one keeps in memory.

    python benchmarks/training.py --steps 120
    python benchmarks/training.py --gigabytes 20 --processes 2

The first prints the median of the steps of two heads. The second trains from a cache of that size, made in a temporary folder,
and prints the most anonymous memory (RssAnon, what a process has for itself; the cache's mapped pages are not in it) of each
process, and its losses; with `--in-memory` the features are read whole, for comparison at a size that memory holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
import yaml
from accelerate import Accelerator
from timing import seconds

from unialign_gen.config import load, to_dict
from unialign_gen.data.cache import FORMAT, FeatureCache, Ragged, Shard, counted, create, shard_path, write_shard
from unialign_gen.training.config import HeadConfig, StreamConfig, TrainConfig
from unialign_gen.training.train import Trainer, train

SMALL = {"image": (1, 1664), "text": (3, 384), "audio": (1, 512)}  # rows and width
LARGE = {"image": (1, 1664), "text": (2, 384), "video": (8, 1024)}  # 21 kB a clip
SHARD = 4096  # clips


def write_cache(folder: Path, clips: int, sizes: dict[str, tuple[int, int]]) -> None:
    """A cache of random features. What is written is on the disk at once."""
    shards = -(-clips // SHARD)
    create(folder, {"format": FORMAT, "encoders": {n: {"dim": w} for n, (_, w) in sizes.items()}, "shards": shards})
    dice = np.random.default_rng(0)
    for number in range(shards):
        count = min(SHARD, clips - number * SHARD)
        features = {}
        for name, (rows, width) in sizes.items():
            bits = dice.integers(2**16, size=(rows * count, width), dtype=np.uint16)
            bits = bits & 0x83FF | 0x3800  # any sign and mantissa, with the exponent of 0.5: far quicker than normal numbers
            features[name] = Ragged(torch.from_numpy(bits.view(np.float16)), counted(torch.full((count,), rows)))
        ids = [f"clip{number * SHARD + i:08d}_000010" for i in range(count)]
        write_shard(folder, number, Shard(ids, [f"label {i % 309}" for i in range(count)], features))
        with shard_path(folder, number).open("rb") as f:  # the system need not keep what is read later
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def on_cache(folder: Path, clips: int, sizes: dict[str, tuple[int, int]], batch: int, steps: int) -> TrainConfig:
    """A training of two heads from a cache of random features, made in `folder`."""
    write_cache(folder / "cache", clips, sizes)
    return TrainConfig(
        folder / "run",
        caches={"all": folder / "cache"},
        heads={name: HeadConfig(rows="mean" if name == "video" else "one") for name in sizes if name != "image"},
        streams=[StreamConfig({"all": 1.0}, list(sizes), batch=batch)],
        steps=steps,
        lr=1e-3,
        trackers=[],
    )


def run(path: Path, in_memory: bool) -> None:
    """One process of a large run: trains, and writes the most anonymous memory that it had beside the configuration."""
    if in_memory:
        mapped = FeatureCache.features

        def read(cache: FeatureCache, modality: str) -> Ragged:
            found = mapped(cache, modality)
            return Ragged(found.values[:].clone(), found.offsets)

        FeatureCache.features = read  # type: ignore[method-assign]

    def anonymous() -> int:
        now = psutil.Process().memory_info()
        return now.rss - now.shared

    peak = before = anonymous()

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, anonymous())
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    begun = time.perf_counter()
    result = train(load(TrainConfig, path))
    found = {"before": before, "peak": peak, "steps": result.step, "seconds": time.perf_counter() - begun}
    path.with_name(f"process-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))


def large(gigabytes: float, processes: int, steps: int, batch: int, in_memory: bool) -> dict[str, Any]:
    """Trains from a cache of that size with that many processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = int(1e9 * gigabytes / sum(2 * rows * width for rows, width in LARGE.values()))
        config = on_cache(folder, clips, LARGE, batch, steps)
        (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
        if processes == 1:
            run(folder / "run.yaml", in_memory)
        else:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            how = ["--in-memory"] if in_memory else []
            subprocess.run([*launch, __file__, "--worker", str(folder / "run.yaml"), *how], check=True)
        found = [json.loads(p.read_text()) for p in sorted(folder.glob("process-*.json"))]
        losses = [json.loads(line)["loss"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        return {"gigabytes": gigabytes, "clips": clips, "processes": found, "losses": losses}


def main(
    gigabytes: Annotated[float, typer.Option(help="Memory of a run from a cache of this size, in place of a step's time.")] = 0,
    processes: Annotated[int, typer.Option(help="Of that run.")] = 2,
    in_memory: Annotated[bool, typer.Option("--in-memory", help="That run with its features read whole.")] = False,
    worker: Annotated[Path | None, typer.Option(hidden=True)] = None,
    samples: int = 20_000,
    batch: int = 512,
    steps: int = 10,
) -> None:
    """Prints JSON."""
    if worker:
        run(worker, in_memory)
        return
    if gigabytes:
        found = large(gigabytes, processes, steps, batch, in_memory)
    else:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(on_cache(Path(folder), samples, SMALL, batch, steps + 1), Accelerator(cpu=True))

            def step() -> None:
                trainer.update()
                trainer.step += 1

            took = seconds(step, steps)
            trainer.ahead.shutdown()
        found = {"ms_a_step": 1e3 * took, "samples_a_second": batch / took}
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
