"""What lies between a prompt's embedding and the decoder: a guess at the embedding of a picture that the prompt may mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from unialign_gen.errors import InputError

Draw = torch.Generator | int | None
Draws = Draw | Sequence[torch.Generator] | Sequence[int]
FEWEST = 4  # pictures of a thing that say how pictures of it differ
SAID = {"colour": 0.5, "layout": 0.001}  # shares of prompts that say one, but for pictures, which all have their colours
FIDELITY = 250.0  # what a cosine counts beside half a squared distance: two pictures 0.1 apart are 25, as far as things differ
STEPS = 6  # of the values of neighbours, in a standard deviation
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
    and every n_i alike that of von Mises-Fisher noise of concentration 1 / bandwidth). A picture as a prompt lies among other
    pictures, and those of a thing, faces and whole figures say, need not lie about one mean. So for pictures the weight of a
    thing is a sum over its own (a kernel density, Parzen 1962), of one bandwidth, where the prior keeps them as `neighbours`:
    in few directions, those in which things differ most, and in eight bits. Things may be of `kinds`, as pandas and polar
    bears are bears: then it is the likeliest thing of the likeliest kind, whose weight is the sum over its things (mixture
    discriminant analysis, Hastie & Tibshirani 1996). How the prompt differs from its thing,
    r = e - p(e) / |p(e)|, is error, but for what it says. If it says a colour, the part of r along the colours' directions
    stays; if it says a layout, three of them or two beside each other, it is no one thing, and all of r stays. Both are known
    by how known pictures are moved by them: of a colour or layout j in whitened coordinates by c_j, in the mean, and by
    c_0 = 0 where nothing is said. The share of it that stays is the posterior

        g = 1 - softmax_j(log(n (1 - s) / s) [j = 0] - |r W V^T - c_j|^2 / (2 spread^2))_0

    of n colours, or layouts, whose directions are the rows of V, and which a share s of prompts say: half of them a colour,
    few a layout. A picture has its colours: there g is 1. So with g for colours and h for layouts

        m(e) = e + strength (p(e) / |p(e)| + h r + (1 - h) g r W V^T V W^-1 - e)

    and what the prompt does not say is drawn, from how pictures of one thing differ: z = m(e) + temperature * noise W^-1. The
    noise is Gaussian or, where the prior keeps `pictures`, how one of those of the likeliest thing differs from it: a point
    where a picture was is drawn better than one where none was. A picture as a prompt has those of all things of the kind.
    Seeds that follow each other go through all of them, those nearest to the prompt first, before any repeats; where a decoder
    draws some better than others, which the prior may know by their `fidelity`, a text or a sound has these a little earlier. A
    thing that has fewer than four stays at its mean. There is the less
    noise along the directions of colours the more the prompt says one, and the less at all the more it says a layout. The
    result is brought back to norm 1.

    Args:
        embed_dim: width of the embeddings.
        count: number of known points.
        bandwidth: above 0; how far a point is felt, in squared standard deviations. Small ones choose the nearest.
        strength: 0 to 1, what a call uses when it names none.
        colours, layouts: how many are known, and how many directions they have; none by default.
        neighbours: how many pictures are kept that picture prompts are compared with, and in how many directions.
        spread: how far what a prompt says lies from that, in standard deviations of pictures of one thing.
        temperature: what pictures are drawn at where a call names none; embeddings are at 0 then.
        likeliest: p(e) is the likeliest point in place of the mean: what lies between points is drawn less well.
        kinds: how many kinds things are of, 0 where each is its own.
        pictures: number of pictures of points whose differences are kept; 0: the noise is Gaussian.
        picture_bandwidth: that of the kernels about neighbours.
        fidelities: whether it is known how well each of `pictures` is drawn.

    Buffers: `points` (count, embed_dim), the known unit vectors; `log_counts` (count), zeros at first; `whitening` W
    (embed_dim, embed_dim), the identity at first; with `kinds` `kind_of` (count), the number of each point's; with `colours`
    (n, k) `colour_axes` (k, embed_dim), orthonormal rows V in whitened coordinates, and `colour_shifts` (n, k), the c_j; the
    same with `layouts`; with `neighbours` (n, k) `neighbour_axes` (k, embed_dim), orthonormal rows too, `neighbour_values`
    (n, k), int8, of sixths of a standard deviation, and `neighbour_shows` (n), the places of their points; and with
    `pictures` `deviations` (pictures, embed_dim), how each differs from its point, in whitened coordinates, and `shows`
    (pictures), the places of their points; with `fidelities` `fidelity` (pictures), the cosine of what a decoder draws of
    each to that, both as embeddings.

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
    kind_of: Tensor
    colour_axes: Tensor
    colour_shifts: Tensor
    layout_axes: Tensor
    layout_shifts: Tensor
    neighbour_axes: Tensor
    neighbour_values: Tensor
    neighbour_shows: Tensor
    deviations: Tensor
    shows: Tensor
    fidelity: Tensor

    @register_to_config
    def __init__(
        self,
        embed_dim: int = 256,
        count: int = 1,
        bandwidth: float = 0.03,
        strength: float = 0.7,
        colours: tuple[int, int] | None = None,
        layouts: tuple[int, int] | None = None,
        neighbours: tuple[int, int] | None = None,
        spread: float = 0.7,
        temperature: float = 0.0,
        likeliest: bool = False,
        kinds: int = 0,
        pictures: int = 0,
        picture_bandwidth: float = 12.0,
        fidelities: bool = False,
    ):
        super().__init__()
        if not bandwidth > 0:
            raise InputError(f"bandwidth must be above 0, got {bandwidth}")
        check_prior(self, strength)
        self._white, self._made_of = torch.empty(0), list[Any]()  # see `_white_points`
        self.register_buffer("points", torch.zeros(count, embed_dim))
        self.register_buffer("log_counts", torch.zeros(count))
        self.register_buffer("whitening", torch.eye(embed_dim))
        if kinds:
            self.register_buffer("kind_of", torch.zeros(count, dtype=torch.long))
        for name, sizes in (("colour", colours), ("layout", layouts)):
            if sizes:
                self.register_buffer(f"{name}_axes", torch.zeros(sizes[1], embed_dim))
                self.register_buffer(f"{name}_shifts", torch.zeros(*sizes))
        if neighbours:
            self.register_buffer("neighbour_axes", torch.zeros(neighbours[1], embed_dim))
            self.register_buffer("neighbour_values", torch.zeros(*neighbours, dtype=torch.int8))
            self.register_buffer("neighbour_shows", torch.zeros(neighbours[0], dtype=torch.long))
        if pictures:
            self.register_buffer("deviations", torch.zeros(pictures, embed_dim))
            self.register_buffer("shows", torch.zeros(pictures, dtype=torch.long))
            if fidelities:
                self.register_buffer("fidelity", torch.zeros(pictures))

    def forward(
        self,
        embeddings: Tensor,
        strength: float | None = None,
        temperature: float = 0.0,
        generator: Draws = None,
        pictures: Sequence[bool] | None = None,
    ) -> Tensor:
        """Unit embeddings (B, embed_dim), moved, in fp32.

        Args:
            embeddings: unit embeddings of prompts, (B, embed_dim).
            strength: 0 keeps them, 1 moves them all the way; the prior's own by default.
            temperature: 0 gives the mean; 1 differs as pictures of one thing do.
            generator: where the draw comes from, a generator or a seed: one for each row, where rows with the same seed share
                their draw, or one for all: row i of B draws by seed * B + i.
            pictures: which rows (B,) are embeddings of pictures; none by default.

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
        draws = each(generator, len(embeddings))
        rows = zip(embeddings, draws, pictures or [False] * len(embeddings), strict=True)
        moved = [self._moved(e, strength, temperature, draw, picture) for e, draw, picture in rows]
        return F.normalize(torch.stack(moved), dim=1)

    def log_weights(self, row: Tensor, picture: bool = False) -> Tensor:
        """What p(e) takes the softmax of (count,): how likely an embedding (d,), of a picture or not, is of each thing."""
        log_counts, whitening = (b.to(row.device, torch.float32) for b in (self.log_counts, self.whitening))
        if picture and self.config["neighbours"]:
            here = row @ whitening @ self.neighbour_axes.to(whitening).T * STEPS
            near = (self.neighbour_values.to(here) - here).square().sum(1) / (-2 * STEPS**2 * self.config["picture_bandwidth"])
            most = near.max()
            shows = self.neighbour_shows.to(row.device)
            return torch.zeros_like(log_counts).index_add_(0, shows, (near - most).exp()).log() + most
        apart = (self._white_points(row.device) - row @ whitening).square().sum(1)  # (count,)
        return log_counts - apart / (2 * self.config["bandwidth"])

    def _white_points(self, device: torch.device) -> Tensor:
        """The points in whitened coordinates (count, embed_dim), fp32; kept, since most of the work is there."""
        made_of = [(b.data_ptr(), b._version, b.dtype, device) for b in (self.points, self.whitening)]
        if made_of != self._made_of:
            points, whitening = (b.to(device, torch.float32) for b in (self.points, self.whitening))
            self._white, self._made_of = points @ whitening, made_of
        return self._white

    def likeliest(self, row: Tensor, picture: bool = False, evidence: Tensor | None = None) -> int:
        """The place of the thing that an embedding (d,), of a picture or not, is most likely of; `evidence` (count,) is what
        else says so, as logarithms.
        """
        weights = self.log_weights(row, picture)
        if evidence is not None:
            weights = weights + evidence.to(weights)
        if self.config["kinds"]:
            kind_of = self.kind_of.to(row.device)
            of_kinds = weights.new_zeros(self.config["kinds"]).index_add_(0, kind_of, (weights - weights.max()).exp())
            weights = weights.masked_fill(kind_of != of_kinds.argmax(), -math.inf)
        return int(weights.argmax())

    def arranged(self, row: Tensor) -> bool:
        """Whether an embedding (d,) says a number, a layout or a ground more than one thing."""
        known, _ = self._expected(row.float(), picture=False)
        return self._said((row.float() - known) @ self.whitening.to(row.device, torch.float32), "layout") > 0.5

    def of_one_thing(self, row: Tensor) -> Tensor:
        """An embedding (d,) of a prompt that says no number and no layout, without what it has along the directions of these.

        Its encoder may say one all the same, of words such as "roaring" that it has read beside two things only.
        """
        known, _ = self._expected(row.float(), picture=False)
        return F.normalize(known + self._without("layout", row.float() - known), dim=0).to(row)

    def without_colour(self, offset: Tensor) -> Tensor:
        """A difference of embeddings (d,) without what it has along the directions of colours."""
        return self._without("colour", offset.float()).to(offset)

    def _without(self, name: str, offset: Tensor) -> Tensor:
        """A difference of embeddings (d,) without what is along the directions of colours or of layouts."""
        if not self.config[f"{name}s"]:
            return offset
        whitening = self.whitening.to(offset.device, torch.float32)
        white = offset @ whitening
        return torch.linalg.solve(whitening.T, white - self._along(name, white))

    def _along(self, name: str, white: Tensor) -> Tensor:
        """What of a difference (d,) in whitened coordinates is along the directions of colours or of layouts."""
        axes = self.get_buffer(f"{name}_axes").to(white)
        return (white @ axes.T) @ axes

    def _expected(self, row: Tensor, picture: bool) -> tuple[Tensor, int]:
        """p(e) / |p(e)| of a prompt (d,), and the likeliest point's place."""
        points, thing = self.points.to(row.device, torch.float32), self.likeliest(row, picture)
        mean = points[thing] if self.config["likeliest"] else self.log_weights(row, picture).softmax(0) @ points
        return F.normalize(mean, dim=0), thing

    def _moved(self, e: Tensor, strength: float, temperature: float, draw: Draw, picture: bool) -> Tensor:
        """z of a prompt (d,), of any norm."""
        known, thing = self._expected(e, picture)
        whitening = self.whitening.to(e.device, torch.float32)
        apart = (e - known) @ whitening  # r W
        layout = self._said(apart, "layout")
        said = layout * apart
        noise = self._noise(apart, thing, temperature, draw, picture) if temperature else torch.zeros_like(apart)
        if self.config["colours"]:
            colour = 1.0 if picture else self._said(apart, "colour")
            said = said + (1 - layout) * colour * self._along("colour", apart)
            noise = noise - colour * self._along("colour", noise)
        return torch.lerp(e, known, strength) + torch.linalg.solve(whitening.T, strength * said + (1 - layout) * noise)

    def _said(self, apart: Tensor, name: str) -> float:
        """How surely a prompt that differs by r W (d,) from its thing says a colour, or a layout, 0 to 1."""
        if not self.config[f"{name}s"]:
            return 0.0
        axes, shifts = (self.get_buffer(f"{name}_{part}").to(apart) for part in ("axes", "shifts"))
        logits = -(apart @ axes.T - F.pad(shifts, (0, 0, 1, 0))).square().sum(1) / (2 * self.config["spread"] ** 2)  # (1 + n,)
        logits[0] += math.log(len(shifts) * (1 - SAID[name]) / SAID[name])
        return 1 - float(logits.softmax(0)[0])

    def _noise(self, apart: Tensor, thing: int, temperature: float, draw: Draw, picture: bool) -> Tensor:
        """How another picture of the same thing might differ from it (d,), in whitened coordinates; `apart` is how the prompt
        does. For a picture it is one of any thing of the kind.
        """
        if not self.config["pictures"]:
            generator = torch.Generator().manual_seed(draw ^ STREAM) if isinstance(draw, int) else draw
            device = generator.device if generator else "cpu"
            return temperature * torch.randn(len(apart), generator=generator, device=device).to(apart)
        known = self.shows == thing
        if picture and self.config["kinds"]:
            known = self.kind_of[self.shows] == self.kind_of[thing]
        own = self.deviations[known].to(apart)
        if len(own) < FEWEST:
            return torch.zeros_like(apart)
        between = (self.points[self.shows[known]] - self.points[thing]).to(apart) @ self.whitening.to(apart)
        if isinstance(draw, int):
            near = (between + own - apart).square().sum(1) / 2
            if self.config["fidelities"] and not picture:  # a picture says all of what it shows
                near = near - FIDELITY * self.fidelity[known].to(near)
            chosen = near.argsort(stable=True)[draw % len(own)]
        else:
            chosen = torch.randint(len(own), (), generator=draw, device=draw.device if draw else "cpu")
        return between[chosen] + temperature * own[chosen]


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
