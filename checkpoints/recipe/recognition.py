"""Gives heads what their encoders recognise: kinds of photographs and of sounds by name, and concepts by their sound.

EfficientNet names a thousand kinds of things in photographs; the image space was learned from drawings, and photographs
of the same things land beside them. The classifier that comes with the encoder says what a photograph shows, the text head
says where that lies, and a gate learned from the few photographs of tiers A and B opens for photographs alone. YAMNet names
521 sound events, and so it is with recordings, of which there are few of many things; instruments out of sound fonts and
synthetic voices, which there are enough of, stay outside the gate.

Things that sound unlike can look alike, as accordion and harmonica do: the image space puts them beside each other, and so
does a head that is aligned to it. A linear probe of both sound encoders, fitted on the concepts of training sounds, tells them
apart. Its gate opens for those instruments and voices above all: of other makers' recordings it makes less.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unialign_gen.heads import Head
from unialign_gen.heads.recognition import Recognition
from unialign_gen.pipelines import EmbeddingPrior


class Choice(NamedTuple):
    """How much is made of what an encoder recognises."""

    weight: float  # of what is recognised against the embedding by the head alone
    classes: int  # how many, those whose names lie nearest to something known
    decay: float  # of the gate's weights; with less of it the gate misses what other makers made


# Chosen with prompts of other makers in sight that `eval concepts` asks for. Of 215 held-out pictures they lose one; a weight
# of 3 is much the same, and all 1,000 classes are no better. Of sounds, 100 classes or a decay of 0.01 or 1 are much the same;
# the probe's gate is softer, so that it helps with recordings too, but with less than with what it is for.
PICTURES = Choice(weight=2.0, classes=700, decay=1.0)
SOUNDS = Choice(weight=1.5, classes=300, decay=0.1)
PROBED, PROBED_DECAY = 2.0, 4.0
EIGHT_BITS = torch.float8_e4m3fn


def class_names() -> list[list[str]]:
    """The names of the ImageNet classes in their order, and the same with WordNet's definitions."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [[info.index_to_description(i, detailed) for i in range(info.num_classes())] for detailed in (False, True)]


def fit_gate(features: Tensor, opened: Tensor, decay: float) -> nn.Linear:
    """Logistic regression: for which rows of features (N, width) the gate is open (N,). Both kinds count the same.

    `decay` is the weight of the squared norm beside the mean loss, of standardised features.
    """
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(0), features.std(0).clamp(min=1e-4)
    weights = {False: 1.0, True: float((~opened).sum() / opened.sum())}
    fitted = LogisticRegression(C=1 / (2 * decay * len(features)), class_weight=weights, max_iter=1000)
    fitted.fit(((features - mean) / std).numpy(), opened.numpy())
    gate = nn.Linear(len(mean), 1)
    with torch.no_grad():  # of plain features
        gate.weight.copy_(torch.from_numpy(fitted.coef_) / std)
        gate.bias.copy_(torch.from_numpy(fitted.intercept_) - gate.weight @ mean)
    return gate


def recognition(named: nn.Linear, points: Tensor, gate: nn.Linear) -> Recognition:
    """What a classifier of an encoder's first features names, as points (classes, d), behind a gate of the same features."""
    made = Recognition(named.in_features, named.out_features, points.shape[1])
    made.classify, made.gate = named, gate
    made.points.copy_(points)
    return made


def by_name(named: nn.Linear, gate: nn.Linear, texts: Tensor, known: EmbeddingPrior, choice: Choice) -> Recognition:
    """The classes of a published classifier that are known best.

    Args:
        named, gate: as in `recognition`, the classes in the order of `texts`.
        texts: unit embeddings (classes, d) of the classes' names.
        known: moves the names to what can be drawn.
    """
    best = (texts @ known.points.T).amax(1).topk(min(choice.classes, len(texts))).indices.sort().values
    kept = nn.Linear(named.in_features, len(best))
    kept.load_state_dict({"weight": named.weight[best], "bias": named.bias[best]})
    return recognition(kept, choice.weight * known(texts[best], 1.0), gate)


def recognising(head: Head, *recognitions: Recognition) -> Head:
    """A plain head that recognises these too."""
    config = [{"width": r.width, "classes": len(r.points)} for r in recognitions]
    made = Head(**head.config, recognises=config)
    made.load_state_dict(head.state_dict(), strict=False)
    made.recognitions = nn.ModuleList(recognitions)
    return made.eval()


def quantised(head: Head) -> Head:
    """The head in fp16, classes in eight bits where they fit: prompts of other makers turn by a cosine of 0.9994 at most."""
    for made in head.half().recognitions:
        assert isinstance(made, Recognition)
        # a probe's weights, divided by how far each feature spreads, are too unlike for eight bits
        if made.classify.weight.abs().max() <= torch.finfo(EIGHT_BITS).max:
            for part in (made.classify.weight, made.points):
                part.data = part.data.to(EIGHT_BITS)
    return head
