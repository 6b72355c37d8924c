"""Mean and covariance of features, with what makes them comparable, in one file that can be shared."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from unialign_gen.data.storage import write_whole
from unialign_gen.deprecated import renamed
from unialign_gen.errors import InputError, as_input_error

VERSION = 1
INCEPTION = 2048  # width of the features that statistics of other programs are of
FOREIGN = "another program's Inception"


def check_features(*sets: Tensor) -> None:
    """Raises `InputError` unless all are finite features (N, d) of one width d and N is at least 2."""
    for x in sets:
        if x.ndim != 2:
            raise InputError(f"features are rows (pictures, width), got the shape {tuple(x.shape)}")
        if len(x) < 2:
            raise InputError(f"at least 2 pictures are needed on each side, got {len(x)}")
        if not bool(torch.isfinite(x).all()):
            raise InputError("features hold NaN or infinite values: check the pictures and the extractor's weights")
    if len({x.shape[1] for x in sets}) > 1:
        raise InputError(f"features differ in width ({', '.join(str(x.shape[1]) for x in sets)}): extract both alike")


def warn_of_few(counts: list[int], width: int) -> None:
    """Warns of a Frechet distance of no more pictures than features."""
    if counts and min(counts) <= width:
        warnings.warn(
            f"{min(counts)} pictures for {width} features: a Frechet distance is far from 0 even between samples of one law, "
            "compare at equal N only, or look at its limit in N, KID or MIND",
            stacklevel=3,
        )


@dataclass(frozen=True)
class FeatureSource:
    """How features were made: extractor (its name and a digest of its weights), the resize before it, the pictures' digest."""

    extractor: str
    resize: str
    pictures: str = ""


@dataclass(frozen=True)
class Moments:
    """Statistics of features: mean (d,) and unbiased covariance (d, d), fp64, of n pictures; n is 0 where it is not known."""

    mean: Tensor
    cov: Tensor
    n: int
    source: FeatureSource

    @property
    def foreign(self) -> bool:
        """Whether another program made them, which does not say how: they count as any Inception's."""
        return self.source.extractor == FOREIGN

    def check_comparable(self, other: Moments) -> None:
        """Raises `InputError` unless both were made by the same extractor after the same resize."""
        if self.foreign or other.foreign:
            name = (other if self.foreign else self).source.extractor
            if not name.startswith((FOREIGN, "inception-")):
                raise InputError(f"an .npz of statistics is of Inception, not of {name}: leave out --extractor")
            return
        for what in ("extractor", "resize"):
            mine, theirs = getattr(self.source, what), getattr(other.source, what)
            if mine != theirs:
                raise InputError(f"statistics of different {what}s cannot be compared: {mine} and {theirs}; measure both alike")
        if self.mean.shape != other.mean.shape:
            raise InputError(f"statistics of different widths cannot be compared: {len(self.mean)} and {len(other.mean)}")

    def save(self, path: Path) -> None:
        """Writes one safetensors file, in one step; of the covariance its upper triangle."""
        from safetensors.torch import save

        rows, columns = torch.triu_indices(len(self.mean), len(self.mean))
        about = {"version": VERSION, "n": self.n, **vars(self.source)}
        upper = self.cov[rows, columns].contiguous()
        write_whole(path, save({"mean": self.mean, "cov": upper}, {"statistics": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path) -> Moments:
        """What `save` wrote, or an `.npz` of pytorch-fid, clean-fid or ADM.

        Raises:
            InputError: the file is missing, damaged, or no statistics.
        """
        if path.suffix == ".npz":
            return cls.from_npz(path)
        from safetensors import SafetensorError, safe_open

        said = f"{path} is no file of statistics: make one with `unialign-gen eval statistics`"
        with as_input_error(said, OSError, KeyError, ValueError, RuntimeError, IndexError, SafetensorError):
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["statistics"])
                mean, upper = file.get_tensor("mean"), file.get_tensor("cov")
            rows, columns = torch.triu_indices(len(mean), len(mean))
            cov = torch.zeros(len(mean), len(mean), dtype=torch.float64)
            cov[rows, columns] = cov[columns, rows] = upper.double()
            source = FeatureSource(about["extractor"], about["resize"], about["pictures"])
            version, n = about["version"], int(about["n"])
        if version != VERSION:
            raise InputError(f"{path} has statistics of version {version}: this program reads {VERSION}")
        return cls(mean.double(), cov, n, source)

    @classmethod
    def from_npz(cls, path: Path) -> Moments:
        """Arrays `mu` (d,) and `sigma` (d, d); they do not say of how many pictures. Errors as in `load`."""
        said = f"{path} holds no statistics: an .npz has arrays mu (d,) and sigma (d, d)"
        kinds = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
        with as_input_error(said, *kinds), np.load(path, allow_pickle=False) as file:
            mean, cov = (torch.from_numpy(np.asarray(file[name], dtype=np.float64)) for name in ("mu", "sigma"))
        if mean.shape != (INCEPTION,) or cov.shape != (INCEPTION, INCEPTION):
            raise InputError(f"{path} is of features {tuple(mean.shape)}: statistics of Inception are {INCEPTION} wide")
        if not bool(torch.isfinite(mean).all() and torch.isfinite(cov).all()):
            raise InputError(f"{path} holds NaN or infinite values")
        return cls(mean, cov, 0, FeatureSource(FOREIGN, "not said"))


def moments(batches: Iterable[Tensor], source: FeatureSource) -> Moments:
    """Statistics of features that come batch by batch (B, d): fp64 sums around the first batch's mean.

    Raises:
        InputError: fewer than two pictures, or features that are not finite.
    """
    n, start = 0, None
    for batch in batches:
        x = batch.double()  # (B, d)
        if start is None:
            start = x.mean(0)
            total, outer = torch.zeros_like(start), torch.zeros(len(start), len(start), dtype=torch.float64, device=x.device)
        x = x - start
        n += len(x)
        total += x.sum(0)
        add_gram(outer, x)
    if start is None or n < 2:
        raise InputError(f"statistics need at least two pictures, got {n}")
    if not bool(torch.isfinite(total).all()):
        raise InputError("features hold NaN or infinite values: check the extractor's weights")
    shift = total / n
    return Moments(start + shift, (mirrored(outer) - n * torch.outer(shift, shift)) / (n - 1), n, source)


def add_gram(total: Tensor, x: Tensor) -> None:
    """Adds x^T x of rows (B, d) to the upper triangle of `total` (d, d) in place, fp64: by BLAS half the work of the whole."""
    if x.device.type == "cpu" and len(x):
        dsyrk(1.0, x.numpy().T, beta=1.0, c=total.numpy().T, lower=1, overwrite_c=1)  # columns first, as BLAS counts
    else:
        total.addmm_(x.T, x)


def mirrored(upper: Tensor) -> Tensor:
    """The symmetric matrix with this upper triangle (d, d)."""
    return upper.triu() + upper.triu(1).T


__getattr__ = renamed(__name__, {"Source": "FeatureSource"})
