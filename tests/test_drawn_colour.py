"""A colour that is asked for and cannot be seen in the picture is said."""

import json

import pytest
from PIL import Image, ImageDraw

from unialign_gen.checkpoints.recipe.colours import NAMES
from unialign_gen.checkpoints.recipe.plan import table
from unialign_gen.loading import find
from unialign_gen.pipelines.colours import colours_said, own_colours
from unialign_gen.pipelines.drawn_colour import HUES, SHADES, share_of
from unialign_gen.request.arguments import ask
from unialign_gen.serving import BatchingEngine


def spot(colour, ground="white"):
    """A picture of a spot of a colour, on white."""
    picture = Image.new("RGB", (64, 64), ground)
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=colour, outline="black")
    return picture


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("an orange elephant", ["orange"]),
        ("Two Pink cats on a green sofa.", ["pink"]),  # its own colour, not that of what it is on
        ("a red, shiny car", ["red"]),
        ("an orange", []),  # a fruit
        ("a red and blue parrot", ["red", "blue"]),
        ("a black-and-white cat", ["black", "white"]),
        ("a cat with red shoes", []),
        ("a girl holding a red balloon", []),
        ("a brown dog", ["brown"]),
        ("The car is dark blue.", ["blue"]),
        ("a car in silver and red", []),  # of colours that are told alone
        ("a car in red", ["red"]),
    ],
)
def test_the_colours_that_a_text_says_of_its_thing(text, colours):
    assert colours_said(text) == colours


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("a black cat with green eyes", "a black cat with eyes"),
        ("a boy in an orange and light blue shirt", "a boy in a shirt"),
        ("a girl wearing a red umbrella", "a girl wearing an umbrella"),
        ("a flying red dragon", "a flying red dragon"),
        ("a blue-eyed white cat", "a white cat"),
        ("The horse is brown", "The horse is brown"),
        ("a red car", "a red car"),
    ],
)
def test_what_is_around_a_thing_loses_its_colours(text, own):
    assert own_colours(text) == own


@pytest.mark.parametrize("colour", [c for c in HUES if c not in ("teal", "navy", "brown")])
def test_a_colour_is_seen_whatever_its_shade(colour):
    shades = {"cyan": "darkcyan", "turquoise": "paleturquoise", "violet": "plum"}.get(colour, f"light{colour}")
    shades = {"lightred": "lightcoral", "lightorange": "sandybrown", "lightpurple": "plum"}.get(shades, shades)
    for shade in (colour, shades):
        assert share_of(spot(shade), colour) > 0.5, shade
    assert share_of(spot("grey"), colour) < 0.05
    assert share_of(Image.new("RGB", (64, 64), "white"), colour) == 0


@pytest.mark.parametrize("colour", ["brown", *SHADES])
def test_shades_are_told_from_hues_and_on_a_ground_of_a_colour(colour):
    shade = {"white": "gainsboro", "black": "#303030", "brown": "saddlebrown"}.get(colour, colour)
    blue = (74, 127, 224)
    assert share_of(spot(shade), colour) > 0.5
    assert share_of(spot("tomato"), colour) < 0.25
    assert (share_of(spot("#0a1430"), colour) > 0.5) == (colour == "black")
    assert share_of(spot(shade, ground=blue), colour, tuple(part / 255 for part in blue)) > 0.5


def test_brown_and_beige_are_no_orange_and_the_ground_does_not_count():
    for brown in ("beige", (165, 150, 130)):
        assert share_of(spot(brown), "orange") < 0.05
    assert share_of(spot("gainsboro", ground=(255, 250, 245)), "orange") < 0.05


def test_what_is_drawn_without_its_colour_is_a_note(starter, monkeypatch):
    small = {"seed": 0, "upscale": 1, "num_inference_steps": 4}
    assert starter(text="a red car", **small).notes == []
    drawn = starter.upscaled
    monkeypatch.setattr(starter, "upscaled", lambda *asked: [p.convert("L").convert("RGB") for p in drawn(*asked)])
    (told,) = starter(text="a red car", **small).notes
    assert str(told) == "colour: hardly anything of 'a red car' is drawn red"
    told = starter(text=["a red car", "a cat"], num_images_per_prompt=2, **small).notes
    assert [n.text for n in told] == ["hardly anything of 'a red car' is drawn red, 2 of 2 times"]
    told = starter(text="a red car and two blue cats and a dog", **small).notes
    assert [n.text[19:] for n in told] == ["'a red car' is drawn red", "'a blue cat' is drawn blue, 2 of 2 times"]
    with BatchingEngine(4) as engine:
        asked = [engine.submit(starter, ask(text=text, **small)) for text in ("a red car", "a dog")]
        assert [[n.kind for n in one.result(60).notes] for one in asked] == [["colour"], []]
    for unseen in ({"text": "a red car", "weights": -1.0}, {"text": ("a red car", "a cow")}, {"text": "a car"}):
        assert starter(**unseen, **small).notes == [], unseen
    told = starter(text=("a red car", "a cow"), mix="beside", **small).notes
    assert [n.text for n in told] == ["hardly anything of 'a red car' is drawn red"]
    monkeypatch.undo()
    assert starter(text="a red car", output_type="np", **small).notes == []  # which are not looked at


def test_each_of_several_things_is_looked_at_in_its_place(starter, monkeypatch):
    """One that has the colour of its neighbour is not taken for it."""
    half = [Image.new("RGB", (64, 64), "white")]
    half[0].paste(Image.new("RGB", (32, 64), "orange"), (32, 0))
    monkeypatch.setattr(starter, "upscaled", lambda *_: half)
    small = {"seed": 0, "upscale": 1, "num_inference_steps": 1}
    told = [starter(text=text, **small).notes for text in ("an orange dog and a cat", "a cat and an orange dog")]
    assert [[n.kind for n in notes] for notes in told] == [["colour"], []]


@pytest.mark.parametrize(
    ("said", "read", "hue"),
    [
        ("navy", "dark blue", "blue"),
        ("teal", "dark green", "green"),
        ("maroon", "dark red", "red"),
        ("golden", "yellow", "yellow"),
        ("violet", "purple", "purple"),
        ("magenta", "pink", "pink"),
    ],
)
def test_a_colour_that_no_caption_names_is_read_as_the_nearest_and_drawn(starter, said, read, hue):
    texts = [f"a {said} {thing}" for thing in ("car", "bird", "fish", "butterfly")]
    drawn = starter(text=texts, seed=0, upscale=1, num_inference_steps=6)
    assert sum(share_of(picture, hue) > 0.25 for picture in drawn.images) >= 3
    assert [str(n) for n in drawn.notes if n.kind == "read as"] == [
        f"read as: 'a {said}' is read as 'a {read}', which this checkpoint was taught"
    ]
    assert "unknown words" not in [n.kind for n in drawn.notes]


def test_the_shipped_encoder_reads_the_words_of_the_recipes_table():
    words = {row["word"]: row["read as"] for row in table("colour_words")}
    kept = json.loads((find("starter") / "aligner" / "text" / "config.json").read_text())
    assert kept == {"encoder": "minilm", "words": words}
    assert {meant.split()[-1] for meant in words.values()} <= set(NAMES)
    assert not any(meant in words for meant in words.values())
