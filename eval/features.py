"""Features of many pictures, extracted once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unialign_gen.errors import InputError
from unialign_gen.media import load_image
from unialign_gen.output import make_folder

from .extractors import Extractor
from .moments import FeatureSource, Moments, moments

BATCH = 32
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}  # of files that are meant as pictures
Picture = Path | Image.Image


@dataclass
class PictureFolder:
    """The pictures of a folder and of those below it, recognised by their content, sorted by name.

    unreadable: pictures that turn out broken when they are read, each with the reason. others: how many files are no pictures.
    """

    files: list[Path]
    others: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def readable(self, place: Path, pictures: Sequence[Picture]) -> list[Picture]:
        """The pictures without those that could not be read; warns of what was left out."""
        if self.others:
            warnings.warn(f"{place}: {self.others} files are no pictures and were left out", stacklevel=3)
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            warnings.warn(f"{len(self.unreadable)} pictures cannot be read and were left out: {first}", stacklevel=3)
        return [p for p in pictures if str(p) not in self.unreadable]


def picture_folder(folder: Path) -> PictureFolder:
    """The pictures in a folder: every file that Pillow can identify, whatever its name; hidden files are left out.

    A file that is named like a picture counts as one even if it cannot be identified, so that it is reported when it is read.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give a folder of pictures, or a file of statistics")
    found = PictureFolder([])
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if path.suffix.lower() in SUFFIXES or is_picture(path):
            found.files.append(path)
        else:
            found.others += 1
    if not found.files:
        raise InputError(f"no pictures in {folder}")
    return found


def is_picture(path: Path) -> bool:
    with contextlib.suppress(Exception), Image.open(path):  # Pillow's parsers raise whatever they meet
        return True
    return False


def pictures_of_npz(path: Path) -> list[Image.Image] | None:
    """ADM's file of samples, `arr_0` (N, H, W, 3) bytes, as pictures; None if the file holds something else.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if "mu" in file or "arr_0" not in file:
                return None
            stack = file["arr_0"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if stack.ndim != 4 or stack.shape[3] != 3 or stack.dtype != np.uint8:
        raise InputError(f"{path}: arr_0 is {stack.dtype} {stack.shape}, pictures are bytes (N, H, W, 3)")
    return [Image.fromarray(p) for p in stack]


def batches(
    extractor: Extractor,
    pictures: Sequence[Picture],
    batch: int = BATCH,
    threads: int = 2,
    unreadable: dict[str, str] | None = None,
) -> Iterator[Tensor]:
    """Features (B, d) of pictures in order, fp32, on the processor; `threads` open and resize the next while a batch runs.

    Args:
        unreadable: pictures that cannot be read are left out and written down here; without it the first is an error.

    Raises:
        InputError: a picture cannot be read.
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
    with bar, ThreadPoolExecutor(threads) as pool:
        ahead = [pool.submit(prepare, p) for p in pictures[: 2 * batch]]
        for at in range(0, len(pictures), batch):
            ready = [f.result() for f in ahead[:batch]]
            ahead = ahead[batch:] + [pool.submit(prepare, p) for p in pictures[at + 2 * batch : at + 3 * batch]]
            there = [r for r in ready if r is not None]
            if there:
                yield extractor.features(there).cpu()
            bar.update(len(ready))


def extract(
    extractor: Extractor, pictures: Sequence[Picture], batch: int = BATCH, unreadable: dict[str, str] | None = None
) -> Tensor:
    """Features (N, d) of pictures, fp32; those that cannot be read as in `batches`."""
    found = list(batches(extractor, pictures, batch, unreadable=unreadable))
    if not found:
        raise InputError("no pictures to measure" + "".join(f": {reason}" for reason in list((unreadable or {}).values())[:1]))
    return torch.cat(found).clone()  # no inference tensor leaves


def cached(
    extractor: Extractor, pictures: Sequence[Picture], store: Path, batch: int = BATCH, unreadable: dict[str, str] | None = None
) -> Tensor:
    """`extract`, kept in the file `store` and taken from there while pictures and extractor are the same.

    Nothing is kept where pictures could not be read: what is broken is looked at, and said, again.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    about = {"extractor": extractor.name, "resize": extractor.resize, "pictures": digest(pictures)}
    with contextlib.suppress(SafetensorError, FileNotFoundError), safe_open(store, framework="pt") as file:  # or cut off
        if file.metadata() == about:
            return file.get_tensor("features")
    found = extract(extractor, pictures, batch, unreadable)
    if not unreadable:
        make_folder(store.parent)
        part = store.with_name(f"{store.name}.{os.getpid()}.part")
        save_file({"features": found}, part, about)
        part.replace(store)
    return found


def opened(place: Path) -> tuple[Sequence[Picture], PictureFolder]:
    """The pictures of a folder, or of ADM's file of samples."""
    samples = pictures_of_npz(place) if place.suffix == ".npz" else None
    folder = picture_folder(place) if samples is None else PictureFolder([])
    return folder.files if samples is None else samples, folder


def features_of(extractor: Extractor, place: Path, cache: Path | None = None, strict: bool = False) -> tuple[Tensor, str, int]:
    """Features (N, d) of a folder of pictures or of ADM's `.npz` of samples, their digest, and how many were left out.

    Args:
        cache: a folder that features are kept in, by the contents of the pictures and the extractor.
        strict: a picture that cannot be read is an error; otherwise it is left out with a warning.

    Raises:
        InputError: no pictures, or none that can be read.
    """
    pictures, folder = opened(place)
    unreadable = None if strict else folder.unreadable
    if cache is None:
        found = extract(extractor, pictures, unreadable=unreadable)
    else:
        key = hashlib.sha256(f"{extractor.name}|{extractor.resize}|{digest(pictures)}".encode()).hexdigest()[:24]
        found = cached(extractor, pictures, cache / f"{key}.safetensors", unreadable=unreadable)
    return found, digest(folder.readable(place, pictures)), len(folder.unreadable)


def digest(pictures: Sequence[Picture]) -> str:
    """Sixteen hexadecimal digits of the contents of pictures, in their order."""
    total = hashlib.sha256()
    for picture in pictures:
        data = picture.read_bytes() if isinstance(picture, Path) else picture.tobytes()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:16]


def measure(extractor: Extractor, place: Path, strict: bool = False) -> Moments:
    """Statistics of pictures in one pass that holds a batch; see `features_of`."""
    pictures, folder = opened(place)
    unreadable = None if strict else folder.unreadable
    found = moments(batches(extractor, pictures, unreadable=unreadable), FeatureSource(extractor.name, extractor.resize))
    return replace(found, source=replace(found.source, pictures=digest(folder.readable(place, pictures))))
