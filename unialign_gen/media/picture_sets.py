"""Sets of pictures on disk: a folder, or ADM's file of samples."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError, as_input_error

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}  # of files that are meant as pictures
Picture = Path | Image.Image


@dataclass
class PictureSet:
    """Pictures in order.

    unreadable: those that turn out broken when they are read, each with the reason. others: how many files are no pictures.
    """

    pictures: Sequence[Picture]
    others: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def digest(self, place: Path) -> str:
        """Of the pictures that could be read; warns of what was left out."""
        if self.others:
            warnings.warn(f"{place}: {self.others} files are no pictures and were left out", stacklevel=3)
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            warnings.warn(f"{len(self.unreadable)} pictures cannot be read and were left out: {first}", stacklevel=3)
        return digest([p for p in self.pictures if str(p) not in self.unreadable])


def open_pictures(place: Path) -> PictureSet:
    """The pictures in a folder and those below it, sorted by name, or of ADM's `.npz` of samples.

    A file is a picture if Pillow can identify it, whatever its name; hidden files are left out. One that is named like a
    picture counts as one even if it cannot be identified, so that it is reported when it is read.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    samples = pictures_of_npz(place) if place.suffix == ".npz" else None
    if samples is not None:
        return PictureSet(samples)
    if not place.is_dir():
        raise InputError(f"no folder {place}: give a folder of pictures, or a file of statistics")
    files = sorted(p for p in place.rglob("*") if p.is_file() and not p.name.startswith("."))
    found = [p for p in files if p.suffix.lower() in SUFFIXES or is_picture(p)]
    if not found:
        raise InputError(f"no pictures in {place}")
    return PictureSet(found, len(files) - len(found))


def is_picture(path: Path) -> bool:
    with contextlib.suppress(Exception), Image.open(path):  # Pillow's parsers raise whatever they meet
        return True
    return False


def pictures_of_npz(path: Path) -> list[Image.Image] | None:
    """ADM's file of samples, `arr_0` (N, H, W, 3) bytes, as pictures; None if the file holds something else.

    Raises:
        InputError: the file is missing or damaged.
    """
    with (
        as_input_error(f"{path} cannot be read: {{error}}", OSError, ValueError, EOFError, zipfile.BadZipFile),
        np.load(path, allow_pickle=False) as file,
    ):
        if "mu" in file or "arr_0" not in file:
            return None
        stack = file["arr_0"]
    if stack.ndim != 4 or stack.shape[3] != 3 or stack.dtype != np.uint8:
        raise InputError(f"{path}: arr_0 is {stack.dtype} {stack.shape}, pictures are bytes (N, H, W, 3)")
    return [Image.fromarray(p) for p in stack]


def digest(pictures: Sequence[Picture]) -> str:
    """Sixteen hexadecimal digits of the contents of pictures, in their order."""
    total = hashlib.sha256()
    for picture in pictures:
        data = picture.read_bytes() if isinstance(picture, Path) else picture.tobytes()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:16]
