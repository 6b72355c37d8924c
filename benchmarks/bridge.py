"""Sound heads without training against the trained one, on the starter, where it is known what every sound is of.

    python benchmarks/bridge.py

Prints a table: of held-out recordings and of other makers', how often the nearest concept of 138 to the embedding, and one of
the nearest five, is what the sound is of. Needs the data folder that the recipe's `data`, `encode`, `space` and `heads` fill.

- events: YAMNet and the names of its events, with the starter's own text head; no sound was ever seen with a picture or a name.
- text: a space of sound and text that is made here as CLAP is, with the names of 1,000 training sounds but no picture (a ridge
  from the starter's sound features to MiniLM's sentence features), then the captions from there to the starter's space.
- pairs: sounds drawn from all training sounds, each with a training picture of the same concept.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from unialign_gen.concepts import ConceptTable
from unialign_gen.data import manifest
from unialign_gen.data.cache import FeatureCache
from unialign_gen.data.manifest import Row
from unialign_gen.encoders import yamnet
from unialign_gen.heads.bridge import Bridge, captions, from_captions, from_events, recall, ridge
from unialign_gen.loading import find, frozen_head, open_aligner

ROOT = manifest.default_root()
COUNTS = (100, 300, 1000)
SPLITS = {"held out": "test", "other makers": "cross"}


def features(root: Path, rows: list[Row]) -> Tensor:
    """The starter's sound features (N, 2304) of sounds as they are."""
    return torch.from_numpy(np.stack([np.load(root / "features" / "audio" / f"{r.id}.npy")[0] for r in rows])).float()


def pictures(root: Path) -> tuple[Tensor, dict[str, list[int]]]:
    """Unit embeddings of the training pictures of concepts, and their places by concept."""
    cache = FeatureCache.open(root / "caches" / "concepts")
    head, _ = frozen_head("starter", "image")
    places: dict[str, list[int]] = {}
    for place, label in enumerate(cache.labels):
        for concept in (label or "").split("|"):
            places.setdefault(concept, []).append(place)
    return F.normalize(head(cache.features("image").values[:].float()), dim=1), places


def concept_ranks(table: ConceptTable, z: Tensor, rows: list[Row]) -> Tensor:
    """How many concepts lie nearer to each embedding than the nearest of its own: (N,)."""
    near = table.cosines(z)
    right = torch.tensor([[name in row.concepts for name in table.names] for row in rows])
    best = near.masked_fill(~right, -2).amax(1, keepdim=True)
    return ((near >= best) & ~right).sum(1)


def embed(part: nn.Module, texts: list[str]) -> Tensor:
    encoder = part.encoder
    assert isinstance(encoder, nn.Module)
    return torch.cat([encoder(encoder.prepare(texts[at : at + 64])) for at in range(0, len(texts), 64)])  # type: ignore[operator]


@torch.no_grad()
def heads(root: Path, rows: list[Row], counts: tuple[int, ...]) -> dict[str, tuple[nn.Module, Bridge | None]]:
    """Every way's head, and what it knows of its own uncertainty."""
    aligner, dice = open_aligner("starter"), random.Random(0)
    text = aligner.part("text")
    made: dict[str, tuple[nn.Module, Bridge | None]] = {"trained head": (frozen_head("starter", "audio")[0], None)}
    layer, names = yamnet.events()
    made["events"] = from_events(layer, names, aligner("text", names), None)

    trained = [r for r in rows if r.split == "train" and r.concepts]
    named = dice.sample(trained, min(counts[-1], len(trained)))
    heard = features(root, named)
    sound_space = ridge("pairs", heard, embed(text, [r.concepts[0] for r in named])).head
    said = embed(text, captions())
    through = from_captions(said, F.normalize(text.head(said), dim=1), sound_space(heard), None)
    made["text"] = (nn.Sequential(sound_space, through.head), through.bridge)

    points, places = pictures(root)
    shown = [r for r in trained if any(c in places for c in r.concepts)]
    for count in counts:
        drawn = dice.sample(shown, min(count, len(shown)))
        seen = points[[dice.choice(places[next(c for c in r.concepts if c in places)]) for r in drawn]]
        found = ridge("pairs", features(root, drawn), seen)
        made[f"pairs, {len(drawn)}"] = (found.head, found.bridge)
    return made


@torch.no_grad()
def main(root: Annotated[Path, typer.Option(help="The recipe's data folder.")] = ROOT) -> None:
    """Top-1 and top-5 with 95 % intervals; and top-5 of the half of the prompts that each way is surer of, and of the other."""
    rows = [r for r in manifest.read(root) if r.kind == "sound"]
    table = ConceptTable.from_checkpoint(find("starter"))
    head = "| way | sounds | N | top-1 | 95 % | top-5 | 95 % | top-5, surer half | other half |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for way, (made, bridge) in heads(root, rows, COUNTS).items():
        for split, key in SPLITS.items():
            mine = [r for r in rows if r.split == key and r.style in ("rec", "fx") and r.concepts]
            x = features(root, mine)
            raw = made(x[:, : yamnet.CHANNELS[-1]] if way == "events" else x)
            ranks = concept_ranks(table, F.normalize(raw, dim=1), mine)
            found = recall(ranks, len(table.names))
            halves = ["", ""]
            if bridge is not None:
                order = bridge.uncertainty(raw).argsort()
                parts = (order[: len(order) // 2], order[len(order) // 2 :])
                halves = [f"{(ranks[part] < 5).double().mean():.3f}" for part in parts]
            spans = [f"{low:.3f} to {high:.3f}" for low, high in (found["top1_ci95"], found["top5_ci95"])]
            cells = [way, split, found["n"], f"{found['top1']:.3f}", spans[0], f"{found['top5']:.3f}", spans[1], *halves]
            lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    typer.echo("\n".join([*lines, "", f"Chance: {found['chance1']:.3f} and {found['chance5']:.3f}."]))


if __name__ == "__main__":
    typer.run(main)
