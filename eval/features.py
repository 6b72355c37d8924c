"""Sets of pictures: folders, ADM's samples or files of statistics; their features, extracted once and kept, and compared."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unialign_gen.data.decode import ordered
from unialign_gen.data.storage import write_whole
from unialign_gen.errors import InputError
from unialign_gen.media import load_image
from unialign_gen.media.picture_sets import Picture, digest, open_pictures, pictures_of_npz
from unialign_gen.output import make_folder

from .extractors import Extractor
from .frechet import frechet_distance, frechet_infinity
from .kid import cmmd, kid
from .mind import mind
from .moments import FeatureSource, Moments, moments, warn_of_few
from .prdc import prdc

BATCH = 32


def batches(
    extractor: Extractor,
    pictures: Sequence[Picture],
    batch: int = BATCH,
    unreadable: dict[str, str] | None = None,
) -> Iterator[Tensor]:
    """Features (B, d) of pictures in order, fp32, on the processor; two threads open the next ones while a batch runs.

    A picture that cannot be read is left out and written down in `unreadable`; without it the first is an `InputError`.
    """

    def prepare(picture: Picture) -> Tensor | None:
        try:
            return extractor.prepare(load_image(picture))
        except InputError as error:
            if unreadable is None:
                raise
            unreadable[str(picture)] = str(error)
            return None

    bar = tqdm(total=len(pictures), desc="features", disable=None)
    with bar, ThreadPoolExecutor(2) as pool:
        prepared = ordered(pool, prepare, pictures, 2 * batch)
        while ready := list(islice(prepared, batch)):
            if there := [r for r in ready if r is not None]:
                yield extractor.features(there).cpu()
            bar.update(len(ready))


def extract(
    extractor: Extractor, pictures: Sequence[Picture], batch: int = BATCH, unreadable: dict[str, str] | None = None
) -> Tensor:
    """Features (N, d) of pictures, fp32; those that cannot be read as in `batches`."""
    found = list(batches(extractor, pictures, batch, unreadable=unreadable))
    if not found:
        raise InputError(": ".join(["no pictures to measure", *list((unreadable or {}).values())[:1]]))
    return torch.cat(found).clone()  # no inference tensor leaves


def kept(store: Path, about: Mapping[str, str], make: Callable[[], Tensor], unless: Mapping[str, str] | None = None) -> Tensor:
    """What `make` gives, kept in the file `store` and taken from there while `about` is the same.

    Nothing is kept where something is in `unless` afterwards: what is broken is looked at, and said, again.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    with contextlib.suppress(SafetensorError, FileNotFoundError), safe_open(store, framework="pt") as file:  # or cut off
        if file.metadata() == about:
            return file.get_tensor("features")
    found = make()
    if not unless:
        make_folder(store.parent)
        write_whole(store, save({"features": found.contiguous()}, dict(about)))
    return found


def cached(
    extractor: Extractor, pictures: Sequence[Picture], store: Path, batch: int = BATCH, unreadable: dict[str, str] | None = None
) -> Tensor:
    """`extract`, kept in the file `store` while pictures and extractor are the same."""
    about = {"extractor": extractor.name, "resize": extractor.resize, "pictures": digest(pictures)}
    return kept(store, about, lambda: extract(extractor, pictures, batch, unreadable), unreadable)


def features_of(extractor: Extractor, place: Path, cache: Path | None = None, strict: bool = False) -> tuple[Tensor, str, int]:
    """Features (N, d) of a folder of pictures or of ADM's `.npz` of samples, their digest, and how many were left out.

    Args:
        cache: a folder that features are kept in, by the contents of the pictures and the extractor.
        strict: a picture that cannot be read is an error; otherwise it is left out with a warning.

    Raises:
        InputError: no pictures, or none that can be read.
    """
    found = open_pictures(place)
    unreadable = None if strict else found.unreadable
    if cache is None:
        x = extract(extractor, found.pictures, unreadable=unreadable)
    else:
        key = hashlib.sha256(f"{extractor.name}|{extractor.resize}|{digest(found.pictures)}".encode()).hexdigest()[:24]
        x = cached(extractor, found.pictures, cache / f"{key}.safetensors", unreadable=unreadable)
    return x, found.digest(place), len(found.unreadable)


def measure(extractor: Extractor, place: Path, strict: bool = False) -> Moments:
    """Statistics of pictures in one pass that holds a batch; see `features_of`."""
    opened = open_pictures(place)
    unreadable = None if strict else opened.unreadable
    source = FeatureSource(extractor.name, extractor.resize)
    found = moments(batches(extractor, opened.pictures, unreadable=unreadable), source)
    return replace(found, source=replace(source, pictures=opened.digest(place)))


def has_pictures(place: Path) -> bool:
    """A folder, or ADM's `.npz` of samples."""
    return place.is_dir() or (place.suffix == ".npz" and place.is_file() and pictures_of_npz(place) is not None)


def statistics(place: Path, extractor: Extractor, strict: bool = False) -> Moments:
    """Of pictures, or from a file; an `InputError` if they are of another extractor, or it is neither."""
    if has_pictures(place):
        return measure(extractor, place, strict)
    found = Moments.load(place)
    found.check_comparable(replace(found, source=FeatureSource(extractor.name, extractor.resize)))
    if found.foreign:
        warnings.warn(f"{place} does not say of how many pictures, nor after which resize, its statistics are", stacklevel=2)
    return found


def compare(
    pictures: Path,
    reference: Path,
    extractor: Extractor,
    subset_size: int = 1000,
    cache: Path | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Every distance that two sets allow, with what it is to be read with: of statistics, the Frechet distance alone.

    Args:
        subset_size: of the kernel distance; smaller where a set is smaller.
        cache: a folder that features are kept in.
        strict: a picture that cannot be read is an error, not left out.

    Raises:
        InputError: neither folders of pictures nor files of statistics, or statistics of another extractor or resize.
    """
    frechet, kernel, monge = extractor.distances
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
    found |= {kernel: mean, monge: mind(x, y)}
    if size < max(len(x), len(y)):  # of whole sets there is one
        found[f"{kernel}, deviation of 100 subsets of {size}"] = std
    if extractor.name.startswith("clip-"):
        found["CMMD"] = cmmd(*(z / z.norm(dim=1, keepdim=True) for z in (x, y)))
    return found | (prdc(x, y)._asdict() if min(len(x), len(y)) > 5 else {})
