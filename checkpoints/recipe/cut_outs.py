"""A drawing or photograph, however it is stored, as a square cut-out: trimmed, centred, with a margin, on nothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from unialign_gen.media.display import on_white

SIDE = 128
MARGIN = 5 / 128  # of the side
ZOOM = 1.75  # pictures are read this much larger than they are wanted
SMALL = 0.4  # of the page: a drawing that is smaller is drawn again, larger

Drawing = Path | bytes  # a file or its content: SVG or any bitmap


def rasterise(svg: str, width: int) -> Image.Image:
    import resvg_py

    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=width, dpi=96, skip_system_fonts=True))))


def load(drawing: Drawing, work: int) -> Image.Image:
    """RGBA, about `work` pixels wide; a bitmap smaller than that keeps its size."""
    data = drawing if isinstance(drawing, bytes) else drawing.read_bytes()
    if b"<svg" not in data:
        picture: Image.Image = Image.open(io.BytesIO(data))
        if max(picture.size) > 2 * work:
            picture.draft("RGB", (work, work))
            picture = picture.convert("RGBA").reduce(max(1, max(picture.size) // work))
        return picture.convert("RGBA")
    svg = data.decode("utf8", "replace")
    picture = rasterise(svg, work)
    left, top, right, bottom = picture.getbbox() or (0, 0, work, work)
    size = max(right - left, bottom - top)
    if size < SMALL * work:
        picture = rasterise(svg, int(work * min(6.0, 0.8 * work / size)))
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
        wide, high = min(width, int(1.5 * height)), min(height, int(1.5 * width))
        picture = picture.crop(((width - wide) // 2, (height - high) // 2, (width + wide) // 2, (height + high) // 2))
    picture = fitted(picture, *(2 * [side if fills else side - 2 * round(side * MARGIN)]))
    page = Image.new("RGBA", (side, side))
    page.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return page


def fitted(picture: Image.Image, width: float, height: float) -> Image.Image:
    """RGBA as large as fits into a box; resized with premultiplied colours, so that edges have no dark fringes."""
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


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
