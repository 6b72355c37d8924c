"""Where results are written: checked before the work, made when there is something to write, there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError, as_input_error

if TYPE_CHECKING:
    from torch import Tensor


def user_cache() -> Path:
    """`unialign_gen` in the user's cache folder, which is `$XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unialign_gen"


def check_output(
    path: Path, suffixes: tuple[str, ...], inputs: Iterable[str | Path] = (), overwrite: bool = True, option: str = "--out"
) -> Path:
    """The path, if a file can be written there.

    Args:
        suffixes: that its name may end in.
        inputs: files that are read, none of which may be the same file under any name.
        overwrite: whether a file may be there already.

    Raises:
        InputError: it cannot, with the reason.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: the name must end in {', '.join(suffixes)}")
    with as_input_error(f"{option} {str(path)[:100]!r} cannot be written: {{reason}}", OSError, ValueError):  # no name at all
        folder, there = path.resolve().parent.is_dir(), path.exists()
    check_folder(path.parent)
    if not folder:
        raise InputError(f"{option} {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder: name a file")
    if not there:
        return path
    for source in map(Path, inputs):
        if source.exists() and path.samefile(source):
            raise InputError(f"{option} {path} is the input {source} itself: name another file")
    if not overwrite:
        raise InputError(f"{option} {path} is there already, and --no-overwrite was given: name another file")
    if not path.is_file():
        raise InputError(f"{option} {path} is no regular file: name another file")
    if not os.access(path, os.W_OK):
        raise InputError(f"{option} {path} may not be overwritten: name another file")
    return path


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; at the end of the block the file takes the place of `path`, after an error it is gone.

    An earlier file stays until then, whatever ends the block. A link is followed, and a file's permissions are kept.

    Raises:
        InputError: the disk refuses.
    """
    target = path.resolve()
    beside = target.with_name(f".{target.stem[:100]}.{os.getpid()}.part{target.suffix}")
    try:
        with as_input_error(f"{path} cannot be written: {{reason}}", OSError):
            yield beside
            if target.exists():
                shutil.copymode(target, beside)
            beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink()


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file with the permissions of any other: what `save_file` writes its owner alone can read."""
    from safetensors.torch import save

    path.write_bytes(save({name: value.cpu().contiguous() for name, value in tensors.items()}, metadata))


def check_folder(path: Path, overwrite: bool = True) -> Path:
    """The path, if it is a folder that can be written to or one that can be made.

    Args:
        overwrite: whether something may be in it already.

    Raises:
        InputError: a file is in its place or in that of a folder above it, or the place cannot be written to.
    """
    there = path.resolve()
    with as_input_error(f"{path} cannot be reached: {{reason}}", OSError):  # below a folder that may not be entered
        while not there.exists() and there != there.parent:
            there = there.parent
        folder = there.is_dir()
    if not folder:
        raise InputError(f"{path} cannot be a folder: {there} is a file; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written to: no permission in {there}")
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path} holds something already, and --no-overwrite was given: name another folder")
    return path


def check_new_folder(path: Path) -> Path:
    """The path, if it is a folder that can be made, or an empty one.

    Raises:
        InputError: there is something, or as in `check_folder`.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"--out {path} is not empty: name a new folder")
    return check_folder(path)


def make_folder(path: Path) -> Path:
    """Makes the folder, and those above it, where they are not there.

    Raises:
        InputError: as in `check_folder`, or the disk refuses.
    """
    with as_input_error(f"{path} cannot be made: {{reason}}", OSError):
        check_folder(path).mkdir(parents=True, exist_ok=True)
    return path
