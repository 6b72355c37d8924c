"""Where media and features lie: on the disk, or in a store that fsspec knows, such as `s3://`, `gs://`, `hf://`, `memory://`.

A place on the disk is a `Path`, one in a store a `UPath`, which has the same methods. Keys and endpoints are the environment's
(`AWS_ACCESS_KEY_ID`, `FSSPEC_S3_ENDPOINT_URL` ...), see fsspec's and each store's documentation.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from ..errors import as_input_error
from ..output import make_folder, user_cache


def place(location: str | Path) -> Path:
    """A path on the disk, or in a store.

    Raises:
        InputError: a store that nothing installed here can reach.

    >>> place("features/clips"), place("memory://features/clips").name
    (PosixPath('features/clips'), 'clips')
    """
    if not isinstance(location, str) or "://" not in location:
        return Path(location).expanduser() if isinstance(location, str | Path) else location
    if location.startswith("file://"):
        return Path(location.removeprefix("file://"))
    from upath import UPath

    with reached(location):
        found: Any = UPath(location)
        found.fs  # noqa: B018  an error here, not later
    return found


def placed(value: Any) -> Any:
    """For a configuration: `place`, of what is a location."""
    if isinstance(value, str | Path) or hasattr(value, "fs"):
        return place(value)
    raise ValueError(f"expected a path or a URL, got {value!r}")


# mypy sees a Path; pydantic lets a UPath through, which is none
if TYPE_CHECKING:
    Location = Path
else:
    Location = Annotated[Any, BeforeValidator(placed), PlainSerializer(lambda value: value and str(value), when_used="json")]


@contextmanager
def reached(location: object) -> Iterator[None]:
    """Turns whatever a store's library raises into one `InputError`."""
    wrong = f"{location} cannot be reached"
    with (
        as_input_error(f"{wrong}: {{kind}}: {{short}}", Exception),  # each store has errors of its own
        as_input_error(f"{wrong}: {{error}}", ImportError),
        as_input_error(f"no such file: {location}", FileNotFoundError),
    ):
        yield


def on_disk(path: Path) -> bool:
    return isinstance(path, Path)


def read_range(path: Path, start: int | None = None, stop: int | None = None) -> bytes:
    """Bytes start to stop of a file, fewer where it ends before."""
    if not on_disk(path):
        store: Any = path
        with reached(path):
            return store.fs.cat_file(store.path, start=start, end=stop)
    with path.open("rb") as f:
        f.seek(start or 0)
        return f.read(-1 if stop is None else stop - (start or 0))


def names_in(folder: Path) -> set[str]:
    """The names of what lies in a folder; none where it is not there."""
    store: Any = folder
    if not on_disk(folder):
        store.fs.invalidate_cache()  # others write there too
    with reached(folder), suppress(FileNotFoundError):
        listed = os.listdir(folder) if on_disk(folder) else store.fs.ls(store.path, detail=False)
        return {name.rstrip("/").rpartition("/")[2] for name in listed}
    return set()


def part_of(path: Path) -> Path:
    """Where a file is written before it gets its name; no two writers have the same."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file in one step that survives a crash: it is either as before or complete."""
    if not on_disk(path):
        store: Any = path
        with reached(path):
            store.fs.pipe_file(store.path, data)  # an object appears when all of it is there
        return
    part = part_of(path)
    with part.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a file of JSON lines in one step."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """A file on the disk that the first process to ask for it makes, while the others of the machine wait.

    Args:
        make: writes it under the name that it is given.
    """
    if path.exists():
        return path
    lock = path.with_name(f".{path.name}.lock")
    while not path.exists():
        with lock.open("w") as held:
            with suppress(OSError):  # a disk without locks: each makes its own, the last one's stays
                fcntl.flock(held, fcntl.LOCK_EX)
            if not (lock.exists() and os.path.samestat(os.fstat(held.fileno()), lock.stat())):
                continue  # who held it is done, and took it away
            part = part_of(path)
            try:
                if not path.exists():
                    make(part)
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
    return path


def copies() -> Path:
    """Where copies of what lies in stores are kept: `$UNIALIGN_COPIES`, or in the user's cache folder."""
    return Path(os.environ.get("UNIALIGN_COPIES") or user_cache() / "copies")


def copied(folder: Path, names: list[str], version: str) -> Path:
    """A folder on the disk with these files of a folder in a store; they are copied if they are not there yet.

    Args:
        version: what the files are made of and with; another version is another copy.

    Raises:
        InputError: the store cannot be reached, or lacks one of them.
    """
    store: Any = folder
    target = make_folder(copies() / hashlib.sha256(f"{folder} {version}".encode()).hexdigest()[:16])
    for name in names:
        with reached(folder / name):
            made_once(target / name, lambda part, name=name: store.fs.get_file((store / name).path, str(part)))  # type: ignore[misc]
    return target


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in a store, in a tar or in a table, whose bytes are read when they are asked for; media are read from it.

    Attributes:
        name: what messages and the report call it.
        get: gives its bytes.
    """

    name: str
    get: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """All of it.

        Raises:
            InputError: it cannot be read.
        """
        with reached(self.name):
            return self.get()


class Named(io.BytesIO):
    """Bytes in memory that have the name of the file they come from."""

    name: str


File = str | Stored


def file_at(location: str) -> File:
    """A file by its path or URL."""
    return Stored(location, partial(read_url, location)) if "://" in location else location


def read_url(location: str, start: int | None = None, stop: int | None = None) -> bytes:
    """`read_range`, by a path or URL."""
    return read_range(place(location), start, stop)


def in_memory(file: File) -> str | Named:
    """A file on the disk as it is, of any other its bytes, so that they are read once.

    Raises:
        InputError: they cannot be read.
    """
    if isinstance(file, str):
        return file
    found = Named(file.read())
    found.name = file.name
    return found


def expanded(pattern: str) -> list[str]:
    """The files of a pattern with `{0000..0099}` and `*`, or of a folder of tars, on the disk or in a store, sorted.

    >>> expanded("memory://a/{08..10}.tar")
    ['memory://a/08.tar', 'memory://a/09.tar', 'memory://a/10.tar']
    """
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if braces:
        first, last = braces.groups()
        numbers = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
        return [name for n in numbers for name in expanded(pattern[: braces.start()] + n + pattern[braces.end() :])]
    with reached(pattern):
        if "*" not in pattern and not pattern.endswith(".tar"):
            pattern = pattern.rstrip("/") + "/*.tar"
        if "*" not in pattern:
            return [pattern]
        if "://" not in pattern:
            return sorted(glob.glob(str(Path(pattern).expanduser())))
        store: Any = place(pattern)
        return sorted(f"{pattern.partition('://')[0]}://{found.lstrip('/')}" for found in store.fs.glob(store.path))
