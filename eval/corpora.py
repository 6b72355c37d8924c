"""Which clips a generation protocol is run on: VGGSound, a manifest of one's own, or the starter's own test sets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from unialign_gen.data import cache, vggsound, vggsounder
from unialign_gen.data.manifest import Row, default_root, read
from unialign_gen.data.sources import LABELS, CorpusConfig
from unialign_gen.errors import InputError
from unialign_gen.output import make_folder

from .data import SPLITS

DATASETS = ("vggsound", "vggsound-av", "table", "starter")


def choose(
    dataset: str,
    root: Path | None,
    split: str | None,
    clips: int,
    seed: int,
    out: Path,
    csv: Path | None = None,
    captions: Path | None = None,
    annotations: Path | None = None,
) -> CorpusConfig:
    """The corpus that the options name; `clips` of it, by a hash of the id.

    Args:
        root: the folder of VGGSound or of the starter's data set, or the manifest of a table.
        out: the starter's test sets and the list of `vggsound-av` are written down here.
        annotations: VGGSounder's list, see `vggsounder.find_list`.

    Raises:
        InputError: options that do not fit together.
    """
    if dataset in ("vggsound", "vggsound-av"):
        if root is None:
            raise InputError(f"--dataset {dataset} needs --root, the folder with vggsound.csv and the clips")
        if split not in (None, "test") and (dataset, split) != ("vggsound", "train"):
            raise InputError(f"{dataset} has no split {split!r}: choose test{' or train' * (dataset == 'vggsound')}")
        if dataset == "vggsound-av":
            listed = vggsound.rows(csv or vggsound.find_list(root, "test"))
            csv = make_folder(out) / "vggsound-av.csv"
            vggsounder.write_subset(listed, vggsounder.find_list(annotations, root), csv)
        said = captions or LABELS
        return CorpusConfig(
            "vggsound", root, "train" if split == "train" else "test", csv, captions=said, select=clips, seed=seed
        )
    if dataset == "table":
        if root is None:
            raise InputError(
                "--dataset table needs --root, a JSONL or CSV file with columns id, text, audio, video, image, label"
            )
        return CorpusConfig("manifest", manifest=root, captions=captions, select=clips, seed=seed)
    if dataset == "starter":
        split = split or "held_out"
        if split not in SPLITS:
            raise InputError(f"the starter's data has no split {split!r}: choose from {', '.join(SPLITS)}")
        make_folder(out)
        manifest = out / f"{split}.jsonl"
        lines = [json.dumps(entry, ensure_ascii=False) for entry in triples(root or default_root(), split)]
        cache.write_whole(manifest, ("\n".join(lines) + "\n").encode())
        return CorpusConfig("manifest", manifest=manifest, select=clips, seed=seed)
    raise InputError(f"unknown dataset {dataset!r}: choose from {', '.join(DATASETS)}")


def triples(root: Path, split: str) -> list[dict[str, str]]:
    """Every picture of `held_out` or `cross_source` whose concept has a recording there: picture, caption, recording, concept.

    The recording is another thing of the same concept, not the sound of this picture. Recordings of a concept take turns. The
    caption is the first that no training picture has, where there is one.
    """
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
