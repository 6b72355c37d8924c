"""The text and sound heads: what they are trained from, and their training with `unialign-gen train`."""

from __future__ import annotations

import json
import os
import random
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unialign_gen.config import load as load_config
from unialign_gen.configs import configs_folder
from unialign_gen.data.cache import FORMAT, Ragged, Shard, counted, create, shard_path, write_shard
from unialign_gen.data.manifest import Row
from unialign_gen.training.config import TrainConfig
from unialign_gen.training.train import train

from . import words
from .concepts import CONCEPTS
from .features import TextFeatures, of_sounds
from .plan import SIZES
from .rows import Picture

Lesson = tuple[Picture, str, list[str]]  # a picture, what it is counted by, captions
Sample = tuple[str, str, dict[str, Tensor]]  # id, labels parted by `|`, features (k, width) by modality
KEYS = "qwertyuiopasdfghjklzxcvbnm"
# first and last letters of some scripts that the text encoder does not read, and emoji
SCRIPTS = ("ая", "αω", "את", "اي", "ぁゖ", "一龥", "가힣", "😀🙏")
SOUNDS = {"rec": "recordings", "fx": "effects", "font": "renders", "speech": "speech"}  # styles, and their caches


def keep_cache(folder: Path, samples: Iterable[Sample]) -> None:
    """A cache of one shard; if it is there already, no sample is asked for. The shard is written last."""
    if shard_path(folder, 0).exists():
        return
    ids, labels, features = zip(*samples, strict=True)
    parts = {modality: [each[modality] for each in features] for modality in features[0]}
    found = {m: Ragged(torch.cat(ps).half(), counted(torch.tensor([len(p) for p in ps]))) for m, ps in parts.items()}
    encoders = {modality: {"dim": rows.values.shape[1], "checkpoint": "starter"} for modality, rows in found.items()}
    corpus = {"name": folder.name, "samples": len(ids)}
    create(folder, {"format": FORMAT, "corpus": corpus, "encoders": encoders, "shards": 1})
    write_shard(folder, 0, Shard(list(ids), list(labels), found))


def label(concepts: Sequence[str], name: str) -> str:
    """What a sample is paired and counted by: its concepts, or else its name."""
    return "|".join(concepts) if concepts else name.lower().replace("|", " ")


def nonsense(count: int) -> list[str]:
    """Texts that say nothing: random letters, made-up words, other scripts, emoji, digits and signs."""
    dice = random.Random("nonsense")
    out: list[str] = []
    while len(out) < count:
        words = []
        sort = dice.randrange(5)
        low, high = map(ord, dice.choice(SCRIPTS))
        for _ in range(dice.choice((1, 1, 2, 2, 3, 4))):
            size = dice.randint(2, 9)
            if sort == 0:
                words.append("".join(dice.choices(string.ascii_lowercase, k=size)))
            elif sort == 1:
                start = dice.randrange(len(KEYS) - size)
                words.append(KEYS[start : start + size][:: dice.choice((1, -1))])
            elif sort == 2:
                words.append("".join(dice.choice("bcdfghjklmnprstvwz") + dice.choice("aeiouy") for _ in range(size // 2 + 1)))
            elif sort == 3:
                words.append("".join(chr(dice.randint(low, high)) for _ in range(size // 2 + 1)))
            else:
                words.append("".join(dice.choices(string.digits + string.punctuation, k=size // 2 + 1)))
        out.append(" ".join(words))
    return out


def train_heads(root: Path, rows: Sequence[Picture], features: np.ndarray, texts: TextFeatures, sounds: Sequence[Row]) -> None:
    """Trains both heads as the package's configuration says, against the space in `root`; resumes.

    They learn from features of tiers A and B that are kept in `root/caches`; what is there stays. Pictures of the table's
    concepts and others with captions that name no colour; coloured ones, counted by thing and colour; compositions; pictures
    with words that they teach; texts that say nothing; sounds by how they came to be.
    """
    trained = {row.id: n for n, row in enumerate(rows) if row.split == "train" and row.tier in "AB"}
    mine = [rows[n] for n in trained.values()]
    plain = [row for row in mine if row.kind == "plain"]
    named = [(row, label(row.concepts, row.name), row.plain_captions or [row.style]) for row in plain]
    coloured = [row for row in mine if row.kind != "composition" and row.colour and row.coloured_captions]

    # all of these begin when they are asked for their first sample
    def shown(lessons: Iterable[Lesson]) -> Iterator[Sample]:
        found = list(lessons)
        texts.encode([text for _, _, captions in found for text in captions])
        for row, key, captions in found:
            yield row.id, key, {"image": torch.from_numpy(features[[trained[row.id]]]), "text": texts(captions)}

    def taught() -> Iterator[Lesson]:
        called = {r.concepts[0]: r.captions for r in sounds}
        for row, said in words.lessons(words.read(root), texts, plain, called):
            yield row, label(row.concepts, row.name), said

    def said_of_nothing() -> Iterator[Sample]:
        salad = nonsense(SIZES.nonsense)
        # drawn to where no picture is: the place of the mean of all features
        nowhere = torch.from_numpy(features.mean(0, dtype=np.float32))[None]
        for text, said in zip(salad, texts(salad), strict=True):
            yield text, "nonsense", {"image": nowhere, "text": said[None]}

    def heard(style: str) -> Iterator[Sample]:
        found = [r for r in sounds if r.style == style]
        for row, versions in zip(found, of_sounds(root, found), strict=True):
            yield row.id, label(row.concepts, row.id), {"audio": versions}

    caches = {
        "concepts": shown(lesson for lesson in named if lesson[0].concepts),
        "others": shown(lesson for lesson in named if not lesson[0].concepts),
        "coloured": shown((row, f"{row.colour} {row.name}", row.coloured_captions) for row in coloured),
        "compositions": shown((row, row.captions[0], row.captions) for row in mine if row.kind == "composition"),
        "words": shown(taught()),
        "nonsense": said_of_nothing(),
        **{name: heard(style) for style, name in SOUNDS.items()},
    }
    for name, samples in caches.items():
        keep_cache(root / "caches" / name, samples)
    os.environ["UNIALIGN_DATA"] = str(root.resolve())
    anchored = f"anchor_head={json.dumps(str(root.resolve() / 'space'))}"
    train(load_config(TrainConfig, configs_folder() / "starter.yaml", [anchored, *SIZES.heads]))


def concept_shares(rows: Sequence[Row | Picture]) -> Tensor:
    """(N, concepts): an equal share for each concept of the table that a row has."""
    return torch.tensor([[(name in row.concepts) / len(row.concepts) for name in CONCEPTS] for row in rows])
