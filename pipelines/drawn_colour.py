"""Whether the colour that a text says of a thing can be seen in its picture: some things are drawn in their usual one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from PIL import Image

from unialign_gen.notes import tell
from unialign_gen.request import Request

from .phrases import AROUND, bare

HUES = {  # degrees from and to; neighbours overlap, so that no shade of a colour is called another
    "red": (330, 25), "orange": (8, 58), "yellow": (35, 80), "green": (65, 185), "turquoise": (140, 215), "cyan": (140, 215),
    "teal": (140, 215), "blue": (165, 270), "purple": (240, 340), "violet": (240, 340), "pink": (280, 20),
}  # fmt: skip
BACKGROUND, PALE, DARK = 240, 25, 40  # of 255
BROWN = 80  # saturation below which orange is called so, or beige
LEAST = 0.1  # of a thing's pixels
SIDE = 64  # pixels that are looked at


def tell_colours(images: Any, request: Request) -> None:
    """A note of each text whose colour hardly any of its thing's pixels has.

    Args:
        images: what was drawn, prompt by prompt; PIL pictures alone are looked at.
    """
    each = request.pictures
    for i, prompts in enumerate(request.prompts if isinstance(images, list) else ()):
        (prompt, *others), drawn = prompts, [p for p in images[i * each : (i + 1) * each] if isinstance(p, Image.Image)]
        colour = colour_said(prompt.name) if prompt.kind == "text" and prompt.weight > 0 and not others else None
        missing = sum(share_of(picture, colour) < LEAST for picture in drawn) if colour else 0
        if missing:
            where = f" in {missing} of {len(drawn)} pictures" if each > 1 else ""
            tell("colour", name=repr(prompt.name), colour=colour, where=where)


def colour_said(text: str) -> str | None:
    """The one colour of `HUES` that a text says of its thing; None where it says none, or several.

    >>> colour_said("a big orange elephant on grass"), colour_said("an orange"), colour_said("a red and blue parrot")
    ('orange', None, None)
    """
    *said, _ = re.split(rf" (?:{'|'.join(AROUND)}) ", bare(text).lower())[0].split() or [""]
    found = {word for word in said if word in HUES}
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
