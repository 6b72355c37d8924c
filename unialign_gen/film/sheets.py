"""Several pictures in one file: grids, labelled sheets, GIF, MP4 and WebM."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..output import check_output, written
from .mp4 import Mp4

MARGIN = 10
LINE = 18


def grid(pictures: Sequence[Image.Image], columns: int = 8) -> Image.Image:
    """Pictures of one size in rows of `columns`, read as a page is."""
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    page = Image.new("RGB", (width * columns, height * -(-len(pictures) // columns)), "white")
    for i, picture in enumerate(pictures):
        page.paste(picture, (i % columns * width, i // columns * height))
    return page


def sheet(sections: Sequence[tuple[str, Sequence[tuple[Image.Image, str]]]], side: int = 160, columns: int = 6) -> Image.Image:
    """Titled sections of pictures with labels, `columns` in a row, each drawn `side` pixels wide; labels wrap to two lines."""
    text, title = ImageFont.load_default(12), ImageFont.load_default(15)
    step = side + MARGIN
    heights = [28 + (side + 2 * LINE + MARGIN) * -(-len(cells) // columns) for _, cells in sections]
    page = Image.new("RGB", (MARGIN + step * columns, MARGIN + sum(heights)), "white")
    draw = ImageDraw.Draw(page)
    y = MARGIN
    for (name, cells), height in zip(sections, heights, strict=True):
        draw.text((MARGIN, y), name, fill="black", font=title)
        for i, (picture, label) in enumerate(cells):
            x = MARGIN + (i % columns) * step
            top = y + 28 + (i // columns) * (side + 2 * LINE + MARGIN)
            page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, top))
            draw.rectangle((x, top, x + side - 1, top + side - 1), outline="#cccccc")
            for n, line in enumerate(textwrap.wrap(label, side // 7)[:2]):
                draw.text((x, top + side + 3 + n * (LINE - 3)), line, fill="#333333", font=text)
        y += height
    return page


def save_sequence(pictures: Sequence[Image.Image], path: str | Path, rate: float = 8, back: bool = True) -> None:
    """By suffix: `.png` a grid, `.gif`, `.webp` a loop, there and `back`, `.mp4`, `.webm` a film; `rate` frames a second.

    Raises:
        InputError: another suffix, no pictures, pictures of different sizes, or no rate.
    """
    path = check_output(Path(path), (".png", ".jpg", ".gif", ".webp", ".mp4", ".webm"), option="the file")
    if len({picture.size for picture in pictures}) != 1 or not 0 < rate <= 1000:
        raise InputError(
            f"{path}: pictures of one size and 1 to 1000 frames a second are needed, got {len(pictures)} at {rate}"
        )
    suffix = path.suffix.lower()
    with written(path) as file:
        if suffix in (".gif", ".webp"):
            loop = [*pictures, *(list(pictures)[-2:0:-1] if back else [])]
            loop[0].save(file, save_all=True, append_images=loop[1:], duration=int(1000 / rate), loop=0)
        elif suffix in (".mp4", ".webm"):
            with Mp4(file, *pictures[0].size, rate) as film:
                for picture in pictures:
                    film.add(np.asarray(picture.convert("RGB")))
        else:
            grid(pictures).save(file)
