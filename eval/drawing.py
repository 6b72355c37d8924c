"""Drawing a protocol's pictures: which there are, whose turn each is, and what a killed run left to do.

Pictures are drawn in fixed blocks of clips and each from its own seed, so that neither the number of processes nor an
interruption changes a bit of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from unialign_gen.data.extract import Process

from .pictures import Cell, open_folder, save


def seed_of(clip: str, draw: int) -> int:
    """A clip's seed in a draw, the same for every method and kind of prompt: they differ by the prompt alone."""
    return int.from_bytes(hashlib.sha256(f"{draw}:{clip}".encode()).digest()[:7], "big")


def blocks(count: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def draw(
    pipeline: Any,
    cells: Sequence[tuple[Cell, Tensor, dict[str, Any]]],
    ids: Sequence[str],
    root: Path,
    batch: int,
    process: Process,
    **options: Any,
) -> int:
    """Draws what is missing of this process's share; returns how many pictures that were.

    Args:
        cells: each with its prompts' unit embeddings (N, d) and everything that its pictures depend on.
        options: of the pipeline's call.

    Raises:
        InputError: a folder's pictures were drawn with other settings.
    """
    for cell, _, index in cells:
        open_folder(cell.folder(root), index)
    mine = [(cell, z, part) for cell, z, _ in cells for part in blocks(len(ids), batch)][process.rank :: process.world]
    todo = [(c, z, part) for c, z, part in mine if any(not f.is_file() for f in c.files(root, ids[part]))]
    drawn = 0
    quiet = None if process.rank == 0 else True
    with tqdm(total=sum(part.stop - part.start for *_, part in todo), desc="pictures", disable=quiet) as bar:
        for cell, z, part in todo:
            seeds = [seed_of(clip, cell.seed) for clip in ids[part]]
            pictures = pipeline(embeds=z[part], seed=seeds, **options).images
            for picture, path in zip(pictures, cell.files(root, ids[part]), strict=True):
                save(picture, path)
            drawn += len(pictures)
            bar.update(len(pictures))
    return drawn


def barrier(process: Process) -> None:
    """Waits until every process has come here, in a group that the first call begins; does nothing where there is one."""
    if process.world < 2:
        return
    import torch.distributed as dist

    if not dist.is_initialized():  # nothing but this is exchanged, and the slowest may need days
        dist.init_process_group("gloo", timeout=timedelta(days=30))
    dist.barrier()


def destroy_process_group() -> None:
    """Ends the group that `barrier` began."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
