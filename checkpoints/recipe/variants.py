"""More pictures out of the ones there are: in other colours, beside each other, several at once, on coloured grounds."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from . import colours
from .concepts import article
from .rasters import SIDE

NAME = re.compile(r"[a-z]+([ -][a-z]+)?")
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {"mouse": "mice", "goose": "geese", "person": "people", "man": "men", "woman": "women", "child": "children"}
PLURALS |= {"tooth": "teeth", "foot": "feet", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "loaf": "loaves"}
PLURALS |= {name: name for name in ("sheep", "fish", "deer", "scissors", "glasses", "bagpipes", "maracas", "fireworks")}
# places of one to four things: centre x, centre y, width, height of the box that each must fit, in sides
SINGLE = [[(0.5, 0.5, 0.78, 0.78)]]
SMALL = [[(x, y, 0.32, 0.32)] for x in (0.3, 0.5, 0.7) for y in (0.4, 0.6)]
BESIDE = [[(0.26, 0.5, 0.45, 0.7), (0.74, 0.5, 0.45, 0.7)]]
ABOVE = [[(0.5, 0.26, 0.7, 0.45), (0.5, 0.74, 0.7, 0.45)]]
BIG_AND_SMALL = [[(0.34, 0.46, 0.6, 0.8), (0.82, 0.7, 0.28, 0.3)], [(0.66, 0.46, 0.6, 0.8), (0.18, 0.7, 0.28, 0.3)]]
COUNTS = {
    2: BESIDE,
    3: [
        [(0.5, 0.27, 0.42, 0.42), (0.26, 0.74, 0.42, 0.42), (0.74, 0.74, 0.42, 0.42)],
        [(x, 0.5, 0.29, 0.6) for x in (0.18, 0.5, 0.82)],
    ],
    4: [
        [(x, y, 0.42, 0.42) for x in (0.26, 0.74) for y in (0.26, 0.74)],
        [(x, 0.5, 0.21, 0.5) for x in (0.14, 0.38, 0.62, 0.86)],
    ],
}


@dataclass
class Cut:
    """A cut-out that can stand in a picture: its place among the cut-outs, and what it is called."""

    number: int
    id: str
    name: str
    style: str
    source: str
    tier: str
    split: str
    concepts: list[str]
    colour: str


@dataclass
class Variant:
    """A picture to be made.

    Attributes:
        kind: `recoloured` or `composition`.
        cuts: what stands in it, with the colour each is given ("" for its own), at `boxes` (centre and size, in sides).
        ground: RGB colours of top and bottom; None for white.
    """

    id: str
    kind: str
    cuts: list[Cut]
    colours: list[str]
    boxes: list[tuple[float, float, float, float]]
    captions: list[str]
    mirrored: bool = False
    ground: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    colour: str = ""
    concepts: list[str] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """Its line in `rows.jsonl`."""
        first = self.cuts[0]
        concepts = list(dict.fromkeys(c for cut in self.cuts for c in cut.concepts))
        return {
            "id": self.id,
            "split": first.split,
            "tier": max(cut.tier for cut in self.cuts),
            "style": first.style,
            "source": first.source,
            "captions": self.captions,
            "concepts": concepts,
            "colour": self.colour,
            "kind": self.kind,
            "parts": [cut.id for cut in self.cuts],
            "variant_of": first.id if self.kind == "recoloured" else None,
        }


def plural(name: str) -> str:
    """Of a noun of one or two words."""
    *first, last = name.split(" ")
    if last not in PLURALS:
        if re.search("(s|x|z|ch|sh)$", last):
            last += "es"
        else:
            last = re.sub("[^aeiou]y$", lambda m: m.group()[0] + "ie", last) + "s"
    return " ".join([*first, PLURALS.get(last, last)])


def draw(variant: Variant, cut_outs: np.ndarray) -> Image.Image:
    """RGB (SIDE, SIDE) out of cut-outs (N, SIDE, SIDE, 4)."""
    page = Image.fromarray(ground(variant.ground), "RGB").convert("RGBA")
    for cut, colour, (x, y, width, height) in zip(variant.cuts, variant.colours, variant.boxes, strict=True):
        picture = Image.fromarray(cut_outs[cut.number], "RGBA")
        if colour:
            picture = colours.recoloured(picture, colour)
        if variant.kind == "composition":
            picture = picture.crop(picture.getchannel("A").getbbox())
            scale = min(width * SIDE / picture.width, height * SIDE / picture.height)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            picture = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
        if variant.mirrored:
            picture = ImageOps.mirror(picture)
        corner = (round(x * SIDE - picture.width / 2), round(y * SIDE - picture.height / 2))
        page.alpha_composite(picture, (max(0, corner[0]), max(0, corner[1])))
    return page.convert("RGB")


def ground(ends: tuple[tuple[int, int, int], tuple[int, int, int]] | None) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: white, flat, or graded from top to bottom."""
    top, bottom = np.array(ends or ((255,) * 3,) * 2, np.float32)
    t = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top + (bottom - top) * t, (SIDE, SIDE, 3)).round().astype(np.uint8)


def colour_for(dice: random.Random, own: str) -> str:
    """A colour to give a thing, not the one it has."""
    while True:
        sort = dice.random()
        name = (
            dice.choice(list(colours.HUES))
            if sort < 0.74
            else dice.choice(("brown", "black", "black", "white", "white", "grey"))
        )
        if name != own:
            return dice.choice(("", "", "", "dark ", "light ")) + name if name in colours.HUES else name


def coloured_captions(name: str, colour: str, style: str) -> list[str]:
    """What a thing of one colour is called."""
    words = [colour, colour.replace("light", "pastel")] if colour.startswith("light") else [colour]
    out = [text for word in words for text in (article(f"{word} {name}"), f"{word} {name}")]
    return [*out, f"{name} in {colour}", f"{article(f'{colour} {name}')}, {style}"]


def recolourings(cuts: Sequence[Cut], each: int, of_concepts: int) -> Iterator[Variant]:
    """Every thing in `each` other colours, the concepts of the table in `of_concepts`."""
    for cut in cuts:
        dice = random.Random(f"recoloured {cut.id}")
        taken = {cut.colour}
        for n in range(of_concepts if cut.concepts else each):
            colour = colour_for(dice, cut.colour)
            if colour not in taken:
                taken.add(colour)
                yield recolouring(cut, colour, f"{cut.id}+{n}")


def recolouring(cut: Cut, colour: str, name: str) -> Variant:
    captions = coloured_captions(cut.name, colour, cut.style)
    return Variant(name, "recoloured", [cut], [colour], [(0.5, 0.5, 1, 1)], captions, colour=colour)


def compositions(cuts: Sequence[Cut], count: int, name: str) -> Iterator[Variant]:
    """`count` pictures of more than one thing, or of one thing in a place; half of the things are of the concept table."""
    by_style: dict[str, list[Cut]] = {}
    for cut in cuts:
        by_style.setdefault(cut.style, []).append(cut)
    known = [cut for cut in cuts if cut.concepts]
    for n in range(count if cuts else 0):
        dice = random.Random(f"composition {name} {n}")
        first = dice.choice(known if known and dice.random() < 0.6 else cuts)
        kin = by_style[first.style] if dice.random() < 0.75 else cuts
        for _ in range(8):  # a second thing, of another name and mostly in the same style
            second = dice.choice(kin)
            if second.name != first.name and not set(first.concepts) & set(second.concepts):
                break
        else:
            continue
        yield composition(first, second, dice, f"composition-{name}-{n}")


def composition(first: Cut, second: Cut, dice: random.Random, name: str, sort: float | None = None) -> Variant:
    """Two things, one several times, one small, or one on a coloured ground; `sort` in [0, 1) says which."""
    sort = dice.random() if sort is None else sort
    gives = [colour_for(dice, cut.colour) if dice.random() < 0.25 else "" for cut in (first, second)]
    said = [f"{colour} {cut.name}" if colour else cut.name for colour, cut in zip(gives, (first, second), strict=True)]
    a, b = map(article, said)
    cuts, given = [first, second], gives
    if sort < 0.42:
        boxes = BESIDE
        captions = [f"{a} and {b}", f"{a} next to {b}", f"{b} and {a}", f"{a} beside {b}"]
    elif sort < 0.54:
        boxes = ABOVE
        captions = [f"{a} above {b}", f"{b} below {a}", f"{a} and {b}"]
    elif sort < 0.62:
        boxes = BIG_AND_SMALL
        captions = [f"a big {said[0]} and a small {said[1]}", f"a small {said[1]} next to a big {said[0]}", f"{a} and {b}"]
    elif sort < 0.84:
        number = dice.choice((2, 2, 3, 3, 4))
        boxes = COUNTS[number]
        cuts, given = [first] * number, gives[:1] * number
        captions = [f"{NUMBERS[number]} {plural(said[0])}", f"{number} {plural(said[0])}"]
    elif sort < 0.88:
        boxes, cuts, given = SMALL, [first], gives[:1]
        captions = [f"a small {said[0]}", f"a little {said[0]}", f"a tiny {said[0]}"]
    else:
        boxes, cuts, given = SINGLE, [first], gives[:1]
        captions = []
    made = Variant(name, "composition", cuts, given, jittered(dice.choice(boxes), dice), captions, dice.random() < 0.3)
    if not captions or dice.random() < 0.12:
        put_on_ground(made, dice, captions or [a, said[0]])
    if len(cuts) == 1:
        made.colour = given[0] or first.colour
    return made


def pairs(cuts: Sequence[Cut], count: int, name: str) -> Iterator[Variant]:
    """`count` pictures of two things side by side, in their own colours, on white."""
    for n in range(count if len({cut.name for cut in cuts}) > 1 else 0):
        dice = random.Random(f"pair {name} {n}")
        first = dice.choice(cuts)
        second = dice.choice([cut for cut in cuts if not set(cut.concepts) & set(first.concepts)])
        captions = [f"{article(first.name)} and {article(second.name)}"]
        yield Variant(f"pair-{name}-{n}", "composition", [first, second], ["", ""], BESIDE[0], captions)


def jittered(boxes: list[tuple[float, float, float, float]], dice: random.Random) -> list[tuple[float, float, float, float]]:
    """Places, each a little moved and made up to a fifth smaller, alike for all."""
    size = dice.uniform(0.8, 1.0)
    return [(x + dice.uniform(-0.02, 0.02), y + dice.uniform(-0.03, 0.03), size * w, size * h) for x, y, w, h in boxes]


def put_on_ground(made: Variant, dice: random.Random, captions: list[str]) -> None:
    """Gives a picture a ground of one colour, or of two that melt into each other, and says so."""
    names = dice.sample([*colours.HUES, "brown", "black", "grey"], 2)
    ends = [tuple(int(255 * c) for c in tone(name, dice)) for name in names]
    graded = dice.random() < 0.4
    made.ground = (ends[0], ends[1] if graded else ends[0])  # type: ignore[assignment]
    where = f"{names[0]} and {names[1]}" if graded else names[0]
    made.captions = [text for c in captions[:2] for text in (f"{c} on {where}", f"{c} on {article(where)} background")]


def tone(name: str, dice: random.Random) -> np.ndarray:
    """An RGB colour (3,) of that name."""
    if name == "black":
        return np.full(3, dice.uniform(0, 0.12))
    if name == "grey":
        return np.full(3, dice.uniform(0.45, 0.7))
    if name == "brown":
        return colours.rgb_of(dice.uniform(18, 32), dice.uniform(0.5, 0.7), dice.uniform(0.35, 0.55))
    return colours.rgb_of(colours.HUES[name] + dice.uniform(-6, 6), dice.uniform(0.45, 0.95), dice.uniform(0.75, 1.0))
