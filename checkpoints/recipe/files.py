"""Results that are there whole or not at all, and how long making them will take: stages can be killed and run again."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unialign_gen.output import written

progress = functools.partial(tqdm, delay=1, mininterval=10)  # over an iterable, called `desc`


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What is in a JSON file, made and written there the first time: a killed stage begins again at its last such file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as part:
            part.write_text(json.dumps(make(), ensure_ascii=False))
    return json.loads(path.read_text())


def made_of(mark: Path, inputs: str, make: Callable[[], None]) -> None:
    """Calls `make`, unless the file `mark` says that it was done with these inputs."""
    if not mark.exists() or json.loads(mark.read_text())["inputs"] != inputs:
        mark.unlink(missing_ok=True)
        make()
        kept(mark, lambda: {"inputs": inputs})


def digest(*content: bytes) -> str:
    """16 hexadecimal digits that change with any of it."""
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]


def once(target: Path, fill: Callable[[Path], object]) -> Path:
    """The folder `target`, filled by `fill` the first time."""
    if not target.exists():
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        fill(part)
        part.rename(target)
    return target


@contextmanager
def new_array(path: Path, *shape: int) -> Iterator[np.ndarray]:
    """An array of bytes in a file, to be filled; the file takes its name afterwards. What a kill leaves is used again."""
    part = path.with_suffix(".part.npy")
    yield np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    part.replace(path)


def save_array(path: Path, values: np.ndarray) -> None:
    """Writes an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as part:
        np.save(part, values)


def found(root: Path, wanted: str, unwanted: str = "(?!)") -> Iterator[tuple[Path, str]]:
    """The files below a folder, with their relative paths, in which one pattern is found and the other is not; in order."""
    for path in sorted(root.rglob("*")):
        key = str(path.relative_to(root))
        if re.search(wanted, key) and not re.search(unwanted, key):
            yield path, key
