"""Features of many pictures, extracted once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unialign_gen.errors import InputError
from unialign_gen.media import load_image

from .extractors import Extractor
from .moments import Moments, Source, moments

BATCH = 32
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
Picture = Path | Image.Image


def batches(extractor: Extractor, pictures: Sequence[Picture], batch: int = BATCH, threads: int = 2) -> Iterator[Tensor]:
    """Features (B, d) of pictures in order, fp32, on the processor; `threads` open and resize the next while a batch runs."""

    def prepare(picture: Picture) -> Tensor:
        return extractor.prepare(load_image(picture))

    like = next(iter(getattr(extractor.net, "parameters", list)()), torch.zeros(0))
    bar = tqdm(total=len(pictures), desc="features", disable=None)
    with bar, ThreadPoolExecutor(threads) as pool, torch.inference_mode():
        ahead = [pool.submit(prepare, p) for p in pictures[: 2 * batch]]
        for at in range(0, len(pictures), batch):
            ready = [f.result() for f in ahead[:batch]]
            ahead = ahead[batch:] + [pool.submit(prepare, p) for p in pictures[at + 2 * batch : at + 3 * batch]]
            pixels = torch.stack(ready).to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
            yield extractor.net(pixels).float().cpu()
            bar.update(len(ready))


def extract(extractor: Extractor, pictures: Sequence[Picture], batch: int = BATCH) -> Tensor:
    """Features (N, d) of pictures, fp32."""
    if not pictures:
        raise InputError("no pictures to measure")
    return torch.cat(list(batches(extractor, pictures, batch))).clone()  # no inference tensor leaves


def cached(extractor: Extractor, pictures: Sequence[Path], store: Path, batch: int = BATCH) -> Tensor:
    """`extract`, kept in the file `store` and taken from there while pictures and extractor are the same."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    about = {"extractor": extractor.name, "resize": extractor.resize, "pictures": digest(pictures)}
    if store.is_file():
        try:
            with safe_open(store, framework="pt") as file:
                if file.metadata() == about:
                    return file.get_tensor("features")
        except SafetensorError:  # a write that was cut off; it is done again
            pass
    found = extract(extractor, pictures, batch)
    store.parent.mkdir(parents=True, exist_ok=True)
    part = store.with_name(f"{store.name}.part")
    save_file({"features": found}, part, about)
    part.replace(store)
    return found


def digest(pictures: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits of the contents of files, in their order."""
    total = hashlib.sha256()
    for path in pictures:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder and below, by name.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give a folder of pictures, or a file of statistics")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"no pictures in {folder}")
    return found


def measure(extractor: Extractor, pictures: Sequence[Path], batch: int = BATCH) -> Moments:
    """Statistics of pictures, in one pass that holds a batch."""
    return moments(batches(extractor, pictures, batch), Source(extractor.name, extractor.resize, digest(pictures)))
