"""Whether the colour that a text says of a thing can be seen in its picture: some things are drawn in their usual one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.notes import tell
from unialign_gen.request import Request

from .beside import WHOLE, Strips
from .phrases import AROUND, bare, split

HUES = {  # degrees from and to; neighbours overlap, so that no shade of a colour is called another
    "red": (330, 25), "orange": (8, 58), "yellow": (35, 80), "green": (65, 185), "turquoise": (140, 215), "cyan": (140, 215),
    "teal": (140, 215), "blue": (165, 270), "purple": (240, 340), "violet": (240, 340), "pink": (280, 20),
}  # fmt: skip
BACKGROUND, PALE, DARK = 240, 25, 40  # of 255
BROWN = 80  # saturation below which orange is called so, or beige
LEAST = 0.1  # of a thing's pixels
SIDE = 64  # pixels that are looked at


def tell_colours(images: Any, request: Request, strips: Sequence[Strips | None]) -> None:
    """A note of each text whose colour hardly any of its thing's pixels has.

    Args:
        images: what was drawn, prompt by prompt; PIL pictures alone are looked at.
        strips: of each picture what stands beside each other in it, none of all or None where it is one thing.
    """
    found: dict[str, list[bool]] = {}  # of every text, for each of its things whether its colour is missing
    for i, picture in enumerate(images if request.prompts and isinstance(images, list) else ()):
        prompt, *others = request.prompts[i // request.pictures]
        things = strips[i] if strips else None
        if things is not None:
            said = list(zip(things.texts, things.boxes, strict=True))
        else:
            said = [(prompt.name, WHOLE)] if prompt.kind == "text" and prompt.weight > 0 and not others else []
        for text, box in said:
            colour = colour_said(text) if text and isinstance(picture, Image.Image) else None
            if colour:
                place = [share * side for share, side in zip(box, picture.size * 2, strict=True)]
                found.setdefault(text, []).append(share_of(picture.crop(tuple(map(round, place))), colour) < LEAST)
    for text, missing in found.items():
        if any(missing):
            times = f", {sum(missing)} of {len(missing)} times" if len(missing) > 1 else ""
            tell("colour", name=repr(text), colour=colour_said(text), times=times)


def colour_said(text: str) -> str | None:
    """The one colour of `HUES` that a text says of its thing; None where it says none, or several.

    >>> colour_said("a big orange elephant on grass"), colour_said("an orange"), colour_said("a red and blue parrot")
    ('orange', None, None)
    """
    thing = next(iter(split(bare(text).lower(), AROUND)), "")
    found = {word for word in thing.replace(",", " ").split()[:-1] if word in HUES}
    return found.pop() if len(found) == 1 else None


def share_of(picture: Image.Image, colour: str) -> float:
    """The share of the pixels that are no white background which have a colour of `HUES`.

    >>> share_of(Image.new("RGB", (8, 8), "red"), "red"), share_of(Image.new("RGB", (8, 8), "beige"), "orange")
    (1.0, 0.0)
    """
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    hue, saturation, value = np.moveaxis(np.asarray(small.convert("HSV")).astype(float), -1, 0)
    there = np.asarray(small).min(-1) < BACKGROUND
    (first, last), degrees = HUES[colour], hue * 360 / 256
    inside = (degrees >= first) & (degrees <= last) if first < last else (degrees >= first) | (degrees <= last)
    coloured = there & inside & (saturation >= (BROWN if colour == "orange" else PALE)) & (value >= DARK)
    return float(coloured.sum() / max(1, there.sum()))
