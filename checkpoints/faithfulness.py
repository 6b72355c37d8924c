"""Do drawings keep what prompts say? Colour, variety, pairs, counts and read-back on fixed lists of prompts.

Each is a count that a decoder which draws one stock picture a thing cannot reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import label
from torch import Tensor

from unialign_gen.data.manifest import read
from unialign_gen.diagnostics import wilson
from unialign_gen.eval.figures import Estimate, bootstrap
from unialign_gen.eval.judge import Judge
from unialign_gen.eval.scores import spread
from unialign_gen.media.text import with_article

from .evaluation_sets import Prompt, prompts

HUES = {"red": 15, "orange": 40, "yellow": 70, "green": 165, "blue": 250, "purple": 320, "pink": 345}  # degrees, each up to
BACKGROUND, PALE, DARK, LEAST = 240, 64, 50, 0.15
COLOURS = ("red", "yellow", "green", "blue", "purple")
COLOURED = ("car", "bird", "cat", "frog", "flower", "house", "butterfly", "apple", "fish", "hat")
THINGS = (
    *("dog", "cat", "cow", "pig", "horse", "elephant", "lion", "rabbit", "bird", "owl", "penguin", "frog", "fish"),
    *("butterfly", "turtle", "car", "bus", "train", "airplane", "bicycle", "guitar", "drum", "clock", "sun"),
)
PAIRS = tuple((THINGS[i], THINGS[(i + apart) % len(THINGS)]) for apart in (5, 11) for i in range(20))
NUMBERS = {2: "two", 3: "three", 4: "four"}
COUNTED = tuple(itertools.product(NUMBERS, ("apples", "balls", "stars", "cats", "birds", "flowers", "cars")))[:20]
SEEDS, REAL = 8, 24
SPOT = 20  # pixels of a picture of 64 x 64: smaller spots are no things
NONSENSE = (
    *("asdfgh qwerty", "zzxqv", "blorptang", "wug fep dax", "kjhgfd", "xxxxxx", "vrelm ostrik", "gnarb the flim", "qwop zxcv"),
    *("ftmch", "mimsy borogoves", "slithy toves gimble", "lorem ipsum dolor", "sphinxen tarvok", "hjkl hjkl", "prx 77 kq"),
    *("foo bar baz qux", "trellomi", "ouiaeu", "bcdfg", "猫", "собака", "کتاب", "犬と猫", "дом", "זאב", "ξύλο", "강아지"),
    *("ein schmetterling", "une grenouille verte", "ptak na drzewie", "sinek uçuyor", "kupu-kupu", "mbwa mwekundu"),
    *("🫠🫥", "?!?!", "%%%", "12345 67890", "...", "<div></div>"),
)


def evaluate(
    pipeline: Any,
    root: Path,
    draw: Callable[[Sequence[Prompt]], tuple[list[Image.Image], list[Tensor]]],
    judge: Judge,
    limit: int,
    understood: Callable[[Sequence[str]], list[bool]] | None = None,
) -> dict[str, Any]:
    """Every measure on at most `limit` prompts of each list.

    Args:
        root: the data set, for real pictures of things and real captions.
        draw: one picture a prompt, and the unit embedding (d,) that it was drawn of.
        understood: whether texts mean anything to the checkpoint, if it says so.

    Returns:
        By measure `value`, its 95 % interval `ci95`, and `n`. Where the judge is asked, `n` counts what it knows. The variety
        of a thing that it names in fewer than two of eight drawings is nought.
    """
    pictures: list[Image.Image] = []
    points: list[Tensor] = []

    def drawn(wanted: Sequence[Prompt]) -> list[Image.Image]:
        made, of = draw(wanted)
        pictures.extend(made)
        points.extend(of)
        return made

    found: dict[str, Any] = {}
    coloured = list(itertools.product(COLOURS, COLOURED))[:: max(1, 50 // max(1, limit))][:limit]
    made = drawn([Prompt("text", f"a {c} {t}", [t]) for c, t in coloured])
    right = [dominant_hue(p) == c for p, (c, _) in zip(made, coloured, strict=True)]
    named = [t in top for top, (_, t) in zip(judge.top(made), coloured, strict=True)]
    found["colour"] = share(right)
    kept = [r and n for r, n, (_, t) in zip(right, named, coloured, strict=True) if t in judge.concepts]
    found["colour, thing named"] = share(kept)

    things = [t for t in THINGS if t in judge.concepts][:limit]
    made = drawn([Prompt("text", with_article(t), [t]) for t in things for _ in range(SEEDS)])
    named = [thing in top for top, thing in zip(judge.top(made), [t for t in things for _ in range(SEEDS)], strict=True)]
    features, ratios = judge.features(made), []
    for i, thing in enumerate(things):
        mine = features[i * SEEDS : (i + 1) * SEEDS][torch.tensor(named[i * SEEDS : (i + 1) * SEEDS])]
        real = real_pictures(root, thing)
        if len(real) > 1:
            ratios.append(float(spread(mine).mean() / spread(judge.features(real)).mean()) if len(mine) > 1 else 0.0)
    found["variety"] = estimate(ratios)
    found["variety, thing named"] = share(named)

    pairs = [pair for pair in PAIRS if set(pair) <= set(judge.concepts)][:limit]
    made = drawn([Prompt("text", f"{with_article(a)} and {with_article(b)}", [a, b]) for a, b in pairs])
    found["pairs"] = share([both_named(judge, p, *pair) for p, pair in zip(made, pairs, strict=True)])

    made = drawn([Prompt("text", f"{NUMBERS[n]} {things}", []) for n, things in COUNTED[:limit]])
    found["counts"] = share([components(p) == n for p, (n, _) in zip(made, COUNTED, strict=False)])

    seen = pipeline.aligner.embed("image", pictures).cpu()
    found["read-back"] = estimate((torch.stack(points) * seen).sum(1).tolist())
    if understood is not None:
        captions = [p.value for p in prompts(root, "held_out", limit)["text"]]
        found["nonsense called so"] = share([not u for u in understood(NONSENSE[:limit])])
        found["captions called nonsense"] = share([not u for u in understood(captions)])
    return found


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """A share with Wilson's interval."""
    n = len(hits)
    return {"value": sum(hits) / n if n else 0.0, "ci95": list(wilson(sum(hits), n)), "n": n}


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """A mean with its bootstrap interval."""
    found = bootstrap(values) if len(values) else Estimate(0.0, 0.0, 0.0)
    return {"value": found.value, "ci95": [found.low, found.high], "n": len(values)}


def ink(picture: Image.Image) -> np.ndarray:
    """Where a picture is not its near-white background (h, w)."""
    return np.asarray(picture.convert("RGB")).min(-1) < BACKGROUND


def dominant_hue(picture: Image.Image) -> str | None:
    """The name of the hue that most of a thing's coloured pixels have; None where hardly any are coloured."""
    hue, saturation, value = np.moveaxis(np.asarray(picture.convert("HSV")).astype(int), -1, 0)
    there = ink(picture)
    coloured = there & (saturation >= PALE) & (value >= DARK)
    if coloured.sum() <= LEAST * there.sum():
        return None
    degrees = hue[coloured] * 360 / 256
    bins = np.digitize(degrees, list(HUES.values())) % len(HUES)  # beyond pink comes red again
    return list(HUES)[int(np.bincount(bins, minlength=len(HUES)).argmax())]


def real_pictures(root: Path, thing: str) -> list[Image.Image]:
    """Up to 24 pictures of a thing, spread over the data set."""
    rows = [r for r in read(root) if r.kind == "picture" and thing in r.concepts]
    return [Image.open(root / r.path).convert("RGB") for r in rows[:: max(1, len(rows) // REAL)][:REAL]]


def both_named(judge: Judge, picture: Image.Image, a: str, b: str) -> bool:
    """Whether the judge names both things: each in a half of its own, or both in the whole, within five."""
    width, height = picture.size
    halves = []
    for left in (0, width - width // 2):
        page = Image.new("RGB", (height, height), "white")
        page.paste(picture.crop((left, 0, left + width // 2, height)), ((height - width // 2) // 2, 0))
        halves.append(page)
    first, second, whole = (set(top) for top in judge.top([*halves, picture]))
    return (a in first and b in second) or (b in first and a in second) or {a, b} <= whole


def components(picture: Image.Image) -> int:
    """The number of separate things on white: connected spots of at least 20 pixels at 64 x 64."""
    grey = Image.fromarray((ink(picture) * 255).astype(np.uint8)).resize((64, 64), Image.Resampling.BOX)
    spots, _ = label(np.asarray(grey) >= 128, structure=np.ones((3, 3)))
    return int((np.bincount(spots.ravel())[1:] >= SPOT).sum())


def table(found: dict[str, Any]) -> str:
    """The measures for a person to read."""
    lines = [f"{'drawings keep':<28}{'value':>7}  {'95 % interval':<15}{'N':>6}"]
    for name, row in found.items():
        low, high = row["ci95"]
        lines.append(f"{name:<28}{row['value']:>7.3f}  {f'{low:.3f} - {high:.3f}':<15}{row['n']:>6}")
    return "\n".join(lines)
