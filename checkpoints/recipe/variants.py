"""More pictures out of the ones there are: in other colours, beside each other, several at once, on coloured grounds."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from unialign_gen.data.manifest import Row
from unialign_gen.data.storage import write_rows

from . import colours
from .concepts import NOUN, article
from .cut_outs import SIDE, fitted
from .files import new_array
from .plan import SIZES, table
from .rows import Picture, coloured, grouped

FIVE = ("red", "yellow", "green", "blue", "purple")
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {row["one"]: row["many"] for row in table("plurals")}
Box = tuple[float, float, float, float]  # centre x and y, width and height, in sides
Ground = tuple[tuple[int, ...], tuple[int, ...]]  # RGB colours of top and bottom
WHITE: Ground = ((255,) * 3,) * 2
WHOLE: Box = (0.5, 0.5, 1, 1)
# places of one to four things
SMALL = [[(x, y, 0.32, 0.32)] for x in (0.3, 0.5, 0.7) for y in (0.4, 0.6)]
BESIDE = [[(0.26, 0.5, 0.45, 0.7), (0.74, 0.5, 0.45, 0.7)]]
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
# what a composition shows: of a number in [0, 1) up to which, its places (None: those of a count), its captions
SORTS: tuple[tuple[float, list[list[Box]] | None, tuple[str, ...]], ...] = (
    (0.42, BESIDE, ("{a} and {b}", "{a} next to {b}", "{b} and {a}", "{a} beside {b}")),
    (0.54, [[(0.5, 0.26, 0.7, 0.45), (0.5, 0.74, 0.7, 0.45)]], ("{a} above {b}", "{b} below {a}", "{a} and {b}")),
    (0.62, BIG_AND_SMALL, ("a big {one} and a small {other}", "a small {other} next to a big {one}", "{a} and {b}")),
    (0.84, None, ("{word} {many}", "{number} {many}")),
    (0.88, SMALL, ("a small {one}", "a little {one}", "a tiny {one}")),
    (1.0, [[(0.5, 0.5, 0.78, 0.78)]], ()),
)
TOGETHER = 0.62  # below this there are two things, above one, once or several times


@dataclass
class Cut:
    """A cut-out that can stand in a picture: its place among the cut-outs, its row, and what it is called."""

    number: int
    row: Picture
    name: str


@dataclass
class Variant:
    """A picture to be made, and its row; `parts` are numbers of cut-outs, the colour that each is given or "", and its box."""

    row: Picture
    parts: list[tuple[int, str, Box]]
    mirrored: bool = False
    ground: Ground = WHITE


def variant(
    name: str, parts: Sequence[tuple[Cut, str, Box]], captions: list[str], colour: str, kind: str = "composition", **how: Any
) -> Variant:
    """A picture made of others: of their split, and of the stricter tier."""
    made_of = [cut.row for cut, _, _ in parts]
    first, tier, ids = made_of[0], max(row.tier for row in made_of), [row.id for row in made_of]
    concepts = list(dict.fromkeys(c for row in made_of for c in row.concepts))
    about = (first.split, tier, first.style, first.source, captions, concepts, colour, kind, ids)
    row = Picture(name, *about, first.id if kind == "recoloured" else None)
    return Variant(row, [(cut.number, given, box) for cut, given, box in parts], **how)


def plural(name: str) -> str:
    """Of a noun of one or two words."""
    *first, last = name.split(" ")
    ending = "es" if re.search("(s|x|z|ch|sh)$", last) else "s"
    many = PLURALS.get(last) or re.sub("[^aeiou]y$", lambda m: m.group()[0] + "ie", last) + ending
    return " ".join([*first, many])


def draw(file: Path, variant: Variant) -> Image.Image:
    """RGB (SIDE, SIDE) out of a file of cut-outs (N, SIDE, SIDE, 4); what is not to fill the picture is trimmed to its box."""
    cut_outs = np.load(file, mmap_mode="r")
    top, bottom = np.array(variant.ground, np.float32)
    ground = top + (bottom - top) * np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    page = Image.fromarray(np.broadcast_to(ground, (SIDE, SIDE, 3)).round().astype(np.uint8), "RGB").convert("RGBA")
    for number, colour, box in variant.parts:
        picture, (x, y, width, height) = Image.fromarray(cut_outs[number], "RGBA"), box
        if colour:
            picture = colours.recoloured(picture, colour)
        if box != WHOLE:
            picture = fitted(picture.crop(picture.getchannel("A").getbbox()), width * SIDE, height * SIDE)
        if variant.mirrored:
            picture = ImageOps.mirror(picture)
        corner = max(0, round(x * SIDE - picture.width / 2)), max(0, round(y * SIDE - picture.height / 2))
        page.alpha_composite(picture, corner)
    return page.convert("RGB")


def colour_for(dice: random.Random, own: str) -> str:
    """A colour to give a thing, not the one it has."""
    while True:
        hue = dice.random() < 0.74
        name = dice.choice(list(colours.HUES) if hue else ["brown", "black", "black", "white", "white", "grey"])
        if name != own:
            return dice.choice(("", "", "", "dark ", "light ")) + name if name in colours.HUES else name


def recolourings(cuts: Sequence[Cut]) -> Iterator[Variant]:
    """Every thing in another colour, the concepts of the table in up to three."""
    for cut in cuts:
        dice = random.Random(f"recoloured {cut.row.id}")
        drawn = [colour_for(dice, cut.row.colour) for _ in range(3 if cut.row.concepts else 1)]
        yield from (recolouring(cut, colour, str(n)) for n, colour in enumerate(drawn) if colour not in drawn[:n])


def recolouring(cut: Cut, colour: str, suffix: str) -> Variant:
    """A thing in another colour."""
    words = dict.fromkeys((colour, colour.replace("light", "pastel")))
    captions = [text for word in words for text in coloured(word, cut.name)]
    captions += [f"{cut.name} in {colour}", f"{article(f'{colour} {cut.name}')}, {cut.row.style}"]
    return variant(f"{cut.row.id}+{suffix}", [(cut, colour, WHOLE)], captions, colour, "recoloured")


def compositions(cuts: Sequence[Cut], count: int, name: str) -> Iterator[Variant]:
    """`count` pictures of more than one thing, or of one thing in a place; half of the things are of the concept table."""
    by_style = grouped((cut.row.style, cut) for cut in cuts)
    known = [cut for cut in cuts if cut.row.concepts]
    for n in range(count if cuts else 0):
        dice = random.Random(f"composition {name} {n}")
        first = dice.choice(known if known and dice.random() < 0.6 else cuts)
        kin = by_style[first.row.style] if dice.random() < 0.75 else cuts
        for _ in range(8):  # a second thing, of another name and mostly in the same style
            second = dice.choice(kin)
            if second.name != first.name and not set(first.row.concepts) & set(second.row.concepts):
                yield composition(first, second, dice, f"composition-{name}-{n}")
                break


def composition(first: Cut, second: Cut, dice: random.Random, name: str) -> Variant:
    """Two things, one several times, one small, or one on a coloured ground."""
    sort = dice.random()
    gives = [colour_for(dice, cut.row.colour) if dice.random() < 0.25 else "" for cut in (first, second)]
    one, other = (f"{colour} {cut.name}".strip() for colour, cut in zip(gives, (first, second), strict=True))
    places, wordings = next((places, wordings) for limit, places, wordings in SORTS if sort < limit)
    number = 1 if places else dice.choice((2, 2, 3, 3, 4))
    cuts, given = ([first, second], gives) if sort < TOGETHER else ([first] * number, gives[:1] * number)
    said = {"a": article(one), "b": article(other), "one": one, "other": other, "many": plural(one)}
    captions = [wording.format(**said, number=number, word=NUMBERS.get(number)) for wording in wordings]
    boxes, size = dice.choice(places or COUNTS[number]), dice.uniform(0.8, 1.0)  # all a little smaller, each a little moved
    boxes = [(x + dice.uniform(-0.02, 0.02), y + dice.uniform(-0.03, 0.03), size * w, size * h) for x, y, w, h in boxes]
    mirrored, ground = dice.random() < 0.3, WHITE
    if not captions or dice.random() < 0.12:
        ground, where = grounds(dice)
        captions = captions or [said["a"], one]
        captions = [text for c in captions[:2] for text in (f"{c} on {where}", f"{c} on {article(where)} background")]
    colour = (given[0] or first.row.colour) if len(cuts) == 1 else ""
    parts = list(zip(cuts, given, boxes, strict=True))
    return variant(name, parts, captions, colour, mirrored=mirrored, ground=ground)


def pairs(cuts: Sequence[Cut], count: int) -> Iterator[Variant]:
    """`count` pictures of two things side by side, in their own colours, on white."""
    for n in range(count if len({cut.name for cut in cuts}) > 1 else 0):
        dice = random.Random(f"pair unseen {n}")
        first = dice.choice(cuts)
        both = [first, dice.choice([cut for cut in cuts if not set(cut.row.concepts) & set(first.row.concepts)])]
        captions = [" and ".join(article(cut.name) for cut in both)]
        yield variant(f"pair-unseen-{n}", [(cut, "", box) for cut, box in zip(both, BESIDE[0], strict=True)], captions, "")


def grounds(dice: random.Random) -> tuple[Ground, str]:
    """A ground of one colour, or of two that melt into each other, and its name."""
    names = dice.sample([*colours.HUES, "brown", "black", "grey"], 2)
    top, bottom = (tuple(int(255 * c) for c in tone(name, dice)) for name in names)
    graded = dice.random() < 0.4
    return (top, bottom if graded else top), " and ".join(names if graded else names[:1])


def tone(name: str, dice: random.Random) -> np.ndarray:
    """An RGB colour (3,) of that name."""
    if name in ("black", "grey"):
        return np.full(3, dice.uniform(0, 0.12) if name == "black" else dice.uniform(0.45, 0.7))
    if name == "brown":
        return colours.rgb_of(dice.uniform(18, 32), dice.uniform(0.5, 0.7), dice.uniform(0.35, 0.55))
    return colours.rgb_of(colours.HUES[name] + dice.uniform(-6, 6), dice.uniform(0.45, 0.95), dice.uniform(0.75, 1.0))


def plain(row: Row, colour: str) -> Picture:
    """A picture as it came; a colour that its name does not say is said in two more captions."""
    about = (row.id, row.split, row.tier, row.style, row.source, list(row.captions), row.concepts)
    shown = Picture(*about, colour, "plain", [row.id], None)
    said = {word for caption in row.captions for word in caption.lower().split()}
    if colour and row.split != "cross" and said.isdisjoint(colours.NAMES) and NOUN.fullmatch(shown.name):
        shown.captions += coloured(colour, shown.name)
    return shown


def cuts(rows: Sequence[Picture], cut_outs: np.ndarray) -> list[Cut]:
    """What can stand in a composition: things with a short name, less its colour, that do not fill the box about them."""
    out = []
    for n, row in enumerate(rows):
        first, _, rest = row.name.partition(" ")
        name = rest if rest and first in colours.NAMES else row.name
        if NOUN.fullmatch(name):
            y, x = np.nonzero(cut_outs[n, ::2, ::2, 3] > 127)
            if len(y) and 0.02 < len(y) / ((np.ptp(y) + 1) * (np.ptp(x) + 1)) < 0.97:
                out.append(Cut(n, row, name))
    return out


def variants(found: Sequence[Cut]) -> list[Variant]:
    """Recoloured pictures and compositions, in mixed order; those of held-out pictures are held out.

    Held-out concepts come in each of five colours, for colour words to be told by.
    """
    train, test = ([cut for cut in found if cut.row.split == split] for split in ("train", "test"))
    known = [cut for cut in test if cut.row.concepts]
    out = [*recolourings(train), *(recolouring(cut, colour, colour) for cut in known for colour in FIVE)]
    out += [*compositions(train, SIZES.compositions, "train"), *compositions(test, SIZES.test_compositions, "test")]
    random.Random(0).shuffle(out)
    return [*out, *pairs([cut for cut in known if "emoji" in cut.row.style], SIZES.pairs)]


def build(root: Path, pictures: Sequence[Row], colour: Sequence[str], jobs: int) -> int:
    """Writes all pictures and their rows, plain ones first; returns how many there are."""
    shown, file = [plain(row, name) for row, name in zip(pictures, colour, strict=True)], root / "cutouts.npy"
    every = [Variant(row, [(n, "", WHOLE)]) for n, row in enumerate(shown)]
    every += variants(cuts(shown, np.load(file, mmap_mode="r")))
    with (
        new_array(root / "pictures128.npy", len(every), SIDE, SIDE, 3) as large,
        new_array(root / "pictures64.npy", len(every), SIDE // 2, SIDE // 2, 3) as small,
        ProcessPoolExecutor(jobs) as pool,
    ):
        for n, picture in enumerate(pool.map(functools.partial(draw, file), every, chunksize=64)):
            large[n], small[n] = np.asarray(picture), np.asarray(picture.reduce(2))
    write_rows(root / "rows.jsonl", (vars(variant.row) for variant in every))
    return len(every)
