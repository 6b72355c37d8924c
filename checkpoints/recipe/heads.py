"""The starter's text and sound heads: UniAlign against the frozen image space.

Pairs are drawn concept-balanced: a picture, one of its captions, and a sound of the same concept where there is one. Batches
of captions cover all pictures; batches of sounds cover the concepts that have sounds, each concept as often as any
other, so that a concept with fifty recordings does not swallow its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.heads import Head
from unialign_gen.objectives import UniAlign

from .manifest import Row, weights_by_name
from .training import log, warm_then_cool


class Pairs:
    """What the training pictures and sounds offer as pairs, by row and by concept."""

    def __init__(self, pictures: Sequence[Row], sounds: Sequence[Row]):
        self.weights = weights_by_name(list(pictures))
        self.by_concept: dict[str, list[int]] = defaultdict(list)
        for i, row in enumerate(pictures):
            for concept in row.concepts:
                self.by_concept[concept].append(i)
        self.sounds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, row in enumerate(sounds):
            self.sounds[row.concepts[0]][row.style].append(i)
        self.heard = [c for c in self.sounds if self.by_concept[c]]


def choose(options: Sequence[int], generator: torch.Generator) -> int:
    return options[int(torch.randint(len(options), (1,), generator=generator))]


STYLES = {"rec": 0.45, "fx": 0.05, "font": 0.3, "speech": 0.2}


def draw_sounds(pairs: Pairs, batch: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """(picture, sound) indices: distinct concepts first, recordings more often than renders, renders than speech."""
    order = torch.randperm(len(pairs.heard), generator=generator).tolist()
    concepts = [pairs.heard[order[i % len(order)]] for i in range(batch)]
    pictures, sounds = [], []
    for concept in concepts:
        styles = [s for s in STYLES if pairs.sounds[concept][s]]
        odds = torch.tensor([STYLES[s] for s in styles])
        style = styles[int(torch.multinomial(odds, 1, generator=generator))]
        pictures.append(choose(pairs.by_concept[concept], generator))
        sounds.append(choose(pairs.sounds[concept][style], generator))
    return pictures, sounds


def train(
    pictures: Sequence[Row],
    anchors: Tensor,
    captions: list[Tensor],
    sounds: Sequence[Row],
    sound_features: list[Tensor],
    folder: Path,
    *,
    steps: int = 1200,
    batch: int = 512,
    lr: float = 2e-3,
    tau: float = 0.5,
    alignment: float = 6.0,
    seed: int = 0,
) -> dict[str, Head]:
    """Trains both heads.

    Args:
        pictures, anchors: training rows and their frozen unit embeddings (N, d).
        captions: each picture's caption features (k, 384).
        sounds: training rows; sound_features: several augmented versions (k, 512) of each.
        tau: the temperature of uniformity. The paper's 0.07 is for pairs that are all different; here many show the same
            thing, and so sharp a kernel tears them apart with a force of 1 / tau^2 that alignment cannot answer.
        alignment: weight of the alignment term, on the scale of the kernel's exponent.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pairs = Pairs(pictures, sounds)
    dim = anchors.shape[1]
    heads = {"text": Head(384, dim, 768, dropout=0.1), "audio": Head(512, dim, 768, dropout=0.2)}
    heads["text"].fit_standardisation(torch.cat(captions))
    heads["audio"].fit_standardisation(torch.cat(sound_features))
    parameters = [p for h in heads.values() for p in h.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.03)
    loss = UniAlign(tau=tau, tau_centroid=tau, alignment_weight=alignment)
    concept_anchor = {c: F.normalize(anchors[rows].mean(0), dim=0) for c, rows in pairs.by_concept.items() if rows}
    # words and sounds name a concept, not one picture: the anchor is half that picture, half the concept's mean
    known = [(i, row.concepts) for i, row in enumerate(pictures) if row.concepts]
    means = {i: torch.stack([concept_anchor[c] for c in names]).mean(0) for i, names in known}
    named = F.normalize(torch.stack([a + means[i] if i in means else a for i, a in enumerate(anchors)]), dim=1)
    for step in range(steps):
        rows = torch.multinomial(pairs.weights, batch, generator=generator).tolist()
        text = torch.stack([captions[i][choose(range(len(captions[i])), generator)] for i in rows])
        z_text = F.normalize(heads["text"](text + 0.02 * torch.randn(text.shape, generator=generator)), dim=1)
        p = loss.parts({"image": named[rows], "text": z_text})
        loss_text = loss.total(p)

        seen, heard = draw_sounds(pairs, batch // 2, generator)
        x = torch.stack([sound_features[i][choose(range(len(sound_features[i])), generator)] for i in heard])
        x = x + 0.15 * heads["audio"].std * torch.randn(x.shape, generator=generator)
        z_sound = F.normalize(heads["audio"](x), dim=1)
        # a sound names a concept, not one picture: the anchor is half that picture, half the concept's mean
        mean = torch.stack([concept_anchor[sounds[i].concepts[0]] for i in heard])
        anchor = F.normalize(anchors[seen] + mean, dim=1)
        spoken = torch.stack([captions[i][choose(range(len(captions[i])), generator)] for i in seen])
        z_spoken = F.normalize(heads["text"](spoken), dim=1)
        loss_sound = loss({"image": anchor, "audio": z_sound, "text": z_spoken.detach()})

        for group in optimiser.param_groups:
            group["lr"] = lr * warm_then_cool(step / steps, cool=0.5)
        optimiser.zero_grad(set_to_none=True)
        (loss_text + loss_sound).backward()
        optimiser.step()
        if step % 250 == 249:
            log(
                folder / "log.jsonl",
                step=step + 1,
                text=loss_text.item(),
                sound=loss_sound.item(),
                text_alignment=p["alignment"].item(),
            )
    return {k: h.eval() for k, h in heads.items()}
