"""A drawing or photograph, however it is stored, as a square cut-out: trimmed, centred, with a margin, on nothing."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 128
MARGIN = 5 / 128  # of the side
ZOOM = 1.75  # pictures are read this much larger than they are wanted


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


def load(drawing: Drawing, work: int) -> Image.Image:
    """RGBA, about `work` pixels wide; a bitmap smaller than that keeps its size."""
    if not drawing.is_svg:
        source = drawing.file if drawing.file is not None else io.BytesIO(drawing.raw or b"")
        picture: Image.Image = Image.open(source)
        if max(picture.size) > 2 * work:
            picture.draft("RGB", (work, work))
            picture = picture.convert("RGBA").reduce(max(1, max(picture.size) // work))
        return picture.convert("RGBA")
    picture = rasterise(drawing, work)
    box = picture.getbbox()
    if box and max(box[2] - box[0], box[3] - box[1]) < 0.4 * work:  # a small drawing on a large page: again, larger
        zoom = min(6.0, 0.8 * work / max(box[2] - box[0], box[3] - box[1]))
        picture = rasterise(drawing, int(work * zoom))
    elif picture.height > 3 * work:
        picture = picture.reduce(picture.height // (2 * work) + 1)
    return picture.convert("RGBA")


def cut_out(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """RGBA of any size -> RGBA (side, side), trimmed to the drawing; what fills its frame is cropped to at most 3:2 instead.

    Of an opaque picture the near-white background that touches its edge becomes transparent.

    Raises:
        ValueError: the picture is empty.
    """
    pixels = np.asarray(picture)
    opaque = (pixels[..., 3] > 250).mean() > 0.985
    ink = pixels[..., :3].min(-1) < 244 if opaque else pixels[..., 3] > 12
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if len(rows) < 8 or len(columns) < 8:
        raise ValueError("empty")
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    fills = opaque and ink[box[1] : box[3], box[0] : box[2]].mean() > 0.97
    if opaque and not fills:
        regions, _ = ndimage.label(np.pad(~ink, 1, constant_values=True))
        picture = picture.copy()
        picture.putalpha(Image.fromarray((regions[1:-1, 1:-1] != regions[0, 0]).astype(np.uint8) * 255))
    picture = picture.crop(box)
    width, height = picture.size
    if fills:
        if width > 1.5 * height:
            picture = picture.crop(((width - int(1.5 * height)) // 2, 0, (width + int(1.5 * height)) // 2, height))
        if height > 1.5 * width:
            picture = picture.crop((0, (height - int(1.5 * width)) // 2, width, (height + int(1.5 * width)) // 2))
        width, height = picture.size
    scale = (side if fills else side - 2 * round(side * MARGIN)) / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")  # premultiplied: no dark fringes
    page = Image.new("RGBA", (side, side))
    page.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return page


def on_white(picture: Image.Image) -> Image.Image:
    """RGBA -> RGB."""
    page = Image.new("RGB", picture.size, "white")
    page.paste(picture, (0, 0), picture)
    return page


def render(drawing: Drawing, side: int = SIDE) -> Image.Image:
    """The cut-out of a drawing, RGBA (side, side).

    Raises:
        ValueError: nothing of it would be seen on white.
    """
    picture = cut_out(load(drawing, int(ZOOM * side)), side)
    grey = np.asarray(on_white(picture).convert("L"), dtype=np.float32)
    if grey.std() < 4 or (grey < 250).mean() < 0.01:
        raise ValueError("blank")
    return picture
