"""What a text is drawn as does not show all of its words: which are found out by drawing others."""

import pytest
import torch

import unialign_gen
from unialign_gen.loading import find
from unialign_gen.pipelines.unsaid import MOST, is_noun, unsaid

NOUNS = {"car", "key", "cake", "strawberry", "knife", "rain", "toy"}


def drawn_by(things):
    """Draws the first of some things that a text has a word of, by what it is called."""

    def drawn(texts):
        return [next((name for word, name in things.items() if word in text.lower().split()), "nothing") for text in texts]

    return drawn


@pytest.mark.parametrize(
    ("text", "things", "missing"),
    [
        ("a car key", {"key": "key"}, ["car"]),
        ("a kitchen knife", {"knife": "kitchen knife"}, []),  # which it is called
        ("a rainy street", {"rainy": "rain"}, ["street"]),
        ("a fluffy dog", {"dog": "dog"}, ["fluffy"]),
        ("a running horse", {"running": "running horse", "horse": "horse"}, []),
        ("a toy horse", {"horse": "horse"}, ["toy"]),
        ("a strawberry cake", {"cake": "birthday cake", "strawberry": "strawberry"}, ["strawberry"]),
        ("a fire truck", {"truck": "firetruck"}, []),
        ("a low poly fox", {"fox": "fox"}, ["low poly"]),
        ("a big dog on a small beach", {"dog": "dog"}, ["big", "small beach"]),
        ("a person with a laptop", {"laptop": "keyboard"}, ["person"]),
        ("seven ducks", {"ducks": "duck"}, ["seven"]),
        ("a red apple", {"apple": "apple"}, []),  # colours are looked for in the picture
        ("a picture of a fox", {"fox": "fox"}, []),
        ("a mobile phone", {"mobile": "telephone", "phone": "telephone"}, ["mobile"]),
        ("a dog", {"dog": "animal"}, []),
        ("A Fluffy, sleepy dog.", {"dog": "dog"}, ["Fluffy, sleepy"]),
        ("a bottle of wine", {"bottle": "bottle"}, ["wine"]),
        ("猫 key", {"key": "key"}, ["猫"]),
    ],
)
def test_words_without_which_the_same_is_drawn(text, things, missing):
    assert unsaid(text, drawn_by(things), NOUNS) == missing


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("a boy running", ["boy"]),
        ("a tall building", ["building"]),
        ("a house made of dark chocolate", ["house", "chocolate"]),
        ("a bowl of soup on a table", ["table"]),
        ("a small toy", ["toy"]),
        ("a happy smiling boy", ["boy"]),
        ("a fox chasing a hare", ["fox", "hare"]),
    ],
)
def test_what_its_place_tells_of_a_word(text, nouns):
    words = text.split()
    assert [word for n, word in enumerate(words) if word != "a" and is_noun(words, n, NOUNS)] == nouns


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("a rainy street", ["street"]),
        ("a sunny beach", ["sunny"]),
        ("a pixel art sword", ["pixel art"]),
        ("a robot dog", ["robot"]),
        ("a house made of chocolate", ["house"]),
        ("a sleeping cat", ["sleeping"]),
        ("a christmas tree", []),
        ("a wooden table", []),
    ],
)
def test_the_starter_says_what_is_missing(starter, text, missing):
    told = [n.text for n in starter.embed(text=text).notes if n.kind == "left out"]
    assert [part for text in told for part in text.split("'")[3::2]] == missing


def test_a_text_that_nobody_gave_says_nothing(starter):
    """Each part of a text is encoded for itself: of what it has no word for one note tells."""
    told = [n for n in starter.embed(text="a brgltz dog on a xqvzt hill").notes if n.kind == "unknown words"]
    assert len(told) == 1


def test_what_is_read_as_another_word_is_not_missing_too(starter):
    assert [n.kind for n in starter.embed(text="a crimson rose").notes] == ["read as"]
    assert [n.kind for n in starter.embed(text="a royal blue car").notes] == ["read as"]


def test_what_a_word_is_read_as_is_said_once(starter):
    told = [n.text[:40] for n in starter.embed(text="two golden keys and a cat").notes if n.kind != "one point"]
    assert told == ["'golden' is read as 'yellow', which this"]


def test_one_of_a_thing_is_the_thing(starter):
    plain = starter.embed(text=["a dog", "an apple", "a red car"])
    assert torch.equal(starter.embed(text=["one dog", "1 apple", "one red car"]), plain)
    assert starter.embed(text="one dog").notes == []


def test_what_a_mix_steers_away_from_is_not_missing(starter):
    mixed = starter.embed(text=("a big dog with a hat", "a cat"), weights=[-0.5, 1])
    assert [n for n in mixed.notes if n.kind in ("left out", "drawn as")] == []


def test_a_sound_alone_needs_no_text_encoder():
    fresh = unialign_gen.load("starter")
    cow = find("starter").parent / "samples" / "cow.flac"
    fresh.embed(audio=cow)
    fresh(audio=cow, seed=0, num_inference_steps=2, upscale=1)
    assert "text" not in fresh.aligner.parts


def test_of_a_long_text_the_first_words_are_tried():
    """Each is a text to encode; all that comes after them may be missing, but for what the thing is called."""
    asked = []

    def drawn(texts):
        asked.extend(texts)
        return ["cat"] * len(texts)

    text = "a cat " + " ".join(f"word{n}" for n in range(100)) + " cats"
    (missing,) = unsaid(text, drawn, {"cat"})
    assert len(asked) == 1 + MOST
    assert missing.split() == [f"word{n}" for n in range(100)]
