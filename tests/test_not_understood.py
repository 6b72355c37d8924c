"""A prompt that is like nothing known is said to be so, where the checkpoint knows its limits."""

import shutil

import pytest
import torch

import unialign_gen
from unialign_gen.concepts import Understanding
from unialign_gen.loading import find
from unialign_gen.pipelines import named


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """The starter with limits of understanding: three known names stand for everything."""
    folder = tmp_path_factory.mktemp("known") / "starter"
    shutil.copytree(find("starter"), folder, ignore=shutil.ignore_patterns("kandinsky-distilled", "stable-unclip"))
    prior = unialign_gen.load(folder).prior
    names = [f"thing {i}" for i in range(len(prior.points))]
    Understanding(names, prior.points, prior.whitening, {"text": 0.6}).save(folder)
    return unialign_gen.load(folder)


def test_nonsense_is_a_note_with_guesses_and_a_dog_is_none(knowing):
    assert [n.kind for n in knowing.embed(text="a dog").notes] == ["drawn as"]  # as one of these things
    found = knowing.embed(text="qwxz vbnk plorf").notes
    assert "not understood" in [n.kind for n in found]
    assert "thing " in next(n.text for n in found if n.kind == "not understood")
    ready = torch.nn.functional.normalize(torch.randn(256, generator=torch.Generator().manual_seed(0)), dim=0)
    assert knowing.embed(embeds=ready).notes == []  # what is given as an embedding is drawn as it is


def test_the_starter_knows_its_limits(starter):
    assert "not understood" in [n.kind for n in starter.embed(text="qwxz vbnk plorf").notes]
    assert "not understood" not in [n.kind for n in starter.embed(text="a dog").notes]


def test_words_that_are_drawn_as_others_are_a_note(starter):
    (told,) = starter.embed(text="a puppy").notes
    assert str(told) == "drawn as: 'a puppy' is drawn as the nearest that this checkpoint knows: dog"
    assert "drawn as" in [n.kind for n in starter.embed(text="an astrolabe").notes]
    for known in ("a dog", "an apple", "a red car", "a bird on blue"):
        assert starter.embed(text=known).notes == []
    assert starter.embed(text="a puppy", prior_strength=0).notes == []


def test_what_is_around_a_thing_and_may_be_missing_is_a_note(starter):
    told = [n for n in starter.embed(text="a man and a dog on a beach").notes if n.kind == "left out"]
    assert [str(n) for n in told] == ["left out: of 'a dog on a beach' 'beach' may be missing: it is drawn as dog"]
    assert "of 'Seven ducks' 'Seven' may be missing" in starter.embed(text="Seven ducks").notes[0].text
    told = [n.text for n in starter.embed(text="a child flying a kite on a hill").notes if n.kind == "left out"]
    assert [text.split("'")[3::2] for text in told] == [["child flying", "hill"]]
    drawn = starter(text="a boy flying a kite on a hill", seed=0, num_inference_steps=1, upscale=1)
    told = [n.text for n in drawn.notes if n.kind == "left out"]
    assert [text.split("'")[1::2] for text in told] == [["a kite on a hill", "hill"]]  # the boy is drawn beside it
    for known in (
        "a pig on green.",
        "a bird on light blue",
        "a bird on the white background",
        "a bird on a red background",
        "woman in lotus position",
        "three stars",
    ):
        assert "left out" not in [n.kind for n in starter.embed(text=known).notes]


def test_a_checkpoint_without_limits_says_nothing(tmp_path):
    folder = tmp_path / "starter"
    shutil.copytree(
        find("starter"), folder, ignore=shutil.ignore_patterns("kandinsky-distilled", "stable-unclip", "understanding.json")
    )
    assert named.understanding_in(folder) is None
    assert "not understood" not in [n.kind for n in unialign_gen.load(folder).embed(text="qwxz vbnk plorf").notes]
