"""How embeddings of everything that training never met lie to what they mean: no picture is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.concepts import ConceptTable, Understanding
from unialign_gen.data.manifest import Row

from ..concepts import shares
from ..evaluation_sets import RECORDED, Prompt, trained_wordings
from ..faithfulness import NONSENSE
from .concepts import article
from .features import TextFeatures
from .rows import Picture
from .variants import FIVE

SPLITS = {"held_out": ("test",), "other_makers": ("cross",), "together": ("test", "cross")}
STYLES = {"recording": RECORDED, "render": ("font",), "speech": ("speech",)}


def measure(
    rows: Sequence[Row],
    image: Mapping[str, Tensor],
    sound: Mapping[str, Tensor],
    texts: TextFeatures,
    table: ConceptTable,
    heads: Mapping[str, Callable[[Tensor], Tensor]],
) -> dict[str, dict[str, Any]]:
    """Top-1 and top-5 shares by modality and split.

    Args:
        rows: the whole manifest.
        image, sound: encoder features (width,) by id.
        heads: features to embeddings, of any norm, by modality.

    Returns for `picture`, `caption` (every caption of every held-out picture), `text` (the same, each wording once),
    `text_unseen` (wordings that no training picture has), `recording`, `render` and `speech` the shares on held-out items, on
    other makers, and on both together; and for `name`, the concepts' own names, one share.
    """
    seen = trained_wordings(rows)
    tested = [r for r in rows if r.split != "train" and r.concepts]
    result: dict[str, dict[str, Any]] = {}

    def count(name: str, split: str, modality: str, asked: Sequence[tuple[Any, list[str]]]) -> None:
        if asked:
            inputs = [one for one, _ in asked]
            z = F.normalize(heads[modality](texts(inputs) if modality == "text" else torch.stack(inputs).float()), dim=1)
            result.setdefault(name, {})[split] = shares(table.nearest(z), [Prompt(modality, name, c) for _, c in asked])

    count("name", "together", "text", [(name, [name]) for name in table.names])
    for split, names in SPLITS.items():
        here = [r for r in tested if r.split in names and r.kind == "picture"]
        said = [(c, r.concepts) for r in here for c in r.captions]
        once = list(dict(said).items())
        count("picture", split, "image", [(image[r.id], r.concepts) for r in here])
        count("caption", split, "text", said)
        count("text", split, "text", once)
        count("text_unseen", split, "text", [(c, concepts) for c, concepts in once if c.lower() not in seen])
        for name, styles in STYLES.items():
            mine = [r for r in tested if r.split in names and r.style in styles and r.kind == "sound"]
            count(name, split, "audio", [(sound[r.id], r.concepts) for r in mine])
    return result


def mixing(
    rows: Sequence[Picture], embeds: Tensor, texts: TextFeatures, table: ConceptTable, text: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Does a picture of two things mean both? Held-out pairs.

    `composition_cosine` and `composition_both`: side-by-side compositions against the mix of their parts, and the share whose
    own embedding has both parts' concepts among the five nearest; `mix_both` and `sentence_both` the same share of the mix and
    of "an A and a B".
    """
    place = {row.id: n for n, row in enumerate(rows)}

    def both(z: Tensor, wanted: Sequence[list[set[str]]]) -> float:
        near = table.nearest(z)
        return float(np.mean([all(set(five) & part for part in parts) for five, parts in zip(near, wanted, strict=True)]))

    beside = [r for r in rows if r.id.startswith("pair-unseen")]
    first, second = (embeds[[place[r.parts[i]] for r in beside]] for i in (0, -1))
    own, mix = embeds[[place[r.id] for r in beside]], F.normalize(first + second, dim=1)
    wanted = [[set(rows[place[p]].concepts) for p in r.parts] for r in beside]
    names = [[article(rows[place[p]].name) for p in r.parts] for r in beside]
    sentence = F.normalize(text(texts([" and ".join(both) for both in names])), dim=1)
    return {
        "pairs": len(beside),
        "composition_cosine": float((own * mix).sum(1).mean()),
        "composition_both": both(own, wanted),
        "mix_both": both(mix, wanted),
        "sentence_both": both(sentence, wanted),
    }


def colour_words(
    rows: Sequence[Picture], embeds: Tensor, texts: TextFeatures, text: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """The share of "a red A" that lies nearest to the red one of a held-out thing's five recoloured pictures."""
    place = {row.id: n for n, row in enumerate(rows)}
    things = [row for row in rows if row.split == "test" and row.kind == "plain" and f"{row.id}+{FIVE[0]}" in place]
    shown = embeds[[place[f"{row.id}+{colour}"] for row in things for colour in FIVE]].unflatten(0, (-1, len(FIVE)))
    said = texts([article(f"{colour} {row.name}") for row in things for colour in FIVE])
    z = F.normalize(text(said), dim=1).unflatten(0, (-1, len(FIVE)))  # (things, colours said, d)
    nearest = torch.einsum("tsd,tcd->tsc", z, shown).argmax(2)
    return {"colours": len(said), "colour": float((nearest == torch.arange(len(FIVE))).float().mean())}


def refused(
    rows: Sequence[Row], understanding: Understanding, texts: TextFeatures, text: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """The share of prompts that are called not understood: nonsense, and captions of held-out and of other makers."""
    asked = {"nonsense": list(NONSENSE)}
    for name, split in (("held_out", "test"), ("other_makers", "cross")):
        said = [c for r in rows if r.kind == "picture" and r.split == split and r.concepts for c in r.captions]
        asked[name] = list(dict.fromkeys(said))
    out = {}
    for name, prompts in asked.items():
        found = understanding(F.normalize(text(texts(prompts)), dim=1), "text", guesses=1)
        out[f"refused_{name}"] = float(np.mean([not one.understood for one in found])) if prompts else 0.0
    return out


def lines(result: dict[str, dict[str, Any]], meaning: dict[str, float]) -> str:
    """Both for a person to read."""
    out = [f"{'prompt':<13}{'split':<14}{'top-1':>7}{'top-5':>8}{'N':>6}"]
    found = [(name, split, s) for name, splits in result.items() for split, s in splits.items()]
    out += [f"{name:<13}{split:<14}{s['top1']:>7.1%}{s['top5']:>8.1%}{s['n']:>6}" for name, split, s in found]
    return "\n".join([*out, "", *(f"{name:<27}{value:>7.3f}" for name, value in meaning.items())])
