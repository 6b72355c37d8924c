"""Readers of two archive formats that games use: Qt binary resources and OpenTTD sound catalogues."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

FOLDER, COMPRESSED, ZSTD = 2, 1, 4


def read_rcc(path: Path) -> list[tuple[str, bytes]]:
    """The files of a Qt binary resource (.rcc, format versions 1 to 3): [(path, content)]; zstd entries are left out."""
    raw = path.read_bytes()
    if raw[:4] != b"qres":
        raise ValueError(f"{path} is not a Qt resource file")
    version, tree, data, names = struct.unpack(">IIII", raw[4:20])
    size = 14 if version < 2 else 22
    out: list[tuple[str, bytes]] = []

    def name(offset: int) -> str:
        (length,) = struct.unpack(">H", raw[names + offset : names + offset + 2])
        start = names + offset + 6
        return raw[start : start + 2 * length].decode("utf-16-be")

    def walk(index: int, prefix: str) -> None:
        entry = tree + index * size
        offset, flags = struct.unpack(">IH", raw[entry : entry + 6])
        here = f"{prefix}/{name(offset)}".lstrip("/") if index else ""
        if flags & FOLDER:
            count, child = struct.unpack(">II", raw[entry + 6 : entry + 14])
            for i in range(count):
                walk(child + i, here)
            return
        (at,) = struct.unpack(">I", raw[entry + 10 : entry + 14])
        (length,) = struct.unpack(">I", raw[data + at : data + at + 4])
        content = raw[data + at + 4 : data + at + 4 + length]
        if flags & COMPRESSED:
            content = zlib.decompress(content[4:])
        if not flags & ZSTD:
            out.append((here, content))

    walk(0, "")
    return out


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
