"""A drawing or photograph, however it is stored, as 128 x 128 RGB on white: trimmed, centred, with a margin."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, MARGIN, WORK = 128, 5, 224


@dataclass
class Drawing:
    """Where a picture's data is: an SVG text, a file, or bytes."""

    svg: str | None = None
    file: str | None = None
    raw: bytes | None = None

    @property
    def is_svg(self) -> bool:
        if self.svg is not None:
            return True
        if self.file is not None:
            return self.file.endswith((".svg", ".svgz"))
        return self.raw is not None and (self.raw[:2] == b"\x1f\x8b" or b"<svg" in self.raw[:3000])

    def svg_text(self) -> str:
        if self.svg is not None:
            return self.svg
        data = Path(self.file).read_bytes() if self.file is not None else self.raw or b""
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf8", "replace")


def rasterise(drawing: Drawing, width: int) -> Image.Image:
    import resvg_py

    options: dict[str, Any] = {"width": width, "dpi": 96, "skip_system_fonts": True}
    if drawing.file is not None:
        data = resvg_py.svg_to_bytes(svg_path=drawing.file, **options)
    else:
        data = resvg_py.svg_to_bytes(svg_string=drawing.svg_text(), **options)
    return Image.open(io.BytesIO(bytes(data)))


def load(drawing: Drawing) -> Image.Image:
    """RGBA at working size."""
    if not drawing.is_svg:
        source = drawing.file if drawing.file is not None else io.BytesIO(drawing.raw or b"")
        picture: Image.Image = Image.open(source)
        if max(picture.size) > 2 * WORK:
            picture.draft("RGB", (WORK, WORK))
            picture = picture.convert("RGBA").reduce(max(1, max(picture.size) // WORK))
        return picture.convert("RGBA")
    picture = rasterise(drawing, WORK)
    box = picture.getbbox()
    if box and max(box[2] - box[0], box[3] - box[1]) < 0.4 * WORK:  # a small drawing on a large page: again, larger
        zoom = min(6.0, 0.8 * WORK / max(box[2] - box[0], box[3] - box[1]))
        picture = rasterise(drawing, int(WORK * zoom))
    elif picture.height > 3 * WORK:
        picture = picture.reduce(picture.height // (2 * WORK) + 1)
    return picture.convert("RGBA")


def compose(picture: Image.Image) -> Image.Image:
    """RGBA of any size -> RGB on white, trimmed to the drawing; what fills its frame is cropped to at most 3:2 instead."""
    pixels = np.asarray(picture)
    opaque = (pixels[..., 3] > 250).mean() > 0.985
    ink = pixels[..., :3].min(-1) < 244 if opaque else pixels[..., 3] > 12
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if len(rows) < 8 or len(columns) < 8:
        raise ValueError("empty")
    picture = picture.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    photograph = opaque and ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.97
    width, height = picture.size
    if photograph:
        if width > 1.5 * height:
            picture = picture.crop(((width - int(1.5 * height)) // 2, 0, (width + int(1.5 * height)) // 2, height))
        if height > 1.5 * width:
            picture = picture.crop((0, (height - int(1.5 * width)) // 2, width, (height + int(1.5 * width)) // 2))
        width, height = picture.size
    scale = (SIDE if photograph else SIDE - 2 * MARGIN) / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")  # premultiplied: no dark fringes
    page = Image.new("RGB", (SIDE, SIDE), "white")
    page.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2), picture)
    return page


def render(drawing: Drawing) -> Image.Image:
    """128 x 128 RGB. A blank result is a `ValueError`."""
    page = compose(load(drawing))
    grey = np.asarray(page.convert("L"), dtype=np.float32)
    if grey.std() < 4 or (grey < 250).mean() < 0.01:
        raise ValueError("blank")
    return page
