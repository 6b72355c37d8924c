"""The text and sound heads: what they are trained from, and their training with `unialign-gen train`."""

from __future__ import annotations

import functools
import json
import os
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unialign_gen.config import load as load_config
from unialign_gen.configs import configs_folder
from unialign_gen.data import manifest
from unialign_gen.data.cache import FORMAT, Ragged, Shard, counted, create, shard_path, write_shard
from unialign_gen.data.manifest import Row
from unialign_gen.training.config import TrainConfig
from unialign_gen.training.train import train

from . import words
from .concepts import CONCEPTS
from .features import TextFeatures, of_sounds
from .plan import SIZES
from .rows import Picture

Lessons = list[tuple[Picture, str, list[str]]]  # a picture, what it is counted by, captions
KEYS = "qwertyuiopasdfghjklzxcvbnm"
# first and last letters of some scripts that the text encoder does not read, and emoji
SCRIPTS = ("ая", "αω", "את", "اي", "ぁゖ", "一龥", "가힣", "😀🙏")
SOUNDS = {"rec": "recordings", "fx": "effects", "font": "renders", "speech": "speech"}  # styles, and their caches
RECORDED = ("rec", "fx")

Made = tuple[list[str], list[str], dict[str, list[Tensor]]]  # ids, labels parted by `|`, features (k, width) by modality


def keep_cache(folder: Path, make: Callable[[], Made]) -> None:
    """A cache of one shard, made if it is not there yet: the shard is written last."""
    if shard_path(folder, 0).exists():
        return
    ids, labels, features = make()
    found = {
        modality: Ragged(torch.cat(parts).half(), counted(torch.tensor([len(p) for p in parts])))
        for modality, parts in features.items()
    }
    encoders = {modality: {"dim": rows.values.shape[1], "checkpoint": "starter"} for modality, rows in found.items()}
    corpus = {"name": folder.name, "samples": len(ids)}
    create(folder, {"format": FORMAT, "corpus": corpus, "encoders": encoders, "shards": 1})
    write_shard(folder, 0, Shard(ids, list(labels), found))


def label(concepts: Sequence[str], name: str) -> str:
    """What a sample is paired and counted by: its concepts, or else its name."""
    return "|".join(concepts) if concepts else name.lower().replace("|", " ")


def nonsense(count: int) -> list[str]:
    """Texts that say nothing: random letters, keys side by side, made-up words, other scripts and emoji, digits and signs."""
    dice = random.Random("nonsense")

    def word(sort: int, low: int, high: int) -> str:
        size = dice.randint(2, 9)
        if sort == 0:
            return "".join(dice.choices(string.ascii_lowercase, k=size))
        if sort == 1:
            start = dice.randrange(len(KEYS) - size)
            return KEYS[start : start + size][:: dice.choice((1, -1))]
        if sort == 2:
            return "".join(dice.choice("bcdfghjklmnprstvwz") + dice.choice("aeiouy") for _ in range(size // 2 + 1))
        if sort == 3:
            return "".join(chr(dice.randint(low, high)) for _ in range(size // 2 + 1))
        return "".join(dice.choices(string.digits + string.punctuation, k=size // 2 + 1))

    def text() -> str:
        sort = dice.randrange(5)
        low, high = map(ord, dice.choice(SCRIPTS))
        return " ".join(word(sort, low, high) for _ in range(dice.choice((1, 1, 2, 2, 3, 4))))

    return [text() for _ in range(count)]


def write_caches(root: Path, rows: Sequence[Picture], features: np.ndarray, texts: TextFeatures) -> None:
    """Features of everything that heads may be trained on, tiers A and B, in `root/caches`; what is there stays.

    Pictures of the table's concepts and others with captions that name no colour; coloured ones, counted by thing and colour;
    compositions; pictures with words that they teach; texts that say nothing; sounds by how they came to be.
    """
    trained = {row.id: n for n, row in enumerate(rows) if row.split == "train" and row.tier in "AB"}
    mine = [rows[n] for n in trained.values()]
    plain = [row for row in mine if row.kind == "plain"]
    single = [row for row in mine if row.kind != "composition"]
    sounds = [r for r in manifest.read(root) if r.kind == "sound" and r.split == "train" and r.tier in "AB"]
    named = [(row, label(row.concepts, row.name), row.plain_captions or [row.style]) for row in plain]

    def taught() -> Lessons:
        called = {r.concepts[0]: r.captions for r in sounds}
        found = words.lessons(words.read(root), texts, plain, called)
        return [(row, label(row.concepts, row.name), said) for row, said in found]

    def shown(found: Lessons) -> Made:
        texts.encode([text for _, _, captions in found for text in captions])
        image = [torch.from_numpy(features[[trained[row.id]]]) for row, _, _ in found]
        said = [texts(captions) for _, _, captions in found]
        return [row.id for row, _, _ in found], [key for _, key, _ in found], {"image": image, "text": said}

    def said_of_nothing() -> Made:
        salad = nonsense(SIZES.nonsense)
        # drawn to where no picture is: the place of the mean of all features
        nowhere = torch.from_numpy(features.mean(0, dtype=np.float32))[None]
        return salad, ["nonsense"] * len(salad), {"image": [nowhere] * len(salad), "text": list(texts(salad).unsqueeze(1))}

    def heard(style: str) -> Made:
        found = [r for r in sounds if r.style == style]
        return [r.id for r in found], [label(r.concepts, r.id) for r in found], {"audio": of_sounds(root, found)}

    makers: dict[str, Callable[[], Made]] = {
        "concepts": lambda: shown([lesson for lesson in named if lesson[0].concepts]),
        "others": lambda: shown([lesson for lesson in named if not lesson[0].concepts]),
        "coloured": lambda: shown(
            [(r, f"{r.colour} {r.name}", r.coloured_captions) for r in single if r.colour and r.coloured_captions]
        ),
        "compositions": lambda: shown([(r, r.captions[0], r.captions) for r in mine if r.kind == "composition"]),
        "words": lambda: shown(taught()),
        "nonsense": said_of_nothing,
        **{name: functools.partial(heard, style) for style, name in SOUNDS.items()},
    }
    for name, make in makers.items():
        keep_cache(root / "caches" / name, make)


def train_heads(root: Path) -> None:
    """Trains both heads as the package's configuration says, against the space in `root`; resumes."""
    os.environ["UNIALIGN_DATA"] = str(root.resolve())
    anchored = f"anchor_head={json.dumps(str(root.resolve() / 'space'))}"
    train(load_config(TrainConfig, configs_folder() / "starter.yaml", [anchored, *SIZES.heads]))


def concept_shares(rows: Sequence[Row | Picture]) -> Tensor:
    """(N, concepts): an equal share for each concept of the table that a row has."""
    return torch.tensor([[(name in row.concepts) / len(row.concepts) for name in CONCEPTS] for row in rows])
