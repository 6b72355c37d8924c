"""What the starter is tested on: held-out captions, recordings and pictures of the recipe's data set, in a fixed order."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unialign_gen.data.manifest import read
from unialign_gen.data.storage import write_rows
from unialign_gen.errors import InputError
from unialign_gen.output import make_folder

SPLITS = {"held_out": "test", "cross_source": "cross"}
RECORDED = ("rec", "fx")
STYLES = {"audio": RECORDED, "render": ("font",), "speech": ("speech",)}  # of sounds


@dataclass
class Prompt:
    """An input of one modality and the concepts it stands for."""

    kind: str
    value: str
    concepts: list[str]


def trained_wordings(rows: Iterable[Any]) -> set[str]:
    """Captions of the training rows, in lower case."""
    return {c.lower() for r in rows if r.split == "train" for c in r.captions}


def prompts(root: Path, split: str, limit: int, extra: bool = False) -> dict[str, list[Prompt]]:
    """The prompts of `held_out` or `cross_source` by modality: `image`, `text`, `audio`; at most `limit` of each, in an order
    that follows from their content alone.

    A caption counts only if no training picture has it; a recording only if it is one (no renders, no speech). With `extra`
    those two follow, as `render` and `speech`.
    """
    root = root.resolve()
    rows = read(root)
    seen = trained_wordings(rows)
    mine = [r for r in rows if r.split == SPLITS[split] and r.concepts]
    pictures = [r for r in mine if r.kind == "picture"]
    texts = {c: r for r in pictures for c in r.captions if c.lower() not in seen}
    found = {
        "image": [Prompt("image", str(root / r.path), r.concepts) for r in pictures],
        "text": [Prompt("text", c, r.concepts) for c, r in texts.items()],
    }
    for name, styles in (STYLES if extra else {"audio": RECORDED}).items():
        heard = [r for r in mine if r.kind == "sound" and r.style in styles]
        found[name] = [Prompt("audio", str(root / r.path), r.concepts) for r in heard]

    def order(prompt: Prompt) -> str:
        return hashlib.sha1(f"{prompt.kind}:{Path(prompt.value).name}".encode()).hexdigest()

    return {name: sorted(some, key=order)[:limit] for name, some in found.items()}


def write_manifest(root: Path, split: str, out: Path) -> Path:
    """`triples` as a manifest, a JSONL file in a folder, that a corpus is read from.

    Raises:
        InputError: no such split, or nothing in it.
    """
    if split not in SPLITS:
        raise InputError(f"the starter's data has no split {split!r}: choose from {', '.join(SPLITS)}")
    found = triples(root, split)
    manifest = make_folder(out) / f"{split}.jsonl"
    write_rows(manifest, found)
    return manifest


def triples(root: Path, split: str) -> list[dict[str, str]]:
    """Every picture of `held_out` or `cross_source` whose concept has a recording there: picture, caption, recording, concept.

    The recording is another thing of the same concept, not the sound of this picture. Recordings of a concept take turns. The
    caption is the first that no training picture has, where there is one.
    """
    root = root.resolve()  # a manifest's paths are relative to its own folder
    every = read(root)
    seen = trained_wordings(every)
    mine = [r for r in every if r.split == SPLITS[split] and r.concepts]
    mine.sort(key=lambda r: hashlib.sha256(r.id.encode()).hexdigest())
    recorded = [r for r in mine if r.kind == "sound" and r.style in RECORDED]
    named = {concept for r in recorded for concept in r.concepts}
    turns = {concept: itertools.cycle([r for r in recorded if concept in r.concepts]) for concept in named}
    found = []
    for r in mine:
        concept = next((c for c in r.concepts if c in turns), None)
        if r.kind == "picture" and r.captions and concept is not None:
            files = {"image": str(root / r.path), "audio": str(root / next(turns[concept]).path)}
            text = next((c for c in r.captions if c.lower() not in seen), r.captions[0])
            found.append({"id": r.id, "text": text, **files, "label": concept})
    if not found:
        raise InputError(f"no picture of {split} in {root} has a recording of its concept")
    return found
