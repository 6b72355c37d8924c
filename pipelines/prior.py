"""What a prompt's embedding is moved towards before it is drawn: what the decoder has learned to draw."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from unialign_gen.errors import InputError


class EmbeddingPrior(ModelMixin, ConfigMixin):
    """Moves unit embeddings towards the known ones nearest to them.

    A sound, a sentence or an unseen picture lands beside the embeddings that a decoder was trained on, and what lies beside
    them is drawn badly. Between encoder and decoder unCLIP therefore has a prior, a network of its own (Ramesh et al. 2022,
    section 2.2). Where the known things can be listed, the best guess needs no network: if a prompt is a known point x_i, seen
    n_i times before, through Gaussian noise of precision W W^T / temperature, the mean of what it may have been is

        p(e) = sum_i softmax_i(log n_i - |(e - x_i) W|^2 / (2 temperature)) x_i

    (the posterior of linear discriminant analysis, Fisher 1936, and the estimate of Nadaraya 1964 and Watson 1964). W takes
    the directions in which pictures of one thing differ, colour and style say, for less than those that tell things apart.
    With W = 1 and every n_i alike it is that of von Mises-Fisher noise of concentration 1 / temperature. What is drawn is
    (1 - strength) e + strength p(e) / |p(e)|, brought back to norm 1: strength 0 keeps e.

    Args:
        embed_dim: width of the embeddings.
        count: number of known points.
        temperature: above 0; how far a point is felt. Small ones choose the nearest.
        strength: 0 to 1, what a call uses when it names none.

    Buffers: `points` (count, embed_dim), the known unit vectors; `log_counts` (count), zeros at first; `whitening` W
    (embed_dim, embed_dim), the identity at first.

    Raises:
        InputError: a temperature or a strength outside its range.
    """

    points: Tensor
    log_counts: Tensor
    whitening: Tensor

    @register_to_config
    def __init__(self, embed_dim: int = 256, count: int = 1, temperature: float = 0.03, strength: float = 0.7):
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, got {temperature}")
        check_strength(strength)
        self.register_buffer("points", torch.zeros(count, embed_dim))
        self.register_buffer("log_counts", torch.zeros(count))
        self.register_buffer("whitening", torch.eye(embed_dim))

    def forward(self, embeddings: Tensor, strength: float | None = None) -> Tensor:
        """Unit embeddings (B, embed_dim), moved, in fp32.

        Raises:
            InputError: a strength that is not between 0 and 1.
        """
        strength = check_strength(strength_of(self, strength))
        embeddings = embeddings.float()
        if not strength:
            return embeddings
        points, log_counts, whitening = (
            b.to(embeddings.device, torch.float32) for b in (self.points, self.log_counts, self.whitening)
        )
        keys = points @ whitening

        def expected(row: Tensor) -> Tensor:
            apart = (keys - row @ whitening).square().sum(1)
            return (log_counts - apart / (2 * self.config["temperature"])).softmax(0) @ points

        # one by one: products of matrices round differently with the number of rows, and a prompt's picture should not
        # depend on what is asked for beside it
        known = F.normalize(torch.stack([expected(row) for row in embeddings]), dim=1)
        return F.normalize(torch.lerp(embeddings, known, strength), dim=1)


def move_to_known(prior: EmbeddingPrior | None, strength: float | None = None) -> Callable[[Tensor], Tensor] | None:
    """A prior at that strength, or at its own; None where there is none.

    Raises:
        InputError: a strength that is not between 0 and 1, or one above 0 without a prior.
    """
    if strength is not None:
        check_strength(strength)
    if prior is None:
        if strength:
            raise InputError("this checkpoint has no prior: leave out prior_strength")
        return None
    return lambda embeddings: prior(embeddings, strength)


def strength_of(prior: EmbeddingPrior | None, strength: float | None = None) -> float:
    """How far prompts move: as asked, or as the prior says, 0 without one."""
    if strength is not None:
        return strength
    return 0.0 if prior is None else float(prior.config["strength"])


def check_strength(strength: float) -> float:
    """The strength, if it is one.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"prior_strength must be between 0 and 1, got {strength}")
    return float(strength)
