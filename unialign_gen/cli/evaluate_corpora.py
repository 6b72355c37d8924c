"""What a generation protocol is run on: clips of VGGSound, of a manifest or of the starter's sets, and kinds of prompts."""

from __future__ import annotations

import re
from pathlib import Path

from ..data import vggsound, vggsounder
from ..data.sources import LABELS, CorpusConfig
from ..errors import InputError
from ..output import make_folder
from ..request import MODALITIES

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
        from ..checkpoints.evaluation_sets import write_manifest
        from ..data.manifest import default_root

        manifest = write_manifest(root or default_root(), split or "held_out", out)
        return CorpusConfig("manifest", manifest=manifest, select=clips, seed=seed)
    raise InputError(f"unknown dataset {dataset!r}: choose from {', '.join(DATASETS)}")


def parse_kinds(text: str) -> list[str]:
    """`text,audio,text+audio` -> its kinds, the modalities of each in one order, one's own last.

    Raises:
        InputError: a name that cannot be a modality's, one named twice, or a kind named twice.
    """
    found: list[str] = []
    for entry in text.split(","):
        parts = [p.strip() for p in entry.split("+")]
        if not all(re.fullmatch(r"[a-z][a-z0-9_]*", p) for p in parts) or len(set(parts)) < len(parts):
            raise InputError(
                f"--prompts {entry.strip()!r}: join {', '.join(MODALITIES)} or a modality of your own by +, each once"
            )
        kind = "+".join([m for m in MODALITIES if m in parts] + sorted(set(parts) - set(MODALITIES)))
        if kind in found:
            raise InputError(f"--prompts names {kind} twice")
        found.append(kind)
    return found
