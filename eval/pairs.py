"""Two sets of features as their dot products, from which every distance between any parts of the sets follows at once.

Mean, covariance and kernel distances only need dot products: resampling then costs a small decomposition, not a pass over the
features. Memory is O((N + M)^2) fp64; meant for sets of up to some thousands, which is where intervals are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .frechet import distance
from .kid import polynomial_kernel, squared_mmd


@dataclass(frozen=True)
class Pair:
    """Dot products of generated (N) and real (M) features: fake (N, N), cross (N, M), real (M, M); their width d."""

    fake: Tensor
    cross: Tensor
    real: Tensor
    width: int

    @classmethod
    def of(cls, fake: Tensor, real: Tensor) -> Pair:
        """From features (N, d) and (M, d)."""
        x, y = fake.double(), real.double()
        return cls(x @ x.T, x @ y.T, y @ y.T, x.shape[1])

    def take(self, fake: Sequence[int] | Tensor, real: Sequence[int] | Tensor) -> Pair:
        """The same for some rows of each."""
        f, r = torch.as_tensor(fake), torch.as_tensor(real)
        return Pair(self.fake[f][:, f], self.cross[f][:, r], self.real[r][:, r], self.width)

    def frechet(self) -> float:
        """The Frechet distance, see `frechet`: tr (S1 S2)^(1/2) = |C X Y^T C|_* / sqrt((N - 1) (M - 1)), C centring."""
        n, m = self.cross.shape
        centred = self.cross - self.cross.mean(0) - self.cross.mean(1, keepdim=True) + self.cross.mean()
        root = float(torch.linalg.svdvals(centred).sum()) / ((n - 1) * (m - 1)) ** 0.5
        between = (self.fake.mean() + self.real.mean() - 2 * self.cross.mean()).clamp(min=0).sqrt().reshape(1)
        traces = [float(k.trace() - k.mean() * len(k)) / (len(k) - 1) for k in (self.fake, self.real)]
        return distance(between, torch.zeros_like(between), traces[0], traces[1], root)

    def kid(self) -> float:
        """Unbiased squared MMD over all rows, see `kid`."""
        return squared_mmd(*(polynomial_kernel(k, self.width) for k in (self.fake, self.cross, self.real)))
