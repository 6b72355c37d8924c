"""Whether the colour that a text says of a thing can be seen in its picture: some things are drawn in their usual one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.media.text import reworded
from unialign_gen.notes import tell
from unialign_gen.request import Request

from .beside import WHOLE, Colour, Strips
from .colours import colours_said

HUES = {  # degrees from and to; neighbours overlap, so that no shade of a colour is called another
    "red": (330, 25), "orange": (8, 58), "yellow": (35, 80), "green": (65, 185), "turquoise": (140, 215), "cyan": (140, 215),
    "teal": (140, 215), "navy": (165, 270), "blue": (165, 270), "purple": (240, 340), "violet": (240, 340), "pink": (280, 20),
    "brown": (345, 48),
}  # fmt: skip
SHADES = {"black": (0, 110), "grey": (60, 230), "gray": (60, 230), "white": (170, 255)}  # values from and to
PALE, DARK = 25, 40  # of 255: a hue has more saturation, and more value
COLOURLESS, NIGHT = 40, 60  # saturation of white and grey, of black twice as much; value of black whatever its saturation
LEAST_ORANGE, MOST_BROWN = 80, 200  # saturation below which orange is called brown, or beige; value above which brown is orange
LIKE = 15  # by how much a ground differs from itself
# of a thing's pixels: of its one colour; of black, white or grey, of which every drawing has some; of one of several colours
LEAST, LEAST_SHADE, LEAST_PART = 0.1, 0.25, 0.04
SIDE = 64  # pixels that are looked at
WHITE = (1.0, 1.0, 1.0)


def tell_colours(images: Any, request: Request, strips: Sequence[Strips | None], words: Mapping[str, str]) -> None:
    """A note of each text with a colour that hardly any of its thing's pixels has.

    Args:
        images: what was drawn, prompt by prompt; PIL pictures alone are looked at.
        strips: of each picture what stands beside each other in it, none of all or None where it is one thing.
        words: what other words for colours were read as, see `media.text.reworded`.
    """
    found: dict[tuple[str, str], list[bool]] = {}  # whether a text's colour is missing, thing by thing
    for i, picture in enumerate(images if request.prompts and isinstance(images, list) else ()):
        prompt, *others = request.prompts[i // request.pictures]
        things = strips[i] if strips else None
        if things is not None:
            said = list(zip(things.texts, things.boxes, things.grounds or [None] * len(things.boxes), strict=True))
        else:
            alone = prompt.kind == "text" and prompt.weight > 0 and not others
            said = [(prompt.value, WHOLE, None)] if alone else []
        for text, box, ground in said:
            colours = colours_said(reworded(text, words)[0]) if text and isinstance(picture, Image.Image) else []
            place = [share * side for share, side in zip(box, picture.size * 2, strict=True)] if colours else []
            for colour in colours:
                least = LEAST_PART if len(colours) > 1 else LEAST_SHADE if colour in SHADES else LEAST
                if len(colours) == 1 or colour != "white":  # which the ground may be
                    share = share_of(picture.crop(tuple(map(round, place))), colour, ground or WHITE)
                    found.setdefault((text, colour), []).append(share < least)
    for (text, colour), missing in found.items():
        if any(missing):
            times = f", {sum(missing)} of {len(missing)} times" if len(missing) > 1 else ""
            tell("colour", name=repr(text), colour=colour, times=times)


def share_of(picture: Image.Image, colour: str, ground: Colour = WHITE) -> float:
    """The share of the pixels unlike a ground that have a colour of `HUES` or `SHADES`; 1 of one that is not looked for.

    >>> [share_of(Image.new("RGB", (8, 8), "red"), colour) for colour in ("red", "black", "beige")]
    [1.0, 0.0, 1.0]
    """
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    hue, saturation, value = np.moveaxis(np.asarray(small.convert("HSV")).astype(float), -1, 0)
    there = np.abs(np.asarray(small) - 255 * np.array(ground)).max(-1) > LIKE
    if colour in SHADES:
        least, most = SHADES[colour]
        has = (saturation < COLOURLESS * (2 if colour == "black" else 1)) & (value >= least) & (value <= most)
        has |= (value <= NIGHT) & (colour == "black")
    elif colour in HUES:
        (first, last), degrees = HUES[colour], hue * 360 / 256
        inside = (degrees >= first) & (degrees <= last) if first < last else (degrees >= first) | (degrees <= last)
        coloured = (saturation >= (LEAST_ORANGE if colour == "orange" else PALE)) & (value >= DARK)
        has = inside & coloured & ((colour != "brown") | (value <= MOST_BROWN))
    else:
        return 1.0
    return float((there & has).sum() / max(1, there.sum()))
