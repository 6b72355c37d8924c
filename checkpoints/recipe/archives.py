"""Readers of archives that games use: Qt binary resources, OpenTTD sound catalogues, zip.

Each gives the names and contents of those files in it whose name the pattern `wanted` is found in.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

Files = Iterator[tuple[str, bytes]]
FOLDER, COMPRESSED, ZSTD = 2, 1, 4


def read_rcc(path: Path, wanted: str = "") -> Files:
    """A Qt binary resource (.rcc, format versions 1 to 3); zstd entries are left out."""
    raw = path.read_bytes()
    magic, version, tree, data, names = struct.unpack(">4sIIII", raw[:20])
    if magic != b"qres":
        raise ValueError(f"{path} is not a Qt resource file")
    size = 14 if version < 2 else 22

    def walk(index: int, prefix: str) -> Files:
        offset, flags, first, second = struct.unpack_from(">IHII", raw, tree + index * size)
        start, (length,) = names + offset + 6, struct.unpack_from(">H", raw, names + offset)
        here = prefix + raw[start : start + 2 * length].decode("utf-16-be") if index else ""
        if flags & FOLDER:  # of `first` entries from `second` on
            for child in range(second, second + first):
                yield from walk(child, f"{here}/".lstrip("/"))
        elif not flags & ZSTD and re.search(wanted, here):
            start, (length,) = data + second + 4, struct.unpack_from(">I", raw, data + second)
            content = raw[start : start + length]
            yield here, zlib.decompress(content[4:]) if flags & COMPRESSED else content

    yield from walk(0, "")


def read_cat(path: Path, wanted: str = "") -> Files:
    """An OpenTTD catalogue: WAV files, named by their numbers and titles."""
    raw = path.read_bytes()
    for i in range((struct.unpack_from("<I", raw)[0] & 0x7FFFFFFF) // 8):
        at = struct.unpack_from("<I", raw, 8 * i)[0] & 0x7FFFFFFF
        start = at + 1 + raw[at]
        title = raw[at + 1 : start].split(b"\0")[0].decode("latin1").split("By")[0].split("Original")[0].lower()
        name = f"{i:02d}_{re.sub('[^a-z]+', '-', title)[:40]}.wav"
        if re.search(wanted, name):
            yield name, raw[start : start + 8 + struct.unpack_from("<I", raw, start + 4)[0]]  # RIFF, its length, and so much


def read_zip(path: Path, wanted: str = "") -> Files:
    with zipfile.ZipFile(path) as files:
        yield from ((name, files.read(name)) for name in files.namelist() if re.search(wanted, name))


READERS = {".rcc": read_rcc, ".cat": read_cat, ".zip": read_zip}
