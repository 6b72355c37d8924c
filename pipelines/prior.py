"""What lies between a prompt's embedding and the decoder: a guess at the embedding of a picture that the prompt may mean."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from unialign_gen.errors import InputError

Draw = torch.Generator | int | None
Draws = Draw | Sequence[torch.Generator] | Sequence[int]
FEWEST = 4  # pictures of a thing that say how pictures of it differ
STREAM = 1 << 62  # so that the prior's numbers and the decoder's first noise, of one seed, have nothing to do with each other


class EmbeddingPrior(ModelMixin, ConfigMixin):
    """Moves unit embeddings towards the known ones nearest to them, and draws what a prompt leaves open.

    A sound, a sentence or an unseen picture lands beside the embeddings that a decoder was trained on, and what lies beside
    them is drawn badly. Between encoder and decoder unCLIP therefore has a prior, a network of its own that samples (Ramesh
    et al. 2022, section 2.2). Where the known things can be listed, a linear Gaussian model needs no network. Pictures of a
    thing with the mean x_i, seen n_i times before, differ by Gaussian noise whose precision is W W^T. The mean of the thing
    that a prompt e may be is

        p(e) = sum_i softmax_i(log n_i - |(e - x_i) W|^2 / (2 bandwidth)) x_i

    (the posterior of linear discriminant analysis, Fisher 1936, and the estimate of Nadaraya 1964 and Watson 1964; with W = 1
    and every n_i alike that of von Mises-Fisher noise of concentration 1 / bandwidth). The prompt moves only in the
    directions that tell things apart, by the matrix A, and keeps what it says of the others, a colour or a number say:

        m(e) = e + strength (p(e) / |p(e)| - e) A

    and what it does not say is drawn, from how pictures of one thing differ: z = m(e) + temperature * noise W^-1. The noise is
    Gaussian or, where the prior keeps `pictures`, how one of those of the likeliest thing differs from it: a point where a
    picture was is drawn better than one where none was; seeds that follow each other go through all of them before any
    repeats. A thing that has fewer than four stays at its mean.
    Along the directions that prompts name, rows of `named`, there is the less noise the more the prompt says of them. The
    result is brought back to norm 1.

    Args:
        embed_dim: width of the embeddings.
        count: number of known points.
        bandwidth: above 0; how far a point is felt, in squared standard deviations. Small ones choose the nearest.
        strength: 0 to 1, what a call uses when it names none.
        directions: how many directions prompts name. None: A is the identity, and no direction is spared from the noise.
        temperature: what pictures are drawn at where a call names none; embeddings are at 0 then.
        said: how far along these a prompt lies from its thing that says everything of them, in standard deviations.
        likeliest: p(e) is the likeliest point in place of the mean: what lies between points is drawn less well.
        pictures: number of pictures of points whose differences are kept; 0: the noise is Gaussian.

    Buffers: `points` (count, embed_dim), the known unit vectors; `log_counts` (count), zeros at first; `whitening` W
    (embed_dim, embed_dim), the identity at first; and, unless `directions` is None, `moves` A (embed_dim, embed_dim), the
    identity at first, and `named` (directions, embed_dim), orthonormal rows in whitened coordinates; and with `pictures`
    `deviations` (pictures, embed_dim), how each differs from its point, in whitened coordinates, and `shows` (pictures), the
    places of their points.

    Raises:
        InputError: a bandwidth or a strength outside its range.

    >>> prior = EmbeddingPrior(embed_dim=2, count=2, bandwidth=0.1, strength=0.5)
    >>> _ = prior.points.copy_(torch.eye(2))
    >>> prior(torch.tensor([[0.8, 0.6]]))
    tensor([[0.9253, 0.3793]])
    >>> prior(torch.tensor([[0.8, 0.6]]), strength=0.0)
    tensor([[0.8000, 0.6000]])
    """

    points: Tensor
    log_counts: Tensor
    whitening: Tensor
    moves: Tensor
    named: Tensor
    deviations: Tensor
    shows: Tensor

    @register_to_config
    def __init__(
        self,
        embed_dim: int = 256,
        count: int = 1,
        bandwidth: float = 0.03,
        strength: float = 0.7,
        directions: int | None = None,
        said: float = 3.0,
        temperature: float = 0.0,
        likeliest: bool = False,
        pictures: int = 0,
    ):
        super().__init__()
        if not bandwidth > 0:
            raise InputError(f"bandwidth must be above 0, got {bandwidth}")
        check_prior(self, strength)
        self.register_buffer("points", torch.zeros(count, embed_dim))
        self.register_buffer("log_counts", torch.zeros(count))
        self.register_buffer("whitening", torch.eye(embed_dim))
        if directions is not None:
            self.register_buffer("moves", torch.eye(embed_dim))
            self.register_buffer("named", torch.zeros(directions, embed_dim))
        if pictures:
            self.register_buffer("deviations", torch.zeros(pictures, embed_dim))
            self.register_buffer("shows", torch.zeros(pictures, dtype=torch.long))

    def forward(
        self,
        embeddings: Tensor,
        strength: float | None = None,
        temperature: float = 0.0,
        generator: Draws = None,
    ) -> Tensor:
        """Unit embeddings (B, embed_dim), moved, in fp32.

        Args:
            embeddings: unit embeddings of prompts, (B, embed_dim).
            strength: 0 keeps them, 1 moves them all the way; the prior's own by default.
            temperature: 0 gives the mean; 1 differs as pictures of one thing do.
            generator: where the draw comes from, a generator or a seed: one for each row, where rows with the same seed share
                their draw, or one for all: row i of B draws by seed * B + i.

        Raises:
            InputError: a strength that is not between 0 and 1, a temperature below 0, or generators that are not one a row.
        """
        check_prior(self, strength, temperature)
        strength = strength_of(self, strength)
        embeddings = embeddings.float()
        if not strength and not temperature:
            return embeddings
        # one by one: products of matrices round differently with the number of rows, and a prompt's picture should not
        # depend on what is asked for beside it
        found, things = zip(*(self._expected(row) for row in embeddings), strict=True)
        known = F.normalize(torch.stack(found), dim=1)  # (B, d)
        moved = torch.stack([self._moved(e, k, strength) for e, k in zip(embeddings, known, strict=True)])
        if temperature:
            whitening = self.whitening.to(embeddings.device, torch.float32)
            rows = zip(embeddings - known, things, each(generator, len(known)), strict=True)
            moved = moved + temperature * torch.stack([self._noise(*row, whitening) for row in rows])
        return F.normalize(moved, dim=1)

    def log_weights(self, row: Tensor) -> Tensor:
        """What p(e) takes the softmax of (count,): how likely an embedding (d,) is of each of the known things."""
        points, log_counts, whitening = (
            b.to(row.device, torch.float32) for b in (self.points, self.log_counts, self.whitening)
        )
        apart = ((points - row) @ whitening).square().sum(1)  # (count,)
        return log_counts - apart / (2 * self.config["bandwidth"])

    def without_named(self, offset: Tensor) -> Tensor:
        """A difference of embeddings (d,) without what it has along the directions that prompts name, colours say."""
        if not self.config["directions"]:
            return offset
        whitening, named = (b.to(offset.device, torch.float32) for b in (self.whitening, self.named))
        white = offset.float() @ whitening
        return torch.linalg.solve(whitening.T, white - (white @ named.T) @ named).to(offset)

    def _expected(self, row: Tensor) -> tuple[Tensor, int]:
        """p(e) of a prompt (d,), and the likeliest point's place."""
        weights, points = self.log_weights(row), self.points.to(row.device, torch.float32)
        thing = int(weights.argmax())
        return points[thing] if self.config["likeliest"] else weights.softmax(0) @ points, thing

    def _moved(self, e: Tensor, known: Tensor, strength: float) -> Tensor:
        """m(e) of a prompt (d,) whose thing is `known` (d,)."""
        if self.config["directions"] is None:
            return torch.lerp(e, known, strength)
        return e + strength * (known - e) @ self.moves.to(e.device, torch.float32)

    def _noise(self, offset: Tensor, thing: int, draw: Draw, whitening: Tensor) -> Tensor:
        """How another picture of the same thing might differ (d,); `offset` (d,) is how the prompt itself does."""
        if self.config["pictures"]:
            own = self.deviations[self.shows == thing].float()
            noise = own[one_of(len(own), draw)] if len(own) >= FEWEST else torch.zeros_like(offset)
        else:
            generator = torch.Generator().manual_seed(draw ^ STREAM) if isinstance(draw, int) else draw
            noise = torch.randn(len(offset), generator=generator, device=generator.device if generator else "cpu")
        noise = noise.to(offset.device)
        if self.config["directions"]:
            named = self.named.to(offset.device, torch.float32)  # (k, d)
            said = ((offset @ whitening) @ named.T).norm() / self.config["said"]
            noise = noise - said.clamp(max=1) * (noise @ named.T) @ named
        return torch.linalg.solve(whitening.T, noise)  # noise W^-1


def one_of(count: int, draw: Draw) -> int:
    """A place below `count`: any by a generator; by seeds that follow each other every one, in one shuffled order."""
    if isinstance(draw, int):
        return int(torch.randperm(count, generator=torch.Generator().manual_seed(count))[draw % count])
    return int(torch.randint(count, (), generator=draw, device=draw.device if draw else "cpu"))


def each(generator: Draws, count: int) -> Sequence[Draw]:
    """A generator or a seed for each of `count` rows.

    Raises:
        InputError: there are several, and not as many as rows.
    """
    if isinstance(generator, int | Integral):
        return [int(generator) * count + i for i in range(count)]
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * count
    if len(generator) != count:
        raise InputError(f"{len(generator)} generators for {count} pictures: give one, or one for each")
    return [int(draw) if isinstance(draw, int | Integral) else draw for draw in generator]


def strength_of(prior: EmbeddingPrior | None, strength: float | None = None) -> float:
    """How far prompts move: as asked, or as the prior says, 0 without one."""
    if strength is not None:
        return strength
    return 0.0 if prior is None else float(prior.config["strength"])


def temperature_of(prior: EmbeddingPrior | None, strength: float | None = None) -> float:
    """What pictures are drawn at where a call names no temperature: the prior's own, 0 without one or at strength 0."""
    return 0.0 if prior is None or strength == 0 else float(prior.config.get("temperature", 0.0))


def check_prior(prior: EmbeddingPrior | None, strength: float | None, temperature: float = 0.0) -> None:
    """Whether a prior, or none, can do what is asked of it.

    Raises:
        InputError: a strength that is not between 0 and 1, a temperature below 0, or either above 0 without a prior.
    """
    if strength is not None and not 0 <= strength <= 1:
        raise InputError(f"prior_strength must be between 0 and 1, got {strength}")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"the prior's temperature must be 0 or more, got {temperature}")
    if prior is None and (strength or temperature):
        raise InputError("this checkpoint has no prior: leave out prior_strength and prior_temperature")
