"""Two sets of pictures compared: folders, or files of statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unialign_gen.errors import InputError

from .extractors import Extractor
from .features import digest, extract, measure, pictures_in
from .frechet import frechet_distance, frechet_infinity, frechet_of_features
from .kid import kernel_distance
from .manifold import manifold
from .measure import names_of
from .moments import Moments


def compare(pictures: Path, reference: Path, extractor: Extractor, subset_size: int = 1000) -> dict[str, Any]:
    """Every distance that the two allow, with what it is to be read with: of statistics, the Frechet distance alone.

    Raises:
        InputError: neither folders of pictures nor files of statistics, or statistics of another extractor or resize.
    """
    frechet, kernel = names_of(extractor)
    about: dict[str, Any] = {"extractor": extractor.name, "resize": extractor.resize}
    if not (pictures.is_dir() and reference.is_dir()):
        a, b = (measure(extractor, pictures_in(p)) if p.is_dir() else Moments.load(p) for p in (pictures, reference))
        for one in (a, b):
            if (one.source.extractor, one.source.resize) != (extractor.name, extractor.resize):
                raise InputError(
                    f"the statistics are of {one.source.extractor} after {one.source.resize}, "
                    f"not of {extractor.name} after {extractor.resize}"
                )
        sets = {"pictures": a.source.pictures, "reference": b.source.pictures}
        return {**about, "n": a.n, "n_reference": b.n, **sets, frechet: frechet_distance(a, b)}
    files, others = pictures_in(pictures), pictures_in(reference)
    x, y = extract(extractor, files), extract(extractor, others)
    found = {**about, "n": len(x), "n_reference": len(y), "pictures": digest(files), "reference": digest(others)}
    found[frechet] = frechet_of_features(x, y)
    if len(x) >= 8:
        limit = frechet_infinity(x, y)
        found[f"{frechet}, N -> infinity"], found[f"{frechet}, N -> infinity, error of the fit"] = limit.value, limit.error
    size = min(subset_size, len(x), len(y))
    if size >= 2:
        mean, std = kernel_distance(x, y, subset_size=size)
        found |= {kernel: mean, f"{kernel}, deviation of 100 subsets of {size}": std}
    if min(len(x), len(y)) > 5:
        found |= manifold(x, y).summary()
    return found
