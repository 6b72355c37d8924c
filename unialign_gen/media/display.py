"""Decoded frames as they are meant to be seen: upright, with square pixels, transparency on white."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import av

WIDEST_PIXEL = 16  # sides of a pixel that are further apart are a mistake
T = Image.Transpose


def shown(frame: av.VideoFrame, pixel: Fraction | None = None) -> Image.Image:
    """The frame as RGB; `pixel` is a pixel's width to its height."""
    if frame.format.name == "pal8" or any(c.is_alpha for c in frame.format.components):
        picture = on_white(Image.fromarray(frame.to_ndarray(format="rgba")))
    else:
        picture = frame.to_image()
    if pixel and pixel != 1 and 1 / WIDEST_PIXEL <= pixel <= WIDEST_PIXEL:
        width = max(1, round(picture.width * pixel))
        picture = picture.resize((width, picture.height), Image.Resampling.BICUBIC)
    for step in turns(frame):
        picture = picture.transpose(step)
    return picture


def on_white(picture: Image.Image) -> Image.Image:
    """RGBA -> RGB."""
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def turns(frame: av.VideoFrame) -> list[Image.Transpose]:
    """What brings the frame upright, from its display matrix (ISO 14496-12, 6.2.2; FFmpeg's `libavutil/display.h`).

    A pixel (p, q), q downwards, is shown at (a p + c q, b p + d q), up to a shift. Angles between the right ones, which no
    camera writes, go to the nearest.
    """
    found = next((bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
    if found is None or len(found) < 36:
        return []
    a, b, _, c, d = struct.unpack("=9i", found[:36])[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):  # rows become columns
        return [T.TRANSPOSE] + [T.FLIP_LEFT_RIGHT] * (c < 0) + [T.FLIP_TOP_BOTTOM] * (b < 0)
    return [T.FLIP_LEFT_RIGHT] * (a < 0) + [T.FLIP_TOP_BOTTOM] * (d < 0)
