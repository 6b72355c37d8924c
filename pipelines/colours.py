"""The colours that a text says: of its thing, of what is with or around it, and of its ground."""

from __future__ import annotations

import re

from PIL import ImageColor

from unialign_gen.media.text import with_article

from .beside import Colour
from .words import thing_ends

COLOURS = {  # of grounds
    "red": "e5484d", "orange": "f59e2e", "yellow": "f7d84a", "green": "4caf50", "blue": "4a7fe0", "purple": "8e5bd0",
    "violet": "8e5bd0", "pink": "f48fb8", "brown": "8d6044", "black": "202020", "white": "ffffff", "grey": "9e9e9e",
    "gray": "9e9e9e", "turquoise": "40c4bd", "cyan": "4dd0e1", "teal": "14857c", "navy": "1f2f5c", "beige": "efe3c8",
}  # fmt: skip
# what CSS has as colours too, and is a thing first
THINGS = {"chocolate", "coral", "linen", "orchid", "peru", "plum", "salmon", "seashell", "snow", "thistle", "tomato", "wheat"}
NAME = rf"\b(?:{'|'.join(COLOURS)})\b"
SHADE = rf"(?:\b(?:light|dark) )?{NAME}"
SHADES = rf"{SHADE}(?:(?:, | and | ){SHADE})*"


def colour_of(ground: str) -> Colour | None:
    """The colour that a ground is of, one of `COLOURS` or of CSS's; None where it names none that is known.

    >>> colour_of("on a white background"), colour_of("on sky blue") == colour_of("on skyblue"), colour_of("on grass")
    ((1.0, 1.0, 1.0), True, None)
    """
    words = [word for word in ground.lower().split() if word not in ("on", "a", "an", "the", "background")]
    lightness = " ".join(words[:1]) if words[:1] in (["light"], ["dark"]) else ""
    name = "".join(words)
    own = COLOURS.get(name.removeprefix(lightness))
    try:
        rgb = ImageColor.getrgb(f"#{own}" if own else name if name not in THINGS else "")
    except ValueError:
        return None
    towards, share = float(lightness == "light"), 0.4 if own and lightness else 0.0
    red, green, blue = ((1 - share) * value / 255 + share * towards for value in rgb[:3])
    return red, green, blue


def own_colours(text: str) -> str:
    """A text in which its thing alone has colours, and not what is with it or around it.

    >>> [own_colours(text) for text in ("a red fox with green eyes on an orange mat", "a green-eyed cat", "a car in red")]
    ['a red fox with eyes on a mat', 'a cat', 'a car in red']
    """
    text = left_out(rf"{NAME}-\w+ed", text)
    words = text.split()
    end = thing_ends(text.lower().split())
    return " ".join([*words[:end], without_colours(" ".join(words[end:]))]).strip()


def without_colours(text: str) -> str:
    """A text without the colours before its nouns.

    >>> [without_colours(text) for text in ("an orange car on a dark green road", "an orange")]
    ['a car on a road', 'an orange']
    """
    return left_out(SHADES, text)


def left_out(pattern: str, text: str) -> str:
    """A text without what matches before a word, whose article is put right."""

    def without(found: re.Match[str]) -> str:
        return with_article(found[2]) if found[1] else found[2]

    return re.sub(rf"(?:\b(an?) )?(?<!-){pattern} (\w+)", without, text, flags=re.I)


def colours_said(text: str) -> list[str]:
    """The colours that a text says of its thing, before its noun or behind "is" or "in"; each once, as in `COLOURS`.

    >>> colours_said("a big orange elephant on green grass"), colours_said("an orange"), colours_said("the car is dark blue")
    (['orange'], [], ['blue'])
    """
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    end = thing_ends(words)
    shown = words[: end - 1]
    if found := re.search(rf" (?:is|are|in) ({SHADES})$", " ".join(words)):
        shown = [*shown, *found[1].split()]
    return list(dict.fromkeys(word for word in shown if word in COLOURS))
