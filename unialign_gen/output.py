"""Folders that results are written to: checked before the work, made when there is something to write."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError


def check_folder(path: Path) -> Path:
    """The path, if it is a folder that can be written to or one that can be made.

    Raises:
        InputError: a file is in its place or in that of a folder above it, or the place cannot be written to.
    """
    there = path.resolve()
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        folder = there.is_dir()
    except OSError as error:  # below a folder that may not be entered
        raise InputError(f"{path} cannot be reached: {error.strerror or error}") from error
    if not folder:
        raise InputError(f"{path} cannot be a folder: {there} is a file; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written to: no permission in {there}")
    return path


def make_folder(path: Path) -> Path:
    """Makes the folder, and those above it, where they are not there.

    Raises:
        InputError: as in `check_folder`, or the disk refuses.
    """
    try:
        check_folder(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror or error}") from error
    return path
