"""A folder of generated pictures that survives being killed: one PNG a clip, each under its name only when it is whole."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from unialign_gen.data import cache
from unialign_gen.errors import InputError


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
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    part = cache.part_of(path)
    part.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", "utf-8")
    try:
        os.link(part, path)  # fails where there is one already, in one step
    except FileExistsError:
        difference = cache.first_difference(json.loads(path.read_text("utf-8")), json.loads(json.dumps(index)))
        if difference is not None:
            key, old, new = difference
            raise InputError(
                f"pictures in {folder} were drawn with {key} = {cache.brief(old)}, this run has {cache.brief(new)}: "
                "choose another folder or delete it"
            ) from None
    finally:
        part.unlink()
