"""The measures on pictures whose answer is known."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from unialign_gen.checkpoints import faithfulness
from unialign_gen.checkpoints.faithfulness import NONSENSE, PAIRS, both_named, components, dominant_hue
from unialign_gen.data.manifest import Row, write
from unialign_gen.eval.judge import Judge


def disc(colour, size=128, at=(0.5, 0.5), radius=0.3, page=None):
    page = page or Image.new("RGB", (size, size), "white")
    x, y, r = at[0] * size, at[1] * size, radius * size
    ImageDraw.Draw(page).ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return page


@pytest.mark.parametrize(
    ("degrees", "name"),
    [(0, "red"), (352, "red"), (30, "orange"), (48, "yellow"), (120, "green"), (210, "blue"), (270, "purple"), (335, "pink")],
)
@pytest.mark.parametrize("saturation", [0.5, 1.0])
def test_hues_have_their_names(degrees, name, saturation):
    rgb = tuple(round(255 * v) for v in colorsys.hsv_to_rgb(degrees / 360, saturation, 0.9))
    assert dominant_hue(disc(rgb)) == name


def test_the_most_common_hue_wins_and_white_grey_and_black_have_none():
    page = disc((220, 40, 50), radius=0.4)
    assert dominant_hue(disc((40, 60, 220), radius=0.2, page=page)) == "red"
    for grey in ((255, 255, 255), (128, 128, 128), (10, 10, 12)):
        assert dominant_hue(disc(grey)) is None
    little = disc((60, 60, 60), radius=0.4)
    assert dominant_hue(disc((0, 200, 0), radius=0.05, page=little)) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("size", [64, 128, 512])
def test_things_on_white_are_counted(count, size):
    page = Image.new("RGB", (size, size), "white")
    for at in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)][:count]:
        page = disc("navy", size, at, 0.15, page)
    assert components(page) == count
    assert components(disc("navy", size, (0.5, 0.5), 0.01, page.copy())) == count  # a speck is no thing


def test_a_ring_is_one_thing_and_touching_discs_are_one():
    page = disc("white", radius=0.2, page=disc("green", radius=0.4))
    assert components(page) == 1
    assert components(disc("green", at=(0.3, 0.5), radius=0.25, page=disc("green", at=(0.7, 0.5), radius=0.25))) == 1


class ByColour(Judge):
    """Names what it sees by its colours: red is a dog, green an elephant, blue a frog; the rest never comes first."""

    def __init__(self):
        self.concepts = ["dog", "elephant", "frog", "a", "b", "c"]

    def features(self, pictures):
        return torch.stack([torch.from_numpy(255.0 - np.asarray(p).astype(np.float32)).flatten(0, 1).mean(0) for p in pictures])

    def named(self, features, k=1):
        lost = features.argmin(1).tolist()  # a red thing takes all but red from the page
        return [[self.concepts[i]] for i in lost]


def test_pairs_are_named_in_their_halves_whichever_side():
    judge = ByColour()
    both = disc((255, 0, 0), at=(0.25, 0.5), radius=0.2)
    both = disc((0, 255, 0), at=(0.75, 0.5), radius=0.2, page=both)
    assert both_named(judge, both, "dog", "elephant")
    assert both_named(judge, both, "elephant", "dog")
    assert not both_named(judge, both, "dog", "frog")
    assert not both_named(judge, disc((255, 0, 0)), "dog", "elephant")


def test_lists_are_of_the_length_they_say():
    assert len(set(NONSENSE)) == 40
    assert len(set(PAIRS)) == 40
    assert len(faithfulness.COUNTED) == 20
    assert all(a != b for a, b in PAIRS)


class Pipeline:
    """Understands colour words, and draws each prompt's words truthfully, or one stock picture."""

    def __init__(self, honest):
        self.honest = honest

    class aligner:  # noqa: N801
        @staticmethod
        def embed(kind, pictures):
            return torch.nn.functional.normalize(ByColour().features(pictures) + 1e-3, dim=1)

    def embed(self, text):
        return self.aligner.embed("image", [self.draw(t, 0) for t in text])

    def draw(self, text, seed):
        colours = {"dog": (255, 0, 0), "elephant": (0, 255, 0), "frog": (0, 0, 255)}
        words = {"red": (220, 40, 40), "yellow": (250, 210, 60), "green": (40, 200, 40), "blue": (40, 60, 220)}
        words["purple"] = (140, 60, 220)
        if not self.honest:
            return disc((220, 40, 40), radius=0.3)
        said = [words[w] for w in text.split() if w in words]
        numbers = {"two": 2, "three": 3, "four": 4}
        for word, count in numbers.items():
            if text.startswith(word):
                page = Image.new("RGB", (128, 128), "white")
                for at in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)][:count]:
                    page = disc("navy", at=at, radius=0.15, page=page)
                return page
        things = [colours[w] for w in text.split() if w in colours]
        if len(things) == 2:
            return disc(things[1], at=(0.75, 0.5), radius=0.2, page=disc(things[0], at=(0.25, 0.5), radius=0.2))
        return disc((said or things or [(9, 9, 9)])[0], radius=0.1 + 0.03 * seed)


@pytest.mark.parametrize("honest", [True, False])
def test_an_honest_decoder_keeps_all_and_a_stock_picture_little(tmp_path, honest):
    rows = []
    for i, thing in enumerate(["dog", "elephant", "frog"] * 3):
        rows.append(Row(f"{i}", "picture", "s", f"{i}", "MIT", "A", [thing], "emoji", [thing], "test", f"{i}.png"))
        colours = {"dog": (255, i * 20, 0), "elephant": (0, 255, i * 20), "frog": (i * 20, 0, 255)}
        disc(colours[thing]).save(tmp_path / f"{i}.png")
    write(tmp_path, rows)
    pipeline, seeds = Pipeline(honest), iter(range(10**6))

    def draw(wanted):
        made = [pipeline.draw(p.value, next(seeds) % 8) for p in wanted]
        return made, list(pipeline.embed([p.value for p in wanted])) if wanted else []

    found = faithfulness.evaluate(pipeline, tmp_path, draw, ByColour(), 50, lambda texts: [t not in NONSENSE for t in texts])
    assert found["colour"]["n"] == 50
    assert found["colour"]["value"] == (1.0 if honest else 0.2)
    assert found["counts"]["value"] == (1.0 if honest else 0.0)
    assert found["pairs"]["n"] == 2
    assert found["pairs"]["value"] == (1.0 if honest else 0.0)
    assert found["variety"]["n"] == 3
    assert found["nonsense called so"] == {"value": 1.0, "ci95": pytest.approx([0.9124, 1.0], abs=1e-3), "n": 40}
    assert found["captions called nonsense"]["value"] == 0.0
    few = faithfulness.evaluate(pipeline, tmp_path, draw, ByColour(), 30)
    assert few["colour"]["n"] == 30
    if not honest:
        assert found["variety"]["value"] == pytest.approx(0, abs=1e-6)
    assert "colour, thing named" in faithfulness.table(found)
