"""Synthetic clips in VGGSound's own layout: a still that moves, with a recording of the same concept.

    clips/vggsound.csv                       id,start seconds,label,split   (no header, as the original)
    clips/video/{id}_{start:06d}.mp4         10 s, H.264 + AAC

The ids start with `pk`, so that nobody takes them for YouTube ids.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unialign_gen.data.manifest import Row
from unialign_gen.film.mp4 import RATE, Mp4
from unialign_gen.media import load_sound

from .concepts import CONCEPTS

FPS, SECONDS, SIDE = 8, 10, 160
ZOOM, SHIFT = ((0.7, 0.95), (0.8, 1.25)), ((-0.12, 0.12), (-0.12, 0.12))  # ranges at a still's start and end, in sides


def moving(stills: Sequence[Image.Image], dice: random.Random) -> Iterator[np.ndarray]:
    """Frames (SIDE, SIDE, 3): each still in turn, panned and zoomed over a plain ground."""
    each = FPS * SECONDS // len(stills)
    ground = tuple(dice.randint(200, 255) for _ in range(3))
    for still in stills:
        mask = Image.fromarray((np.asarray(still.convert("L")) < 250).astype(np.uint8) * 255)
        courses = [[dice.uniform(*span) for span in ends] for ends in (ZOOM, SHIFT, SHIFT)]
        for t in (i / (each - 1) for i in range(each)):
            side, x, y = (int(SIDE * (a + (b - a) * t)) for a, b in courses)
            at = ((SIDE - side) // 2 + x, (SIDE - side) // 2 + y)
            frame = Image.new("RGB", (SIDE, SIDE), ground)
            frame.paste(still.resize((side, side), Image.Resampling.BILINEAR), at, mask.resize((side, side)))
            yield np.asarray(frame)


def repeated(samples: np.ndarray, dice: random.Random) -> np.ndarray:
    """The recording again and again with random pauses, over faint noise."""
    out = np.random.default_rng(dice.randint(0, 10**9)).normal(0, 0.001, SECONDS * RATE).astype(np.float32)
    at = int(dice.uniform(0, 0.6) * RATE)
    while at < len(out):
        count = min(len(samples), len(out) - at)
        out[at : at + count] += samples[:count]
        at += count + int(dice.uniform(0.15, 0.8) * RATE)
    return np.clip(out, -1, 1)


def write_clip(path: Path, frames: Iterator[np.ndarray], sound: np.ndarray) -> None:
    """Frames (SIDE, SIDE, 3) with mono samples."""
    with Mp4(path, SIDE, SIDE, FPS, sound=True) as film:
        film.video.codec_context.thread_count = 1  # by default as many as there are processors, and other bytes for each number
        for frame in frames:
            film.add(frame)
        film.add_sound(torch.from_numpy(np.stack([sound, sound])))


def build(root: Path, rows: Sequence[Row]) -> None:
    """One clip a concept and split (train, test) for concepts with a VGGSound label."""
    out = root / "clips"
    (out / "video").mkdir(parents=True, exist_ok=True)
    lines = []
    for (name, concept), split in itertools.product(CONCEPTS.items(), ("train", "test")):
        mine = [r for r in rows if r.split == split and name in r.concepts]
        stills = [r for r in mine if r.kind == "picture"]
        sounds = [r for r in mine if r.style in ("rec", "fx")]
        if not stills or not sounds or not concept["vggsound"]:
            continue
        dice = random.Random(f"{name}{split}0")
        clip = "pk" + hashlib.sha1(f"{name}{split}0".encode()).hexdigest()[:9]
        start = dice.randrange(0, 300, 10)
        pictures = [Image.open(root / r.path).convert("RGB") for r in dice.sample(stills, min(2, len(stills)))]
        sound = repeated(load_sound(root / dice.choice(sounds).path, RATE).numpy(), dice)
        write_clip(out / "video" / f"{clip}_{start:06d}.mp4", moving(pictures, dice), sound)
        lines.append((clip, start, concept["vggsound"].split(",")[0].split(" / ")[0], split))
    with (out / "vggsound.csv").open("w", newline="") as f:
        csv.writer(f).writerows(lines)
