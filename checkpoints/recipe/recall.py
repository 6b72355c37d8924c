"""How often an embedding lies nearest to its concept, over everything that training never met: no picture is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.concepts import ConceptTable
from unialign_gen.eval.concepts import shares
from unialign_gen.eval.data import Prompt

from . import features
from .manifest import Row

SPLITS = {"held_out": ("test",), "other_makers": ("cross",), "together": ("test", "cross")}


def measure(
    root: Path, rows: Sequence[Row], table: ConceptTable, heads: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, dict[str, Any]]:
    """Top-1 and top-5 shares by modality and split.

    Args:
        rows: the whole manifest.
        heads: encoder features to embeddings, of any norm, by modality.

    Returns for `picture`, `caption` (every caption of every held-out picture), `text` (the same, each wording once),
    `text_unseen` (wordings that no training picture has, of words that may have been taught), `recording`, `render` and
    `speech` the shares on held-out takes, on other makers, and on both together; and for `name`, the concepts' own names, one
    share (a concept without pictures lies where its name does, so its own is no test).
    """
    seen = {c.lower() for r in rows if r.split == "train" for c in r.captions}
    tested = [r for r in rows if r.split != "train" and r.concepts]
    pictures = [r for r in tested if r.kind == "picture"]
    sounds = [r for r in tested if r.kind == "sound"]
    of_text = features.of_texts(root, [*table.names, *(c for r in pictures for c in r.captions)])
    of_picture = dict(zip((r.id for r in pictures), features.of_pictures(root, pictures, "image"), strict=True))
    of_sound = dict(zip((r.id for r in sounds), features.of_sounds(root, sounds, 1)[:, 0], strict=True))
    result: dict[str, dict[str, Any]] = {}

    def count(name: str, split: str, modality: str, found: list[Tensor], concepts: list[list[str]]) -> None:
        if found:
            z = F.normalize(heads[modality](torch.stack(found)), dim=1)
            wanted = [Prompt(modality, name, c) for c in concepts]
            result.setdefault(name, {})[split] = shares(table.nearest(z), wanted)

    count("name", "together", "text", [of_text[name] for name in table.names], [[name] for name in table.names])
    for split, names in SPLITS.items():
        seen_here = [r for r in pictures if r.split in names]
        said = [(c, r.concepts) for r in seen_here for c in r.captions]
        captions = {c: r.concepts for r in seen_here for c in r.captions}
        unseen = {c: concepts for c, concepts in captions.items() if c.lower() not in seen}
        heard = [r for r in sounds if r.split in names]
        count("picture", split, "image", [of_picture[r.id] for r in seen_here], [r.concepts for r in seen_here])
        count("caption", split, "text", [of_text[c] for c, _ in said], [concepts for _, concepts in said])
        count("text", split, "text", [of_text[c] for c in captions], list(captions.values()))
        count("text_unseen", split, "text", [of_text[c] for c in unseen], list(unseen.values()))
        for name, styles in (("recording", ("rec", "fx")), ("render", ("font",)), ("speech", ("speech",))):
            mine = [r for r in heard if r.style in styles]
            count(name, split, "audio", [of_sound[r.id] for r in mine], [r.concepts for r in mine])
    return result


def lines(result: dict[str, dict[str, Any]]) -> str:
    """The result for a person to read."""
    out = [f"{'prompt':<13}{'split':<14}{'top-1':>7}{'top-5':>8}{'N':>6}"]
    for name, splits in result.items():
        for split, s in splits.items():
            out.append(f"{name:<13}{split:<14}{s['top1']:>7.1%}{s['top5']:>8.1%}{s['n']:>6}")
    return "\n".join(out)
