"""Seconds of one core that a clip takes to decode, encode and write, its bytes, and what ten million clips take.

    python benchmarks/extraction.py
    python benchmarks/extraction.py --clips 48 --seconds 10 --width 640 --height 360

Builds its own clips (H.264 with a keyframe every 2 s in one half and one in all in the other, AAC) in a temporary folder, as
files and as one WebDataset tar. Decoding gives 8 frames and the sound; a whole extraction is the starter's encoders, from files
and from the tar. Every figure is the median of the repeats. What is a second needs an idle machine; what is
a core second, the processor's time over all threads, hardly depends on what else runs.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from timing import spent

from unialign_gen.data.cache import FeatureCache, Shard, shard_path, write_shard
from unialign_gen.data.decode import decoders, ordered
from unialign_gen.data.extract import run as extract
from unialign_gen.data.extract_config import ExtractConfig, cores, open_encoders
from unialign_gen.data.sources import LABELS, CorpusConfig
from unialign_gen.film.mp4 import RATE, Mp4
from unialign_gen.media import load_clip

FRAMES, FPS = 8, 25
ENCODERS: dict[str, Any] = {"text": "starter", "audio": "starter", "video": "starter"}


def write_clip(path: Path, seconds: float, width: int, height: int, keyframes: int, seed: int) -> None:
    """Coloured blobs that drift over a textured ground, with a chord."""
    dice = np.random.default_rng(seed)
    ground = np.kron(dice.integers(30, 220, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    spots = dice.uniform(0, 1, (6, 4))
    with Mp4(path, ground.shape[1], ground.shape[0], FPS, sound=True) as file:
        file.video.options = {"g": str(keyframes), "crf": "26", "preset": "veryfast"}
        for i in range(int(seconds * FPS)):
            pixels = np.roll(ground, i // 2, axis=1)
            for x, y, dx, dy in spots:
                left, top = (int((a + i / FPS * d / 4) % 1 * (n - 60)) for a, d, n in ((x, dx, width), (y, dy, height)))
                pixels[top : top + 50, left : left + 50] = (int(255 * x), int(255 * y), int(255 * dx))
            file.add(pixels)
        t = torch.arange(int(seconds * RATE)) / RATE
        chord = sum(torch.sin(2 * torch.pi * f * t) for f in dice.uniform(100, 2000, 3)) / 4
        file.add_sound(torch.stack([chord, chord]))


def corpus(root: Path, clips: int, seconds: float, width: int, height: int) -> list[Path]:
    """VGGSound's layout."""
    lines = []
    for i in range(clips):
        write_clip(root / f"clip{i}_000000.mp4", seconds, width, height, 2 * FPS if i % 2 else int(seconds * FPS), i)
        lines.append(f"clip{i},0,synthetic number {i},train\n")
    (root / "vggsound.csv").write_text("".join(lines))
    paths = sorted(root.glob("*.mp4"))
    with tarfile.open(root / "0000.tar", "w") as tar:
        for path in paths:
            words = f"A video of synthetic number {path.stem}.".encode()
            entry = tarfile.TarInfo(f"{path.stem}.txt")
            entry.size = len(words)
            tar.addfile(entry, io.BytesIO(words))
            tar.add(path, path.name)
    return paths


def writing(config: ExtractConfig, clips: int) -> dict[str, float]:
    """Seconds and bytes of a clip in the cache."""
    extract(config, progress=False)
    cache = FeatureCache.open(config.out)
    features = {name: cache.features(name) for name in cache.modalities}
    held = {name: type(rows)(rows.values[:].clone(), rows.offsets) for name, rows in features.items()}
    shard = Shard(cache.ids, cache.labels, held)
    return {
        "write": spent(lambda: write_shard(config.out, 0, shard))[1] / clips,
        "bytes": shard_path(config.out, 0).stat().st_size / clips,
    }


def main(
    clips: Annotated[int, typer.Option(min=2, help="How many are built.")] = 24,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each.")] = 10.0,
    width: int = 640,
    height: int = 360,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Prints JSON: clips a second, and what a clip costs."""
    workers = cores()
    with tempfile.TemporaryDirectory() as folder, decoders(workers) as pool:
        root = Path(folder)
        paths = corpus(root, clips, seconds, width, height)
        tar = CorpusConfig("webdataset", root / "0000.tar")
        files = CorpusConfig("vggsound", root, captions=LABELS)
        config = ExtractConfig(files, ENCODERS, root / "cache", shard_size=max(8, clips // 2))
        encoders = open_encoders(config)
        decode = partial(load_clip, frames=FRAMES, rate=int(getattr(encoders["audio"], "rate")))  # noqa: B009

        def prepare(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
            clip: Any = decode(path)
            return encoders["video"].prepare(clip.frames), encoders["audio"].prepare([clip.sound])

        @torch.inference_mode()
        def encode() -> None:
            for at in range(0, len(inputs), 4):
                group = inputs[at : at + 4]
                encoders["video"](encoders["video"].collate([frames for frames, _ in group]))
                encoders["audio"](encoders["audio"].collate([sound for _, sound in group]))
                encoders["text"](encoders["text"].prepare(["A video of something."] * len(group)))

        def whole(corpus: CorpusConfig) -> None:
            with tempfile.TemporaryDirectory() as out:
                extract(replace(config, corpus=corpus, out=Path(out)), progress=False)

        inputs = [prepare(path) for path in paths]
        works: dict[str, Callable[[], object]] = {
            "decode": lambda: [decode(path) for path in paths],
            f"decode, {workers} threads": lambda: list(ordered(pool, decode, paths, 4 * workers)),
            "decode and prepare": lambda: [prepare(path) for path in paths],
            "encode": encode,
            "extract": lambda: whole(files),
            "extract, from the tar": lambda: whole(tar),
        }
        found = {}
        for name, work in works.items():
            clocks, used = zip(*(spent(work) for _ in range(repeats)), strict=True)
            found[name] = {"a second": clips / statistics.median(clocks), "a core second": clips / statistics.median(used)}
        costs = {name: 1 / found[name]["a core second"] for name in ("decode and prepare", "encode")} | writing(config, clips)
    core = costs["decode and prepare"] + costs["encode"] + costs["write"]
    costs |= {"core hours of 10 million clips": 1e7 * core / 3600, "GB of 10 million clips": 1e7 * costs["bytes"] / 1e9}
    about = {"cores": workers, "threads": torch.get_num_threads(), "clips": clips, "seconds": seconds}
    json.dump({**about, "size": [width, height], "speeds": found, "costs": costs}, sys.stdout, indent=1)


if __name__ == "__main__":
    typer.run(main)
