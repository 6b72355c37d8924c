"""Mean and covariance of features, with what makes them comparable, in one file that can be shared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unialign_gen.errors import InputError

VERSION = 1


@dataclass(frozen=True)
class Source:
    """How features were made: extractor (its name and a digest of its weights), the resize before it, the pictures' digest."""

    extractor: str
    resize: str
    pictures: str = ""


@dataclass(frozen=True)
class Moments:
    """Statistics of features: mean (d,) and unbiased covariance (d, d), fp64, of n pictures."""

    mean: Tensor
    cov: Tensor
    n: int
    source: Source

    def check_comparable(self, other: Moments) -> None:
        """Raises `InputError` unless both were made by the same extractor after the same resize."""
        for what in ("extractor", "resize"):
            mine, theirs = getattr(self.source, what), getattr(other.source, what)
            if mine != theirs:
                raise InputError(f"statistics of different {what}s cannot be compared: {mine} and {theirs}; measure both alike")
        if self.mean.shape != other.mean.shape:
            raise InputError(f"statistics of different widths cannot be compared: {len(self.mean)} and {len(other.mean)}")

    def save(self, path: Path) -> None:
        """Writes one safetensors file, in one step; of the covariance its upper triangle."""
        from safetensors.torch import save_file

        rows, columns = torch.triu_indices(len(self.mean), len(self.mean))
        about = {"version": VERSION, "n": self.n, **vars(self.source)}
        part = path.with_name(path.name + ".part")
        save_file({"mean": self.mean, "cov": self.cov[rows, columns].contiguous()}, part, {"statistics": json.dumps(about)})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Moments:
        """What `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or no statistics.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["statistics"])
                mean, upper = file.get_tensor("mean"), file.get_tensor("cov")
            if about["version"] != VERSION:
                raise InputError(f"{path} has statistics of version {about['version']}: this program reads {VERSION}")
            rows, columns = torch.triu_indices(len(mean), len(mean))
            cov = torch.zeros(len(mean), len(mean), dtype=torch.float64)
            cov[rows, columns] = cov[columns, rows] = upper.double()
            source = Source(about["extractor"], about["resize"], about["pictures"])
        except (OSError, KeyError, ValueError, RuntimeError, IndexError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no file of statistics: make one with `unialign-gen eval statistics`") from error
        return cls(mean.double(), cov, int(about["n"]), source)


def moments(batches: Iterable[Tensor], source: Source) -> Moments:
    """Statistics of features that come batch by batch (B, d): fp64 sums around the first batch's mean.

    Raises:
        InputError: fewer than two pictures, or features that are not finite.
    """
    n, start = 0, None
    for batch in batches:
        x = batch.double()
        if start is None:
            start = x.mean(0)
            total, outer = torch.zeros_like(start), torch.zeros(len(start), len(start), dtype=torch.float64, device=x.device)
        x = x - start
        n += len(x)
        total += x.sum(0)
        outer.addmm_(x.T, x)
    if start is None or n < 2:
        raise InputError(f"statistics need at least two pictures, got {n}")
    if not bool(torch.isfinite(total).all()):
        raise InputError("features hold NaN or infinite values: check the extractor's weights")
    shift = total / n
    cov = (outer - n * torch.outer(shift, shift)) / (n - 1)
    return Moments(start + shift, (cov + cov.T) / 2, n, source)
