"""Two sets of pictures compared: folders, ADM's samples, or files of statistics."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from unialign_gen.errors import InputError

from .cmmd import cmmd
from .extractors import Extractor
from .features import features_of, measure, pictures_of_npz
from .frechet import frechet_distance, frechet_infinity
from .kid import kid
from .measure import names_of
from .mind import mind
from .moments import Moments, few_pictures
from .prdc import prdc


def has_pictures(place: Path) -> bool:
    """A folder, or ADM's `.npz` of samples."""
    return place.is_dir() or (place.suffix == ".npz" and place.is_file() and pictures_of_npz(place) is not None)


def compare(
    pictures: Path,
    reference: Path,
    extractor: Extractor,
    subset_size: int = 1000,
    cache: Path | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Every distance that the two allow, with what it is to be read with: of statistics, the Frechet distance alone.

    Args:
        subset_size: of the kernel distance; smaller where a set is smaller.
        cache: a folder that features are kept in.
        strict: a picture that cannot be read is an error, not left out.

    Raises:
        InputError: neither folders of pictures nor files of statistics, or statistics of another extractor or resize.
    """
    frechet, kernel, monge = names_of(extractor)
    about: dict[str, Any] = {"extractor": extractor.name, "resize": extractor.resize}
    if not (has_pictures(pictures) and has_pictures(reference)):
        a, b = (statistics(place, extractor, strict) for place in (pictures, reference))
        sets = {"pictures": a.source.pictures or a.source.extractor, "reference": b.source.pictures or b.source.extractor}
        warn_of_few([m.n for m in (a, b) if m.n], len(a.mean))
        return {**about, "n": a.n or None, "n_reference": b.n or None, **sets, frechet: frechet_distance(a, b)}
    (x, digest_x, without_x), (y, digest_y, without_y) = (
        features_of(extractor, p, cache, strict) for p in (pictures, reference)
    )
    found = {**about, "n": len(x), "n_reference": len(y), "pictures": digest_x, "reference": digest_y}
    if without_x or without_y:
        found["unreadable"] = without_x + without_y
    warn_of_few([len(x), len(y)], x.shape[1])
    found[frechet] = frechet_distance(x, y)
    if len(x) >= 8:
        limit = frechet_infinity(x, y)
        found[f"{frechet}, N -> infinity"], found[f"{frechet}, N -> infinity, error of the fit"] = limit.value, limit.error
    size = min(subset_size, len(x), len(y))
    mean, std = kid(x, y, subset_size=size)
    found |= {kernel: mean, f"{kernel}, deviation of 100 subsets of {size}": std, monge: mind(x, y)}
    if extractor.name.startswith("clip-"):
        found["CMMD"] = cmmd(*(z / z.norm(dim=1, keepdim=True) for z in (x, y)))
    if min(len(x), len(y)) > 5:
        found |= prdc(x, y)._asdict()
    return found


def statistics(place: Path, extractor: Extractor, strict: bool) -> Moments:
    """Of pictures, or from a file, if they are of this extractor.

    Raises:
        InputError: they are of another, or it is neither.
    """
    if has_pictures(place):
        return measure(extractor, place, strict)
    found = Moments.load(place)
    if found.foreign:
        if extractor.distance != "FID":
            raise InputError(f"{place} is of Inception's features, not of {extractor.name}: leave out --extractor")
        warnings.warn(f"{place} does not say of how many pictures, nor after which resize, its statistics are", stacklevel=2)
    elif (found.source.extractor, found.source.resize) != (extractor.name, extractor.resize):
        raise InputError(
            f"the statistics are of {found.source.extractor} after {found.source.resize}, "
            f"not of {extractor.name} after {extractor.resize}"
        )
    return found


def warn_of_few(counts: list[int], width: int) -> None:
    if counts and min(counts) <= width:
        warnings.warn(few_pictures(min(counts), width), stacklevel=3)
