"""Generated pictures on disk: where each lies, drawn block by block, so that a run that was killed or is shared goes on.

Pictures are drawn in fixed blocks of clips and each from its own seed, so that neither the number of processes nor an
interruption changes a bit of them. Each has its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unialign_gen.data import cache
from unialign_gen.data.extract import Process
from unialign_gen.objectives.kernel import slices
from unialign_gen.output import make_folder


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
    cache.write_whole(path, data.getvalue())


def open_folder(folder: Path, index: dict[str, Any]) -> None:
    """Makes a folder for pictures drawn with these settings, or finds that it is one; an `InputError` if it has others."""
    path = make_folder(folder) / "settings.json"
    cache.write_once(path, index)
    cache.check_same(folder, json.loads(path.read_text("utf-8")), index)


def seed_of(clip: str, draw: int) -> int:
    """A clip's seed in a draw, the same for every method and kind of prompt: they differ by the prompt alone."""
    return int.from_bytes(hashlib.sha256(f"{draw}:{clip}".encode()).digest()[:7], "big")


def draw(
    pipeline: Any,
    cells: Sequence[tuple[Cell, Tensor, dict[str, Any]]],
    ids: Sequence[str],
    root: Path,
    batch: int,
    process: Process,
    **options: Any,
) -> None:
    """Draws what is missing of this process's share.

    Args:
        cells: each with its prompts' unit embeddings (N, d) and everything that its pictures depend on.
        options: of the pipeline's call.

    Errors as in `open_folder`.
    """
    for cell, _, index in cells:
        open_folder(cell.folder(root), index)
    mine = [(cell, z, part) for cell, z, _ in cells for part in slices(len(ids), batch)][process.rank :: process.world]
    todo = [(c, z, part) for c, z, part in mine if any(not f.is_file() for f in c.files(root, ids[part]))]
    total = sum(part.stop - part.start for *_, part in todo)
    with tqdm(total=total, desc="pictures", disable=None if process.rank == 0 else True) as bar:
        for cell, z, part in todo:
            seeds = [seed_of(clip, cell.seed) for clip in ids[part]]
            pictures = pipeline(embeds=z[part], seed=seeds, **options).images
            for picture, path in zip(pictures, cell.files(root, ids[part]), strict=True):
                save(picture, path)
            bar.update(len(pictures))
