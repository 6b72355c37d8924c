"""A compound noun is drawn as its last word where that is known, and what it is not drawn as is said."""

import pytest
import torch

from unialign_gen.concepts import checkpoint_folder
from unialign_gen.concepts.understanding import Understood
from unialign_gen.pipelines.compounds import compound, shortened, unsaid
from unialign_gen.pipelines.named import understanding_in

NOUNS = {"car", "key", "bird", "cage", "strawberry", "cake", "fish", "starfish", "orange", "cherry"}
AS_CAR = Understood(True, 0.7, ("police car", "bus"))


def drawn_as(pipeline, text, **request):
    """The known thing that lies nearest to what is drawn."""
    point = pipeline.embed(text=text, **request)
    (found,) = understanding_in(checkpoint_folder(pipeline))(torch.as_tensor(point), "text", guesses=1)
    return found.nearest[0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a car key", ("a ", ["car"], "key", "")),
        ("Two red car keys.", ("Two ", ["red", "car"], "keys", "")),
        ("a drawing of a bird cage in a tree", ("a drawing of a ", ["bird"], "cage", " in a tree")),
        ("bird cage", ("", ["bird"], "cage", "")),
        ("a key", None),  # one word
        ("a glass of water", None),
        ("a bird and a key", None),
        ("a bird on blue", None),
        ("a bird blue", None),
        ("a spider playing soccer", None),  # no noun of what comes before
        ("a dog face", None),  # how it is shown
        ("dog, animal, pet", None),  # a list of words
        ("a very quick brown fox jumps", None),  # longer than nouns are
        ("猫 key", ("", ["猫"], "key", "")),
    ],
)
def test_a_text_is_taken_apart_or_left_alone(text, parts):
    found = compound(text, NOUNS)
    assert (found if found is None else tuple(found)) == parts


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("a car key", ("a key", "key")),
        ("an old car key on a table", ("an old key on a table", "key")),
        ("two orange car keys", ("two orange keys", "keys")),  # a colour, though it is a fruit too
        ("photo of a car key", ("photo of a key", "key")),
        ("a car ladder", None),  # nothing known is called so
        ("a police car", None),  # as it is drawn
        ("a key", None),
    ],
)
def test_what_stands_before_the_noun_is_left_out_and_colours_stay(text, short):
    assert shortened(text, AS_CAR, NOUNS) == short


def test_two_words_are_one_where_that_is_known():
    assert shortened("a star fish", Understood(True, 0.8, ("fish",)), NOUNS) == ("a starfish", "starfish")
    assert shortened("a star fish", Understood(True, 0.8, ("starfish",)), NOUNS) is None


def test_what_is_not_drawn_is_named():
    assert unsaid("a car key", AS_CAR, NOUNS) == ["key"]
    assert unsaid("a car ladder", AS_CAR, NOUNS) == ["ladder"]
    assert unsaid("car ladder", AS_CAR, NOUNS) == []  # two words alone may be anything: "dog clipart 3d"
    assert unsaid("a strawberry cake", Understood(True, 0.7, ("birthday cake", "pancakes")), NOUNS) == ["strawberry"]
    assert unsaid("an orange bird", Understood(True, 0.7, ("bird",)), NOUNS) == []
    assert unsaid("a cherry cake", Understood(True, 0.7, ("birthday cake", "cherry pie")), NOUNS) == []


@pytest.mark.parametrize(
    ("text", "drawn", "before"),
    [("a strawberry cake", "cake", "strawberry"), ("a car key", "key", "car"), ("a bicycle wheel", "wheel", "bicycle")],
)
def test_the_starter_draws_the_noun_and_says_what_may_be_missing(starter, text, drawn, before):
    assert drawn in drawn_as(starter, text)
    assert before in drawn_as(starter, text, prior_strength=0)  # as it is encoded
    (told,) = starter.embed(text=text).notes
    assert str(told).startswith(f"left out: of '{text}' '{before}' may be missing")


def test_a_noun_that_is_not_known_is_said(starter):
    assert "bird" in drawn_as(starter, "a bird cage")
    (told,) = starter.embed(text="a bird cage").notes
    assert str(told).startswith("left out: of 'a bird cage' 'cage' may be missing")


def test_it_holds_for_each_of_several_things_and_in_mixes(starter):
    """Each thing of a text, each input of a mix, whatever its weight."""
    few = {"seed": 0, "num_inference_steps": 1, "upscale": 1, "prior_temperature": 0}
    drawn = starter(text="a dog and a car key", **few)
    assert drawn.images[0].tobytes() == starter(text="a dog and a key", **few).images[0].tobytes()
    assert [n.text.split("'")[3] for n in drawn.notes] == ["car"]
    ways = ({"weights": [0.7, 0.3]}, {"weights": [-0.2, 1.2]}, {"mix": "slerp"})
    for way in ways:
        one, other = (starter.embed(text=(text, "a dog"), **way) for text in ("a car key", "a key"))
        assert torch.allclose(torch.as_tensor(one), torch.as_tensor(other), atol=1e-5), way


def test_the_colour_of_a_compound_is_that_of_its_noun(starter):
    few = {"seed": 0, "num_inference_steps": 1, "upscale": 1, "prior_temperature": 0}
    red, plain = (starter(text=text, **few).images[0].tobytes() for text in ("a red car key", "a car key"))
    assert red == starter(text="a red key", **few).images[0].tobytes() != plain


def test_real_captions_are_hardly_ever_moved(starter):
    """Of other makers' captions, which nobody chose: those that are moved are named after what stands before their noun."""
    known = understanding_in(checkpoint_folder(starter))
    texts = ["a yellow school bus", "drawing of a crying face", "flamingo glossy emoji", "a red apple", "clip art of a plane"]
    for text, found in zip(texts, known(starter.aligner.embed("text", texts).cpu(), "text"), strict=True):
        assert shortened(text, found, known.nouns) is None
