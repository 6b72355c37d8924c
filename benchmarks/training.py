"""What training from a cache costs beyond its objective and heads, in one run: python benchmarks/training.py [--json].

The bare loop computes the same heads, objective, gradients and AdamW steps on batches that lie ready in memory, another one at
each step; turns alternate.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from unialign_gen.data.cache import FORMAT, Ragged, Shard, counted, create, write_shard
from unialign_gen.heads import Head
from unialign_gen.objectives import UniAlign
from unialign_gen.training.config import HeadConfig, StreamConfig, TrainConfig
from unialign_gen.training.train import Trainer

WIDTHS = {"image": 1664, "text": 384, "audio": 512}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10, help="of each turn")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
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
        trainer = Trainer(config, Accelerator(cpu=True))
        step = bare(options.batch)
        ours, theirs = [], []
        for turn in range(options.turns + 1):
            start = time.perf_counter()
            for _ in range(options.steps):
                trainer.update()
                trainer.step += 1
            middle = time.perf_counter()
            for _ in range(options.steps):
                step()
            if turn:  # the first is for warming up
                ours.append((middle - start) / options.steps)
                theirs.append((time.perf_counter() - middle) / options.steps)
        trainer.ahead.shutdown()
    found = {
        "cached_ms": 1e3 * statistics.median(ours),
        "bare_ms": 1e3 * statistics.median(theirs),
        "speed": statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
        "samples_per_second": options.batch / statistics.median(ours),
    }
    text = (
        f"from cache {found['cached_ms']:.1f} ms a step, bare {found['bare_ms']:.1f} ms: {found['speed']:.0%} of the bare speed"
    )
    print(json.dumps(found) if options.json else text)  # noqa: T201


if __name__ == "__main__":
    main()
