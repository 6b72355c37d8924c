"""The text and sound heads: what they are trained from, and their training with `unialign-gen train`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unialign_gen.config import load as load_config
from unialign_gen.configs import configs_folder
from unialign_gen.data import manifest
from unialign_gen.data.cache import FORMAT, Ragged, Shard, counted, create, write_shard
from unialign_gen.data.manifest import Row
from unialign_gen.training.config import TrainConfig
from unialign_gen.training.train import train

from . import words
from .concepts import CONCEPTS
from .features import TextFeatures, of_sounds
from .rows import Picture

SOUNDS = {"rec": "recordings", "fx": "effects", "font": "renders", "speech": "speech"}


def ragged(parts: Sequence[Tensor]) -> Ragged:
    """Rows (k, width) of each sample."""
    return Ragged(torch.cat(list(parts)).half(), counted(torch.tensor([len(p) for p in parts])))


def write_cache(folder: Path, name: str, ids: list[str], labels: list[str], features: Mapping[str, Sequence[Tensor]]) -> None:
    """A cache of one shard; `features` are tensors (k, width) of each sample, by modality; `|` parts a sample's labels."""
    found = {modality: ragged(parts) for modality, parts in features.items()}
    index = {
        "format": FORMAT,
        "corpus": {"name": name, "samples": len(ids)},
        "encoders": {modality: {"dim": f.values.shape[1], "checkpoint": "starter"} for modality, f in found.items()},
        "shards": 1,
    }
    create(folder / name, index)
    write_shard(folder / name, 0, Shard(ids, list(labels), found))


def label(concepts: Sequence[str], name: str) -> str:
    """What a sample is paired and counted by: its concepts, or else its name."""
    return "|".join(concepts) if concepts else name.lower().replace("|", " ")


def write_caches(root: Path, rows: Sequence[Picture], features: np.ndarray, texts: TextFeatures) -> None:
    """Features of everything that heads may be trained on, tiers A and B, in `root/caches`.

    Pictures of the table's concepts and others with captions that name no colour; coloured ones, counted by thing and colour;
    compositions; pictures with words that they teach; sounds by how they came to be.
    """
    folder = root / "caches"
    shutil.rmtree(folder, ignore_errors=True)
    trained = [(n, row) for n, row in enumerate(rows) if row.split == "train" and row.tier in "AB"]
    image = {row.id: torch.from_numpy(features[n : n + 1]) for n, row in trained}

    def write(name: str, mine: Sequence[tuple[Picture, str, list[str]]]) -> None:
        texts.encode([text for _, _, captions in mine for text in captions])
        shown, said = [image[row.id] for row, _, _ in mine], [texts(captions) for _, _, captions in mine]
        write_cache(folder, name, [row.id for row, _, _ in mine], [key for _, key, _ in mine], {"image": shown, "text": said})

    plain = [row for _, row in trained if row.kind == "plain"]
    for name, wanted in (("concepts", True), ("others", False)):
        mine = [row for row in plain if bool(row.concepts) == wanted]
        write(name, [(row, label(row.concepts, row.name), row.plain_captions or [row.style]) for row in mine])
    coloured = [row for _, row in trained if row.colour and row.coloured_captions and row.kind != "composition"]
    write("coloured", [(row, f"{row.colour} {row.name}", row.coloured_captions) for row in coloured])
    mixed = [row for _, row in trained if row.kind == "composition"]
    write("compositions", [(row, row.captions[0], row.captions) for row in mixed])
    sounds = [r for r in manifest.read(root) if r.kind == "sound" and r.split == "train" and r.tier in "AB"]
    called = {r.concepts[0]: r.captions for r in sounds}
    write("words", [(r, label(r.concepts, r.name), w) for r, w in words.lessons(words.read(root), texts, plain, called)])
    heard = dict(zip((r.id for r in sounds), of_sounds(root, sounds), strict=True))
    for style, name in SOUNDS.items():
        found = [r for r in sounds if r.style == style]
        labels = [label(r.concepts, r.id) for r in found]
        write_cache(folder, name, [r.id for r in found], labels, {"audio": [heard[r.id] for r in found]})


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
