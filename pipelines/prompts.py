"""Prompts of any modality to one unit embedding a picture: the part that all decoders share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign_gen.aligner import MODALITIES, Aligner
from unialign_gen.errors import InputError
from unialign_gen.mixing import Method, check_embedding, mix

KINDS = (*MODALITIES, "embeds")
Weights = Mapping[str, float | Sequence[float]]


@dataclass
class Term:
    """One input of one prompt, with its weight."""

    kind: str
    value: Any
    weight: float


def rows_of(kind: str, value: Any) -> list[tuple[Any, ...]]:
    """A modality's argument as one tuple of inputs for each prompt: a list is a batch, a tuple is a mix inside a prompt."""
    if kind == "embeds" and isinstance(value, Tensor):
        value = list(value) if value.ndim == 2 else [value]
    batch = value if isinstance(value, list) else [value]
    if not batch:
        raise InputError(f"{kind} is an empty list")
    return [item if isinstance(item, tuple) else (item,) for item in batch]


def weights_of(kind: str, weight: float | Sequence[float], count: int) -> list[float]:
    values = [float(weight)] * count if isinstance(weight, int | float) else [float(w) for w in weight]
    if len(values) != count:
        raise InputError(f"{len(values)} weights for {count} {kind} inputs: give one for each, or one for all")
    return values


def plan(inputs: Mapping[str, Any], weights: Weights | None) -> list[list[Term]]:
    """The terms of every prompt of a batch.

    Args:
        inputs: modality to one input, a tuple of inputs (mixed) or a list (a batch) of either.
        weights: modality to weight; 1 where none is named.

    Raises:
        InputError: no input, lists of different lengths, or weights that do not match the inputs.
    """
    given = {kind: rows_of(kind, value) for kind, value in inputs.items() if value is not None}
    if not given:
        raise InputError(f"nothing to draw: give at least one of {', '.join(KINDS)}")
    lengths = {kind: len(rows) for kind, rows in given.items() if len(rows) > 1}
    if len(set(lengths.values())) > 1:
        raise InputError(f"lists of different lengths: {lengths}")
    unknown = set(weights or {}) - set(given)
    if unknown:
        raise InputError(f"a weight for {', '.join(sorted(unknown))}, but no such prompt was given")
    size = max(lengths.values(), default=1)
    prompts: list[list[Term]] = []
    for i in range(size):
        terms: list[Term] = []
        for kind, rows in given.items():
            row = rows[i if len(rows) > 1 else 0]
            values = weights_of(kind, (weights or {}).get(kind, 1.0), len(row))
            terms += [Term(kind, value, weight) for value, weight in zip(row, values, strict=True)]
        prompts.append(terms)
    return prompts


def embed_prompts(
    aligner: Aligner,
    prompts: Sequence[Sequence[Term]],
    method: Method = "lerp",
    prior: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Unit embeddings (B, d) of planned prompts; each modality is encoded in one go, an input that repeats only once.

    `prior` moves what was encoded, before it is mixed: weights keep their meaning, and ready embeddings stay what they are.
    """
    found: dict[tuple[str, Any], Tensor] = {}

    def key(term: Term) -> tuple[str, Any]:
        return term.kind, term.value if isinstance(term.value, str) else id(term.value)

    for kind in MODALITIES:
        wanted = {key(t): t.value for terms in prompts for t in terms if t.kind == kind}
        if wanted:
            points = aligner.embed(kind, list(wanted.values()))
            found.update(zip(wanted, points if prior is None else prior(points), strict=True))
    for terms in prompts:
        for term in terms:
            if term.kind == "embeds":
                found[key(term)] = ready(term.value, aligner.embed_dim)
    device = aligner.place.device
    return torch.stack([mix([found[key(t)].to(device) for t in terms], [t.weight for t in terms], method) for terms in prompts])


def ready(value: Any, embed_dim: int) -> Tensor:
    """A ready embedding of a prompt, checked."""
    value = torch.as_tensor(value)
    if value.shape != (embed_dim,):
        raise InputError(f"embeds must have {embed_dim} values a prompt, got shape {tuple(value.shape)}")
    return check_embedding(value)


def generators(seed: int | Sequence[int], count: int, per_prompt: int) -> list[torch.Generator]:
    """One CPU generator a picture: prompt i, picture j draws from `seed + i * per_prompt + j`, or from `seed[i] + j`.

    Raises:
        InputError: a list of seeds that does not fit the batch.
    """
    if isinstance(seed, int):
        starts = [seed + i * per_prompt for i in range(count)]
    else:
        starts = list(seed)
        if len(starts) != count:
            raise InputError(f"{len(starts)} seeds for {count} prompts: give one for each")
    return [torch.Generator().manual_seed(s + j) for s in starts for j in range(per_prompt)]
