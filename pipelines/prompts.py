"""Prompts that are checked, as embeddings; and for each of their pictures a generator and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError, as_input_error
from unialign_gen.mixing import check_embedding, mix
from unialign_gen.request import Prompt, Request
from unialign_gen.request.request import SEEDS

from .beside import Box, side_by_side
from .prior import EmbeddingPrior, check_prior


def encode_prompts(aligner: Aligner, prompts: Sequence[Sequence[Prompt]]) -> tuple[tuple[Prompt, ...], ...]:
    """The same prompts with the unit embeddings (d,) of their values.

    Each modality is encoded in one go, an input that repeats only once; what has an embedding is not read again. All are on
    the aligner's device.
    """
    device = aligner.place.device
    found: dict[tuple[str, Any], Tensor] = {}

    def key(prompt: Prompt) -> tuple[str, Any]:
        return prompt.kind, prompt.value if isinstance(prompt.value, str) else id(prompt.value)

    inputs = [p for row in prompts for p in row]
    for kind in dict.fromkeys(p.kind for p in inputs if p.kind != "embeds"):
        wanted = {key(p): p.value for p in inputs if p.kind == kind and p.embedding is None}
        if wanted:
            found.update(zip(wanted, aligner.embed(kind, list(wanted.values())), strict=True))

    def encoded(prompt: Prompt) -> Prompt:
        if prompt.kind == "embeds":
            return replace(prompt, embedding=checked_vector(prompt.value, aligner.embed_dim).to(device))
        if prompt.embedding is None:
            return replace(prompt, embedding=found[key(prompt)].to(device))
        unit = checked_vector(prompt.embedding, aligner.embed_dim, prompt.name)
        kept = torch.as_tensor(prompt.embedding, dtype=unit.dtype, device=unit.device)
        # one that is of norm 1 stays bit for bit what it was encoded to
        return replace(prompt, embedding=(kept if torch.allclose(kept, unit, atol=1e-6) else unit).to(device))

    return tuple(tuple(encoded(p) for p in row) for row in prompts)


def moved_prompts(
    prompts: Sequence[Sequence[Prompt]], request: Request, prior: EmbeddingPrior | None, draws: Sequence[Any] | None = None
) -> list[list[Tensor]]:
    """Of encoded prompts each input's unit embedding (d,).

    The prior moves what was encoded, before it is mixed: weights keep their meaning, and ready embeddings stay what they are.
    `draws` are generators or seeds (B) of what prompts leave open, at the request's temperature; without them it stays at its
    mean.

    Raises:
        InputError: a strength or a temperature without a prior, or out of their ranges.
    """
    strength, temperature = request.prior_strength, (request.prior_temperature or 0.0) if draws else 0.0
    check_prior(prior, strength, temperature)

    def points(row: Sequence[Prompt], draw: Any) -> list[Tensor]:
        vectors = [p.embedding for p in row]
        moved = [i for i, p in enumerate(row) if p.kind != "embeds"]
        if prior is not None and moved:
            pictures = [row[i].kind in ("image", "video") for i in moved]
            found = prior(torch.stack([vectors[i] for i in moved]), strength, temperature, draw, pictures)
            for i, vector in zip(moved, found, strict=True):
                vectors[i] = vector
        return vectors

    return [points(row, draw) for row, draw in zip(prompts, draws or [None] * len(prompts), strict=True)]


def mixed_prompts(prompts: Sequence[Sequence[Prompt]], moved: Sequence[Sequence[Tensor]], request: Request) -> Tensor:
    """Unit embeddings (B, d) of prompts whose inputs lie at `moved`."""
    return torch.stack([mix_of(points, row, request) for points, row in zip(moved, prompts, strict=True)])


def mix_of(points: Sequence[Tensor], row: Sequence[Prompt], request: Request) -> Tensor:
    """The unit embedding (d,) of one prompt's inputs."""
    return mix(points, [p.weight for p in row], "lerp" if request.mix == "beside" else request.mix)


def beside(row: Sequence[Prompt]) -> tuple[Box, ...]:
    """Places for a prompt's inputs, from left to right, as wide as their weights.

    Raises:
        InputError: weights that are not above 0.
    """
    widths = [p.weight for p in row]
    if min(widths) <= 0:
        raise InputError(f"weights of what stands beside each other are widths, all above 0, got {min(widths):g}")
    return side_by_side(widths)


def checked_vector(value: Any, width: int, name: str = "embeds") -> Tensor:
    """A ready embedding (d,) as a unit vector.

    Raises:
        InputError: another shape, not finite, or zero.
    """
    vector = as_vector(value)
    if vector.shape != (width,):
        what = "embeds must have" if name == "embeds" else f"{name} was kept for another model: this one has"
        raise InputError(f"{what} {width} values a prompt, got shape {tuple(vector.shape)}")
    return check_embedding(vector)


def as_vector(value: Any) -> Tensor:
    """One embedding as a tensor.

    Raises:
        InputError: it is no array of numbers.
    """
    with as_input_error(f"embeds must be vectors of numbers, got {type(value).__name__}", TypeError, ValueError, RuntimeError):
        return torch.as_tensor(value)


def picture_seeds(seed: int | Sequence[int], count: int, per_prompt: int) -> list[int]:
    """One a picture: that of prompt i, picture j is `seed + i * per_prompt + j`, or `seed[i] + j`; after the largest comes 0.

    Raises:
        InputError: a list of seeds that does not fit the batch.
    """
    firsts = [seed + i * per_prompt for i in range(count)] if isinstance(seed, int) else seed
    if len(firsts) != count:
        raise InputError(f"{len(firsts)} seeds for {count} prompts: give one for each")
    return [(first + j) % SEEDS for first in firsts for j in range(per_prompt)]


def generators(seed: int | Sequence[int], count: int, per_prompt: int) -> list[torch.Generator]:
    """A CPU generator for each of `picture_seeds`."""
    return [torch.Generator().manual_seed(s) for s in picture_seeds(seed, count, per_prompt)]


def reseeded(generator: torch.Generator) -> torch.Generator:
    """A generator whose seed is drawn from another."""
    on = generator.device
    return torch.Generator(on).manual_seed(int(torch.randint(1 << 62, (), generator=generator, device=on)))


def rows_of(name: str, given: str | Sequence[str] | None, prompts: int, pictures: int) -> list[str]:
    """Words for each picture, from one text for all or one a prompt.

    Raises:
        InputError: several texts, and another number of prompts.
    """
    each = [given or ""] * prompts if given is None or isinstance(given, str) else list(given)
    if len(each) != prompts:
        raise InputError(f"{len(each)} values of {name} for {prompts} prompts: give one, or one for each")
    return [row for row in each for _ in range(pictures)]
