"""The text and sound heads: what they are trained from, and their training with `unialign-gen train`."""

from __future__ import annotations

import json
import os
import random
import string
from collections.abc import Callable, Mapping, Sequence
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
from .rows import Picture

Lessons = list[tuple[Picture, str, list[str]]]  # a picture, what it is counted by, captions
NONSENSE = 6000
KEYS = "qwertyuiopasdfghjklzxcvbnm"
# first and last letters of some scripts that the text encoder does not read, and emoji
SCRIPTS = (
    (0x430, 0x44F),
    (0x3B1, 0x3C9),
    (0x5D0, 0x5EA),
    (0x627, 0x64A),
    (0x3041, 0x3096),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0x1F600, 0x1F64F),
)
SOUNDS = {"rec": "recordings", "fx": "effects", "font": "renders", "speech": "speech"}


def ragged(parts: Sequence[Tensor]) -> Ragged:
    """Rows (k, width) of each sample."""
    return Ragged(torch.cat(list(parts)).half(), counted(torch.tensor([len(p) for p in parts])))


def write_cache(root: Path, name: str, ids: list[str], labels: list[str], features: Mapping[str, Sequence[Tensor]]) -> None:
    """A cache of one shard; `features` are tensors (k, width) of each sample, by modality; `|` parts a sample's labels."""
    found = {modality: ragged(parts) for modality, parts in features.items()}
    index = {
        "format": FORMAT,
        "corpus": {"name": name, "samples": len(ids)},
        "encoders": {modality: {"dim": f.values.shape[1], "checkpoint": "starter"} for modality, f in found.items()},
        "shards": 1,
    }
    create(root / "caches" / name, index)
    write_shard(root / "caches" / name, 0, Shard(ids, list(labels), found))


def missing(root: Path, name: str) -> bool:
    """Whether a cache is not there yet: its shard is written last."""
    return not shard_path(root / "caches" / name, 0).exists()


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
        low, high = dice.choice(SCRIPTS)
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


def write_caches(root: Path, rows: Sequence[Picture], features: np.ndarray, texts: TextFeatures) -> None:
    """Features of everything that heads may be trained on, tiers A and B, in `root/caches`; what is there stays.

    Pictures of the table's concepts and others with captions that name no colour; coloured ones, counted by thing and colour;
    compositions; pictures with words that they teach; texts that say nothing; sounds by how they came to be.
    """
    trained = {row.id: n for n, row in enumerate(rows) if row.split == "train" and row.tier in "AB"}
    mine = [rows[n] for n in trained.values()]
    plain = [row for row in mine if row.kind == "plain"]
    sounds = [r for r in manifest.read(root) if r.kind == "sound" and r.split == "train" and r.tier in "AB"]

    def pictures(wanted: bool) -> Lessons:
        found = [row for row in plain if bool(row.concepts) == wanted]
        return [(row, label(row.concepts, row.name), row.plain_captions or [row.style]) for row in found]

    def coloured() -> Lessons:
        found = [row for row in mine if row.colour and row.coloured_captions and row.kind != "composition"]
        return [(row, f"{row.colour} {row.name}", row.coloured_captions) for row in found]

    def taught() -> Lessons:
        called = {r.concepts[0]: r.captions for r in sounds}
        found = words.lessons(words.read(root), texts, plain, called)
        return [(row, label(row.concepts, row.name), said) for row, said in found]

    makers: dict[str, Callable[[], Lessons]] = {
        "concepts": lambda: pictures(True),
        "others": lambda: pictures(False),
        "coloured": coloured,
        "compositions": lambda: [(row, row.captions[0], row.captions) for row in mine if row.kind == "composition"],
        "words": taught,
    }
    for name, make in makers.items():
        if missing(root, name):
            found = make()
            texts.encode([text for _, _, captions in found for text in captions])
            image = [torch.from_numpy(features[[trained[row.id]]]) for row, _, _ in found]
            said = [texts(captions) for _, _, captions in found]
            write_cache(root, name, [r.id for r, _, _ in found], [key for _, key, _ in found], {"image": image, "text": said})
    if missing(root, "nonsense"):
        salad = nonsense(NONSENSE)
        # drawn to where no picture is: the place of the mean of all features
        nowhere = torch.from_numpy(features.mean(0, dtype=np.float32))[None]
        said = list(texts(salad).unsqueeze(1))
        write_cache(root, "nonsense", salad, ["nonsense"] * len(salad), {"image": [nowhere] * len(salad), "text": said})
    for style, name in SOUNDS.items():
        if missing(root, name):
            heard = [r for r in sounds if r.style == style]
            labels = [label(r.concepts, r.id) for r in heard]
            write_cache(root, name, [r.id for r in heard], labels, {"audio": of_sounds(root, heard)})


def train_heads(root: Path, *changes: str) -> None:
    """Trains both heads as the package's configuration says, against the space in `root`; resumes."""
    os.environ["UNIALIGN_DATA"] = str(root.resolve())
    anchored = [f"anchor_head={json.dumps(str(root.resolve() / 'space'))}", *changes]
    train(load_config(TrainConfig, configs_folder() / "starter.yaml", anchored))


def concept_sounds(rows: Sequence[Row], features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All versions of all sounds (N, width), and the places of their concepts in the table, (N,)."""
    names = list(CONCEPTS)
    places = torch.tensor([names.index(r.concepts[0]) for r in rows])
    return torch.cat(list(features)), places.repeat_interleave(torch.tensor([len(v) for v in features]))
