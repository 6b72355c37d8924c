"""A folder of generated pictures that survives being killed: one PNG a clip, each under its name only when it is whole."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from unialign_gen.data import cache


def file_name(clip: str) -> str:
    """A clip's id as a file name; different ids have different ones."""
    name = quote(clip, safe=" ")
    return f"{'%2E' + name[1:] if name.startswith('.') else name}.png"


@dataclass(frozen=True)
class Cell:
    """The pictures of one decoder, method, kind of prompt and seed.

    Attributes:
        kind: modalities joined by `+`.
        seed: the number of the draw, from 0, which is also that of the method's training run where it has several.
    """

    decoder: str
    method: str
    kind: str
    seed: int

    def folder(self, root: Path) -> Path:
        return root / "pictures" / self.decoder / self.method / self.kind / str(self.seed)

    def files(self, root: Path, ids: Sequence[str]) -> list[Path]:
        """Of each clip, where its picture is or will be."""
        folder = self.folder(root)
        return [folder / file_name(clip) for clip in ids]


def save(picture: Image.Image, path: Path) -> None:
    """Writes a PNG in one step."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    part = cache.part_of(path)
    part.write_bytes(data.getvalue())
    part.replace(path)


def open_folder(folder: Path, index: dict[str, Any]) -> None:
    """Makes a folder for pictures drawn with these settings, or finds that it is one.

    Raises:
        InputError: its pictures were drawn with other settings.
    """
    cache.create(folder, index)
