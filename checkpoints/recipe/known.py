"""What a finished space is known by: concepts as points, the prior, and when a prompt is not understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unialign_gen.concepts import ConceptTable
from unialign_gen.pipelines import EmbeddingPrior
from unialign_gen.pipelines.prior import FEWEST, STEPS

from . import colours
from .concepts import CONCEPTS, SHOWN, foreign
from .features import TextFeatures
from .rows import Picture, grouped, numbered

# Shrinkage, bandwidth and spread were chosen on held-out prompts: much alike from 0.02 to 0.1, from 2 to 8, from 0.6 to 0.8
SHRINKAGE = 0.05
PRIOR: dict[str, Any] = {"bandwidth": 4.0, "strength": 1.0, "temperature": 0.8, "likeliest": True, "spread": 0.7}
AXES = 128  # that pictures are compared along
WEAKEST = 1.5  # in standard deviations of pictures of one thing
LEAST = 20  # compositions that say how a layout moves an embedding


def whitening(embeds: Tensor, groups: Sequence[list[int]]) -> Tensor:
    """W (d, d) of W W^T, the inverse of the covariance that unit embeddings (N, d) of one thing have about their mean.

    A little of the covariance is a sphere of the same variance (Ledoit & Wolf 2004), without which directions that hardly vary
    would count for everything.
    """
    apart = torch.cat([embeds[rows] - embeds[rows].mean(0) for rows in groups])
    pooled = apart.T @ apart / (len(apart) - len(groups))
    sphere = torch.eye(len(pooled)) * pooled.trace() / len(pooled)
    return torch.linalg.cholesky(torch.linalg.inv(torch.lerp(pooled, sphere, SHRINKAGE)))


def concept_table(rows: Sequence[Picture], embeds: Tensor, named: Tensor) -> ConceptTable:
    """The unit mean embedding of each concept's plain training pictures, and how these differ.

    Args:
        rows: plain training pictures, with unit embeddings (N, d).
        named: embeddings (concepts, d) of the concepts' names, for those without a picture.
    """
    points = torch.zeros(len(CONCEPTS), embeds.shape[1])
    shown = [n for n, row in enumerate(rows) if row.concepts]
    for n in shown:
        for concept in rows[n].concepts:
            points[list(CONCEPTS).index(concept)] += embeds[n]
    unseen = ~points.any(1)
    points[unseen] = named[unseen]
    apart = whitening(embeds, list(grouped((rows[n].name, n) for n in shown).values()))
    return ConceptTable(list(CONCEPTS), F.normalize(points, dim=1), apart / apart.diagonal().mean())


class Thing(NamedTuple):
    """What pictures show: its kind, a concept or itself; what it is called; and whether it is one of several of its kind."""

    kind: str
    name: str
    own: bool


def prior(rows: Sequence[Picture], embeds: Tensor) -> tuple[EmbeddingPrior, list[str]]:
    """The prior over what training pictures with unit embeddings (N, d) show, and the names of its points.

    The points are means of plain pictures; how pictures of a thing differ is learned from recoloured ones too.
    """
    plain = things(rows)
    single = grouped((row.name, n) for n, row in enumerate(rows) if row.kind != "composition")
    points = F.normalize(torch.stack([embeds[mine].mean(0) for mine in plain.values()]), dim=1)
    kind_of = numbered([thing.kind for thing in plain])
    apart = whitening(embeds, list(single.values()))
    white = embeds @ apart
    tints, layouts = (moved_by(rows, white, kind) for kind in ("recoloured", "composition"))
    shifts = torch.stack([moved.mean(0) for tint, moved in tints.items() if tint.split()[-1] in colours.NAMES])
    said = {"colour": (directions(shifts - shifts.mean(0)), shifts)}
    shown = [moved.mean(0) for moved in layouts.values() if len(moved) >= LEAST]
    if shown:
        axes, shifts = said["colour"][0], torch.stack(shown)
        said["layout"] = directions(shifts - (shifts @ axes.T) @ axes), shifts
    # of each plain picture the thing's number, how many pictures that has, the picture's place
    alone = [(number, len(mine), n) for number, mine in enumerate(plain.values()) for n in mine]
    several = [one for one in alone if one[1] >= FEWEST]
    shows, counts, places = torch.tensor(several, dtype=torch.long).view(-1, 3).T
    # a picture lies nearer to a mean that it is part of
    deviations = (embeds[places] - points[shows]) @ apart / (1 - 1 / counts[:, None]).sqrt()
    whole = [(number, n) for number, (thing, mine) in enumerate(plain.items()) if not thing.own for n in mine]
    neighbour_shows, neighbours = torch.tensor(whole).T  # by things of their own fewer pictures are drawn as what they show
    _, axes = torch.linalg.eigh(torch.cov((points[neighbour_shows.unique()] @ apart).T))
    compared = axes[:, -AXES:].T  # where things differ most
    kept = {
        "points": points,
        "neighbour_axes": compared,
        "neighbour_values": (white[neighbours] @ compared.T * STEPS).round().clamp(-128, 127).to(torch.int8),
        "neighbour_shows": neighbour_shows,
        "kind_of": kind_of,
        "log_counts": torch.tensor([len(mine) for mine in plain.values()]).log(),
        "whitening": apart,
    }
    sizes: dict[str, Any] = {
        "pictures": len(several),
        "neighbours": (len(whole), len(compared)),
        "kinds": int(kind_of.max()) + 1,
    }
    for name, (axes, shifts) in said.items():
        kept |= {f"{name}_axes": axes, f"{name}_shifts": shifts @ axes.T}
        sizes[f"{name}s"] = (len(shifts), len(axes))
    if several:
        kept |= {"shows": shows, "deviations": deviations}
    made = EmbeddingPrior(points.shape[1], len(points), **sizes, **PRIOR)
    made.load_state_dict(kept)
    return made, [thing.name for thing in plain]


def things(rows: Sequence[Picture]) -> dict[Thing, list[int]]:
    """Places of the plain pictures of each thing: of every concept and of every name, and what four pictures of a concept or
    more are called by their first captions, a panda, a polar bear.
    """
    plain = [n for n, row in enumerate(rows) if row.kind == "plain"]
    whole = grouped((Thing(rows[n].name, SHOWN.get(rows[n].name, rows[n].name), False), n) for n in plain)
    shown = [n for n in plain if rows[n].concepts]
    called = grouped((Thing(rows[n].name, rows[n].captions[0].lower(), True), n) for n in shown)
    own = {t: mine for t, mine in called.items() if len(mine) >= FEWEST and "," not in t.name and not foreign(t.kind, t.name)}
    return whole | {t: mine for t, mine in own.items() if len(mine) < len(whole[Thing(t.kind, SHOWN[t.kind], False)])}


def wordings(rows: Sequence[Picture], texts: TextFeatures) -> Tensor:
    """Unit text features (things, w) of what the prior's points are called: half their names, half their pictures' captions."""
    captions = {thing: sorted({c for n in mine for c in rows[n].captions}) for thing, mine in things(rows).items()}
    named = F.normalize(texts([thing.name for thing in captions]), dim=1)
    said = torch.stack([F.normalize(texts(mine), dim=1).sum(0) for mine in captions.values()])
    return F.normalize(named + F.normalize(said, dim=1), dim=1)


def moved_by(rows: Sequence[Picture], embeds: Tensor, kind: str) -> dict[str, Tensor]:
    """By colour, or by layout, the shifts (n, d) from embeddings of what variants were made of to their own.

    Args:
        embeds: (N, d), in whitened coordinates.
        kind: `recoloured`, each beside the picture that it was; or `composition`, beside the mean of its parts.
    """
    place: dict[str | None, int] = {row.id: n for n, row in enumerate(rows)}
    found: dict[str, list[Tensor]] = {}
    for row, embed in zip(rows, embeds, strict=True):
        sources: Sequence[str | None] = row.parts if kind == "composition" else [row.variant_of]
        if row.kind == kind and all(source in place for source in sources):
            shift = embed - embeds[[place[source] for source in sources]].mean(0)
            found.setdefault(row.colour if kind == "recoloured" else layout(row), []).append(shift)
    return {name: torch.stack(shifts) for name, shifts in found.items()}


def layout(row: Picture) -> str:
    """What a composition's caption says beside its things: how many, a size, a place, a ground."""
    words = row.captions[0].split()
    ground = words[words.index("on") :] if "on" in words else []
    return " ".join([f"{len(row.parts)} of {len(set(row.parts))}", *sorted({"above", "big", "small"} & set(words)), *ground])


def directions(shifts: Tensor) -> Tensor:
    """Orthonormal rows (k, d) that span shifts (n, d) in whitened coordinates, but for what is too weak to tell from chance."""
    _, strength, axes = torch.linalg.svd(shifts, full_matrices=False)
    return axes[strength > WEAKEST]
