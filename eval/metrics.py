"""Distances between generated and real pictures as torchmetrics `Metric`s: in Lightning, in a plain loop, over processes.

    fid = FrechetDistance()                       # FID; FrechetDistance("dinov2", weights=FOLDER) in other features
    fid.update(real_pictures, real=True)          # bytes (B, 3, H, W), or features (B, d)
    fid.update(generated_pictures, real=False)
    fid.compute()

Metrics of one encoder share its work through `torchmetrics.wrappers.FeatureShare`. What was seen is part of `state_dict`; the
encoder's weights are not. Each has a functional twin in `unialign_gen.eval.functional`, on features.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from unialign_gen.errors import InputError

from . import extractors
from .frechet import frechet_distance, frechet_infinity
from .kid import cmmd, kid
from .mind import mind
from .moments import FeatureSource, Moments, add_gram, mirrored, warn_of_few
from .prdc import PRDCScores, prdc

__all__ = ["FrechetDistance", "FrechetInfinity", "KernelDistance", "PRDC", "MIND", "CMMD"]


class PictureMetric(Metric):
    """What all have in common: an encoder, and updates with pictures or with features.

    Args:
        encoder: a name for `extractors.load`, which takes `weights` and `resize`; a module from pictures to features (B, d); or
            None for updates with features alone.
        reset_real_features: False keeps the real pictures over `reset`.
        kwargs: those of every torchmetrics `Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False
    feature_network = "encoder"

    def __init__(
        self,
        encoder: str | nn.Module | None = "inception",
        weights: Path | None = None,
        resize: str = "bicubic",
        reset_real_features: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoder = extractors.load(encoder, weights, resize) if isinstance(encoder, str) else encoder
        self.reset_real_features = reset_real_features

    def features(self, pictures: Tensor) -> Tensor:
        """Features (B, d) of pictures (B, 3, H, W); features (B, d) as they are."""
        if pictures.ndim == 2:
            return pictures.detach()
        if self.encoder is None:
            raise InputError("pictures need an encoder: name one, or give features (pictures, width)")
        with torch.no_grad():
            return self.encoder(pictures)

    def reset(self) -> None:
        kept = {n: copy(getattr(self, n)) for n in self._defaults if "real" in n}  # a list is emptied in place
        super().reset()
        if not self.reset_real_features:
            self.__dict__.update(kept)


class FrechetDistance(PictureMetric):
    """Frechet distance of Gaussians (Dowson & Landau 1982): FID in Inception's features (Heusel et al. 2017).

    Holds fp64 sums, whatever the number of pictures. Below as many pictures as features are wide it warns: the distance of two
    samples of one law is then far from 0.

    Raises:
        InputError: at compute, fewer than two pictures on a side.

    Example:
        >>> metric = FrechetDistance(encoder=None)
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> metric.update(x, real=True)
        >>> metric.update(x + 2, real=False)
        >>> round(metric.compute().item(), 6)
        12.0
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for side in ("real", "fake"):
            self.add_state(f"{side}_count", torch.tensor(0), "sum", persistent=True)
            self.add_state(f"{side}_sum", torch.zeros(0).double(), "sum", persistent=True)  # (d,) from the first update on
            self.add_state(f"{side}_outer", torch.zeros(0, 0).double(), "sum", persistent=True)  # (d, d), its upper triangle

    def update(self, pictures: Tensor | Moments, real: bool) -> None:
        """Adds pictures (B, 3, H, W), features (B, d), or statistics that were kept."""
        side = "real" if real else "fake"
        count, total, outer = (getattr(self, f"{side}_{name}") for name in ("count", "sum", "outer"))
        if isinstance(pictures, Moments):
            if pictures.n < 2:
                raise InputError("these statistics do not say of how many pictures they are: use functional.frechet_distance")
            x, weight, spread = pictures.mean[None], pictures.n, (pictures.n - 1) * pictures.cov  # (1, d), n, (d, d)
        else:
            x, weight, spread = self.features(pictures).double(), 1, None  # (B, d)
        if not total.numel():
            total, outer = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
        outer = outer.double()
        add_gram(outer, weight**0.5 * x)
        if spread is not None:
            outer += spread
        for name, value in (("count", count + weight * len(x)), ("sum", total + weight * x.sum(0)), ("outer", outer)):
            setattr(self, f"{side}_{name}", value)

    def moments(self, real: bool) -> Moments:
        """Statistics of one side."""
        side = "real" if real else "fake"
        n, total, outer = (getattr(self, f"{side}_{name}") for name in ("count", "sum", "outer"))
        if n < 2:
            raise InputError(f"at least two {side} pictures are needed, got {int(n)}")
        mean = total / n
        return Moments(mean, (mirrored(outer) - n * torch.outer(mean, mean)) / (n - 1), int(n), FeatureSource("", ""))

    def compute(self) -> Tensor:
        a, b = self.moments(False), self.moments(True)
        warn_of_few([a.n, b.n], len(a.mean))
        return torch.tensor(frechet_distance(a, b), dtype=torch.float64)


class FeatureMetric(PictureMetric):
    """Metrics that keep the features themselves, (N, d) on each side; their options are those of the functional twin.

    At compute an `InputError` says where pictures are too few.
    """

    twin: Callable[..., Any]
    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(self, *args: Any, **kwargs: Any):
        known = list(inspect.signature(self.twin).parameters)[2:]  # after the two sets of features
        self.options = {name: kwargs.pop(name) for name in known if name in kwargs}
        super().__init__(*args, **kwargs)
        self.add_state("real_features", [], "cat", persistent=True)
        self.add_state("fake_features", [], "cat", persistent=True)

    def update(self, pictures: Tensor, real: bool) -> None:
        """Adds pictures (B, 3, H, W) or features (B, d)."""
        (self.real_features if real else self.fake_features).append(self.features(pictures))

    def compute(self) -> Any:
        for name, side in (("generated", self.fake_features), ("real", self.real_features)):
            if not len(side):
                raise InputError(f"there are no {name} pictures: call update(pictures, real={name == 'real'})")
        found = self.twin(dim_zero_cat(self.fake_features), dim_zero_cat(self.real_features), **self.options)
        if isinstance(found, PRDCScores):
            return {name: torch.tensor(value, dtype=torch.float64) for name, value in found._asdict().items()}
        if isinstance(found, tuple):  # KID, and what was fitted without its points
            return tuple(torch.tensor(v, dtype=torch.float64) for v in found[:2])
        return torch.tensor(found, dtype=torch.float64)


class FrechetInfinity(FeatureMetric):
    """The Frechet distance at infinitely many generated pictures (Chong & Forsyth 2020): value, and the fit's standard error.

    Example:
        >>> metric = FrechetInfinity(encoder=None)
        >>> x = torch.randn(4060, 8, generator=torch.Generator().manual_seed(0))
        >>> metric.update(x[:60], real=False)
        >>> metric.update(x[60:], real=True)
        >>> value, error = metric.compute()
        >>> value < frechet_distance(x[:60], x[60:])
        tensor(True)
    """

    twin = staticmethod(frechet_infinity)


class KernelDistance(FeatureMetric):
    """KID (Binkowski et al. 2018): mean and deviation over subsets.

    Example:
        >>> metric = KernelDistance(encoder=None, subset_size=20)
        >>> metric.update(torch.randn(50, 4), real=True)
        >>> metric.update(torch.randn(50, 4) + 9, real=False)
        >>> mean, deviation = metric.compute()
        >>> mean > 3 * deviation
        tensor(True)
    """

    twin = staticmethod(kid)


class PRDC(FeatureMetric):
    """Precision, recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797) by name.

    Example:
        >>> metric, x = PRDC(encoder=None), torch.randn(50, 4)
        >>> metric.update(x, real=True)
        >>> metric.update(x, real=False)
        >>> metric.compute()["recall"].item()
        1.0
    """

    higher_is_better = True
    twin = staticmethod(prdc)


class MIND(FeatureMetric):
    """Monge Inception Distance (arXiv 2605.06797): sliced Wasserstein, for a thousand pictures and more.

    Example:
        >>> metric, x = MIND(encoder=None), torch.randn(50, 4)
        >>> metric.update(x, real=True)
        >>> metric.update(x.flip(0), real=False)
        >>> round(metric.compute().item(), 9)
        0.0
    """

    twin = staticmethod(mind)


class CMMD(FeatureMetric):
    """Squared MMD of unit CLIP embeddings, times 1000 (arXiv 2401.09603). Published numbers are of CLIP ViT-L/14 at 336 pixels.

    Embeddings of pictures are brought to unit length; features given instead of pictures are used as they are.

    Example:
        >>> metric = CMMD(encoder=None)
        >>> metric.update(torch.eye(4), real=True)
        >>> metric.update(-torch.eye(4), real=False)
        >>> round(metric.compute().item(), 2)
        9.9
    """

    twin = staticmethod(cmmd)

    def __init__(self, encoder: str | nn.Module | None = "clip", *args: Any, **kwargs: Any):
        super().__init__(encoder, *args, **kwargs)

    def features(self, pictures: Tensor) -> Tensor:
        return super().features(pictures) if pictures.ndim == 2 else F.normalize(super().features(pictures), dim=1)
