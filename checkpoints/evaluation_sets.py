"""What the starter is tested on: held-out captions, recordings and pictures of the recipe's data set, in a fixed order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unialign_gen.data import cache
from unialign_gen.data.manifest import Row, read
from unialign_gen.errors import InputError
from unialign_gen.output import make_folder

SPLITS = {"held_out": "test", "cross_source": "cross"}


@dataclass
class Prompt:
    """An input of one modality and the concepts it stands for."""

    kind: str
    value: str
    concepts: list[str]


def shuffled(values: Sequence[Prompt], limit: int) -> list[Prompt]:
    """At most `limit` prompts, in an order that follows from their content alone."""
    return sorted(values, key=lambda p: hashlib.sha1(f"{p.kind}:{Path(p.value).name}".encode()).hexdigest())[:limit]


def prompts(root: Path, split: str, limit: int, extra: bool = False) -> dict[str, list[Prompt]]:
    """The prompts of `held_out` or `cross_source` by modality: `image`, `text`, `audio`.

    A caption counts only if no training picture has it; a recording only if it is one (no renders, no speech). With `extra`
    those two follow, as `render` and `speech`.
    """
    root = root.resolve()
    rows = read(root)
    seen = {c.lower() for r in rows if r.split == "train" for c in r.captions}
    mine = [r for r in rows if r.split == SPLITS[split] and r.concepts]
    pictures = [r for r in mine if r.kind == "picture"]
    texts = {c: r for r in pictures for c in r.captions if c.lower() not in seen}
    sounds = [r for r in mine if r.kind == "sound" and r.style in ("rec", "fx")]

    def of(kind: str, rows: Sequence[Row]) -> list[Prompt]:
        return [Prompt(kind, str(root / r.path), r.concepts) for r in rows]

    found = {
        "image": shuffled(of("image", pictures), limit),
        "text": shuffled([Prompt("text", c, r.concepts) for c, r in texts.items()], limit),
        "audio": shuffled(of("audio", sounds), limit),
    }
    if extra:
        for name, style in (("render", "font"), ("speech", "speech")):
            found[name] = shuffled(of("audio", [r for r in mine if r.style == style]), limit)
    return found


def write_manifest(root: Path, split: str, out: Path) -> Path:
    """`triples` as a manifest, a JSONL file in a folder, that a corpus is read from.

    Raises:
        InputError: no such split, or nothing in it.
    """
    if split not in SPLITS:
        raise InputError(f"the starter's data has no split {split!r}: choose from {', '.join(SPLITS)}")
    lines = [json.dumps(entry, ensure_ascii=False) for entry in triples(root, split)]
    manifest = make_folder(out) / f"{split}.jsonl"
    cache.write_whole(manifest, ("\n".join(lines) + "\n").encode())
    return manifest


def triples(root: Path, split: str) -> list[dict[str, str]]:
    """Every picture of `held_out` or `cross_source` whose concept has a recording there: picture, caption, recording, concept.

    The recording is another thing of the same concept, not the sound of this picture. Recordings of a concept take turns. The
    caption is the first that no training picture has, where there is one.
    """
    root = root.resolve()  # a manifest's paths are relative to its own folder
    every = read(root)
    seen = {c.lower() for r in every if r.split == "train" for c in r.captions}
    rows = [r for r in every if r.split == SPLITS[split] and r.concepts]
    sounds: dict[str, list[Row]] = {}
    for r in sorted(rows, key=place):
        if r.kind == "sound" and r.style in ("rec", "fx"):
            for name in r.concepts:
                sounds.setdefault(name, []).append(r)
    turns = dict.fromkeys(sounds, 0)
    found = []
    for r in sorted((r for r in rows if r.kind == "picture" and r.captions), key=place):
        concept: str | None = next((c for c in r.concepts if c in sounds), None)
        if concept is None:
            continue
        sound = sounds[concept][turns[concept] % len(sounds[concept])]
        turns[concept] += 1
        files = {"image": str(root / r.path), "audio": str(root / sound.path)}
        text = next((c for c in r.captions if c.lower() not in seen), r.captions[0])
        found.append({"id": r.id, "text": text, **files, "label": concept})
    if not found:
        raise InputError(f"no picture of {split} in {root} has a recording of its concept")
    return found


def place(r: Row) -> str:
    return hashlib.sha256(r.id.encode()).hexdigest()
