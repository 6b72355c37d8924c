"""The scale contract measured: mean and spread of raw image-embedding norms over a folder of pictures.

Contrastive training gives unit vectors, decoders were trained on raw ones, and the norms that ViT-H and bigG give are published
nowhere: they are measured here, once, with the encoder itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from .aligner import Part
from .errors import InputError
from .media import load_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass
class Calibration:
    """What was measured.

    Attributes:
        embed_norm: mean of the norms; embed_norm_std: their standard deviation.
        count: how many pictures; skipped: those that could not be read, with the reason.
        negative: the embedding (1, d) of a picture whose normalised pixels are all zero, at its own norm.
    """

    embed_norm: float
    embed_norm_std: float
    count: int
    skipped: list[str]
    negative: Tensor


def pictures_in(folder: Path) -> list[Path]:
    """The picture files under a folder, in order of their names.

    Raises:
        InputError: there are none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"no pictures in {folder}: give a folder with {', '.join(SUFFIXES)} files")
    return found


@torch.no_grad()
def measure(part: Part, files: Sequence[Path], batch: int = 16) -> Calibration:
    """Norms of the raw embeddings of pictures.

    Args:
        part: an image encoder whose output is the decoder's image embedding, without a trained head.
        files: pictures; those that cannot be read are skipped and named.

    Raises:
        InputError: the part has a head, fewer than two pictures can be read, or a norm is not a positive number.
    """
    if not isinstance(part.head, nn.Identity):
        raise InputError("this checkpoint's decoder was trained on unit vectors times a fixed norm: nothing to calibrate")
    encoder, skipped = part.encoder, []
    place = next(encoder.parameters())

    def readable(some: Sequence[Path]) -> Iterator[Image.Image]:
        for file in some:
            try:
                yield load_image(file)
            except InputError as error:
                skipped.append(str(error))

    norms: list[Tensor] = []
    for at in tqdm(range(0, len(files), batch), desc="pictures", unit="batch", disable=None):
        if pictures := list(readable(files[at : at + batch])):
            prepared = encoder.prepare(pictures).to(place)
            norms.append(encoder(prepared).float().norm(dim=1))
    every = torch.cat(norms).double().cpu() if norms else torch.zeros(0)
    if len(every) < 2:
        raise InputError(f"{len(every)} of {len(files)} pictures could be read: calibration needs at least 2")
    if not bool((every > 0).all() & every.isfinite().all()):
        raise InputError("the image encoder gives embeddings that are zero or not finite: its weights are damaged")
    negative = encoder(torch.zeros_like(prepared[:1])).float().cpu()
    return Calibration(every.mean().item(), every.std().item(), len(every), skipped, negative)
