"""Readers of two archive formats that games use: Qt binary resources and OpenTTD sound catalogues."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

FOLDER, COMPRESSED, ZSTD = 2, 1, 4


def read_rcc(path: Path) -> list[tuple[str, bytes]]:
    """The files of a Qt binary resource (.rcc, format versions 1 to 3): [(path, content)]; zstd entries are left out."""
    raw = path.read_bytes()
    magic, version, tree, data, names = struct.unpack(">4sIIII", raw[:20])
    if magic != b"qres":
        raise ValueError(f"{path} is not a Qt resource file")
    size = 14 if version < 2 else 22

    def walk(index: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        offset, flags, first, second = struct.unpack_from(">IHII", raw, tree + index * size)
        start, (length,) = names + offset + 6, struct.unpack_from(">H", raw, names + offset)
        name = raw[start : start + 2 * length].decode("utf-16-be") if index else ""
        here = f"{prefix}/{name}".lstrip("/")
        if flags & FOLDER:  # of `first` entries from `second` on
            for child in range(second, second + first):
                yield from walk(child, here)
        elif not flags & ZSTD:
            (length,) = struct.unpack_from(">I", raw, data + second)
            content = raw[data + second + 4 : data + second + 4 + length]
            yield here, zlib.decompress(content[4:]) if flags & COMPRESSED else content

    return list(walk(0, ""))


def read_cat(path: Path) -> list[tuple[str, bytes]]:
    """The sounds of an OpenTTD catalogue: [(title, wav bytes)]."""
    raw = path.read_bytes()
    count = (struct.unpack("<I", raw[:4])[0] & 0x7FFFFFFF) // 8
    out = []
    for i in range(count):
        offset, size = struct.unpack("<II", raw[i * 8 : i * 8 + 8])
        offset &= 0x7FFFFFFF
        length = raw[offset]
        title = raw[offset + 1 : offset + 1 + length].split(b"\0")[0].decode("latin1")
        start = offset + 1 + length
        if raw[start : start + 4] == b"RIFF":
            size = struct.unpack("<I", raw[start + 4 : start + 8])[0] + 8
        out.append((title, raw[start : start + size]))
    return out
