"""A text is drawn as the known thing that it names, and what it is not drawn as is said."""

import numpy as np
import pytest
import torch
from PIL import Image

from unialign_gen.checkpoints.faithfulness import COLOURED, COLOURS, COUNTED, PAIRS, THINGS
from unialign_gen.concepts import Understanding, checkpoint_folder
from unialign_gen.concepts.understanding import is_called
from unialign_gen.media.text import with_article
from unialign_gen.pipelines.compounds import compound, meant
from unialign_gen.pipelines.named import as_named, understanding_in
from unialign_gen.pipelines.phrases import phrases_of
from unialign_gen.request import Prompt

NOUNS = {"car", "key", "bird", "cage", "fish", "starfish", "orange"}
NAMES = ["car", "key", "old key", "baseball bat", "bat", "starfish", "car park", "chains", "red apple", "apple", "far cage"]
KNOWN = Understanding(NAMES, torch.eye(len(NAMES)), torch.eye(len(NAMES)), {})


def drawn_as(pipeline, text, **request):
    """The known thing that lies nearest to what is drawn."""
    point = pipeline.embed(text=text, **request)
    (found,) = understanding_in(checkpoint_folder(pipeline))(torch.as_tensor(point), "text", guesses=1)
    return found.nearest[0]


def near(**places):
    """Nearness to `NAMES`: of those that are not named 0.01, of "far cage" 0.2."""
    found = torch.full((len(NAMES),), 0.01)
    found[NAMES.index("far cage")] = 0.2
    for name, value in places.items():
        found[NAMES.index(name.replace("_", " "))] = value
    return found


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a car key", ("a ", ["car"], "key", "")),
        ("Two red car keys.", ("Two ", ["red", "car"], "keys", "")),
        ("a drawing of a bird cage in a tree", ("a drawing of a ", ["bird"], "cage", " in a tree")),
        ("bird cage", ("", ["bird"], "cage", "")),
        ("a key", ("a ", [], "key", "")),
        ("a glass of water", None),
        ("a bird and a key", None),
        ("a bird on blue", ("a ", [], "bird", " on blue")),
        ("a bird blue", None),
        ("an orange", ("an ", [], "orange", "")),  # a fruit
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
    ("text", "places", "named"),
    [
        ("a car key", {"car": 0.7, "key": 0.5, "old_key": 0.4}, "key"),  # the nearest that is called so
        ("two orange car keys on a table", {"car": 0.7, "old_key": 0.4}, "old key"),
        ("a baseball bat", {"bat": 0.8, "baseball_bat": 0.4}, "baseball bat"),  # the whole name before the noun
        ("a red baseball bat", {"bat": 0.8, "baseball_bat": 0.4}, "baseball bat"),
        ("a star fish", {"car": 0.8, "starfish": 0.4}, "starfish"),  # in one word
        ("a key chain", {"key": 0.7, "chains": 0.4}, "chains"),  # in the plural
        ("a key", {"car": 0.7, "key": 0.5}, "key"),
        ("an apple", {"red_apple": 0.7, "apple": 0.5}, None),  # it is one
        ("a key", {"old_key": 0.7, "key": 0.5}, None),
        ("a bird cage", {"car": 0.7}, None),  # what is called so lies far away
        ("a car key", {"car": 0.9, "key": 0.5}, None),
        ("a baseball bat", {"bat": 0.9, "baseball_bat": 0.4}, "baseball bat"),  # however far, being the whole name
        ("a bird ladder", {"car": 0.7}, None),  # nothing is called so
        ("a key in a car", {"car": 0.7, "key": 0.5}, "key"),
        ("a car with a key", {"key": 0.7, "car": 0.5}, None),  # perhaps with it
        ("a car", {"car": 0.7}, None),
    ],
)
def test_a_text_names_another_thing_than_is_drawn(text, places, named):
    nearness = near(**places)
    found = meant(text, KNOWN, nearness, int(nearness.argmax()))
    assert (None if found is None else NAMES[found]) == named
    if named is not None:
        assert meant(text, KNOWN, nearness, NAMES.index(named)) is None  # where that is drawn, though another is nearer


def test_what_a_thing_is_called_goes_before_what_is_one_too():
    names = ["cup", "cup with straw", "mailbox with raised flag", "ear of corn", "flag in hole"]
    known = Understanding(names, torch.eye(5), torch.eye(5), {})
    assert meant("a cup", known, torch.tensor([0.5, 0.6, 0.7, 0.1, 0.1]), 2) == 0
    assert meant("a cup", known, torch.tensor([0.2, 0.6, 0.7, 0.1, 0.1]), 2) == 1  # what is called so lies far
    assert meant("a flag", known, torch.tensor([0.7, 0.1, 0.6, 0.1, 0.5]), 0) == 4  # a mailbox is none
    assert meant("corn", known, torch.tensor([0.7, 0.1, 0.1, 0.6, 0.1]), 0) == 3


def test_a_name_of_several_words_is_that_thing_whatever_lies_nearer():
    names = ["heart", "heart with arrow", "arrow", "heart on fire"]
    known = Understanding(names, torch.eye(4), torch.eye(4), {})
    nearness = torch.tensor([0.9, 0.1, 0.5, 0.2])
    assert [meant(text, known, nearness, 0) for text in ("a heart with an arrow", "The heart on fire.")] == [1, 3]
    assert meant("heart with arrow", known, nearness, 1) is None


def test_a_name_that_many_things_lie_nearer_than_is_another_word():
    names = ["animal", *(f"dog {i}" for i in range(40))]
    known = Understanding(names, torch.eye(41), torch.eye(41), {})
    assert meant("an animal", known, torch.tensor([0.5] + [0.4] * 11 + [0.6] * 29), 12) == 0
    assert meant("an animal", known, torch.tensor([0.5] + [0.6] * 40), 1) is None


@pytest.mark.parametrize(
    ("text", "drawn", "encoded", "missing"),
    [
        ("a strawberry cake", "cake", "strawberry", ["strawberry"]),
        ("a car key", "key", "car", ["car"]),
        ("a bicycle wheel", "wheel", "bicycle", ["bicycle"]),
        ("a house plant", "potted plant", "house", ["house"]),
        ("a baseball bat", "baseball bat", "bat", []),
        ("a spider web", "spider web", "spider", []),
        ("a cherry", "cherries", "apple", []),
    ],
)
def test_the_starter_draws_what_is_named_and_says_what_may_be_missing(starter, text, drawn, encoded, missing):
    assert drawn in drawn_as(starter, text)
    assert encoded in drawn_as(starter, text, prior_strength=0)
    assert [n.text.split("'")[3] for n in starter.embed(text=text).notes] == missing


def test_a_noun_that_is_not_known_is_said(starter):
    assert "bird" in drawn_as(starter, "a bird cage")
    (told,) = starter.embed(text="a bird cage").notes
    assert str(told).startswith("left out: of 'a bird cage' 'cage' may be missing")


def test_it_holds_for_each_of_several_things_and_in_mixes(starter):
    """Each thing of a text, once however many of it there are, and each input of a mix, whatever its weight."""
    few = {"seed": 0, "num_inference_steps": 1, "upscale": 1}
    drawn = starter(text="a dog and two car keys", **few)
    assert [(n.kind, n.text.split("'")[3]) for n in drawn.notes if n.kind == "left out"] == [("left out", "car")]
    key = starter.embed(text="a car key")
    plain = starter.embed(text="a car key", prior_strength=0)
    for weights in ([0.9, 0.1], [1.3, -0.3]):
        mixed = starter.embed(text=("a car key", "a dog"), weights=weights)
        assert float((mixed * key).sum()) > 0.8 > float((torch.as_tensor(mixed) * torch.as_tensor(plain)).sum())


@pytest.mark.parametrize("text", ["a red car key", "a blue teddy bear", "a green spider web", "a purple cherry"])
def test_the_colour_of_what_is_named_stays(starter, text):
    """What it takes from the thing that it would be drawn as is no colour; drawn in another one, a note would say so."""
    drawn = starter(text=text, seed=0, upscale=1, num_inference_steps=6)
    assert "colour" not in [n.kind for n in drawn.notes]


def test_what_was_understood_stays_where_it_is(starter):
    """The prompts that the evaluation counts colours, pairs and numbers by, and captions that nobody chose."""
    known = understanding_in(checkpoint_folder(starter))
    texts = [f"a {colour} {thing}" for colour in COLOURS for thing in COLOURED] + [with_article(t) for t in THINGS]
    texts += [one for a, b in PAIRS for one in phrases_of(f"{with_article(a)} and {with_article(b)}", known.nouns).texts]
    texts += [one for _, things in COUNTED for one in phrases_of(f"three {things}", known.nouns).texts]
    texts += ["a yellow school bus", "drawing of a crying face", "flamingo glossy emoji", "clip art of a plane", "an animal"]
    texts += ["cloud with rain", "drawing of a heart"]
    prompts = [Prompt("text", t, embedding=e) for t, e in zip(texts, starter.aligner.embed("text", texts), strict=True)]
    moved = [(p, as_named(p, known, starter.aligner, starter.prior)) for p in prompts]
    for before, after in ((p, q) for p, q in moved if q is not p):
        noun = before.value.split()[-1]
        places = (starter.prior.likeliest(p.embedding) for p in (before, after))
        was, now = (known.names[place] for place in places)
        assert is_called(now, noun)
        assert now != was
    assert {p.value.split()[-1] for p, q in moved if q is not p} <= {"flower", "house", "apple", "hat", "ball", "face", "rain"}


@pytest.mark.parametrize(
    ("text", "drawn", "encoded"),
    [
        ("an angel", "baby angel", "cloud with lightning"),
        ("a wizard", "mage", "woman mage"),
        ("a forest", "deciduous tree", "palm tree"),
        ("a baby chick", "baby chick", "chicken"),
        ("a birthday party", "birthday cake", "crowd"),
        ("a heart with an arrow", "heart with arrow", "heart"),
    ],
)
def test_what_a_text_is_drawn_as_is_called_most_like_it(starter, text, drawn, encoded):
    (bare,) = starter.aligner.embed("text", [text])
    known = understanding_in(checkpoint_folder(starter))
    moved = as_named(Prompt("text", text, embedding=bare), known, starter.aligner, starter.prior)
    assert [known.names[starter.prior.likeliest(e)] for e in (moved.embedding, bare)] == [drawn, encoded]


def test_a_text_encoder_of_ones_own_has_other_features(starter, monkeypatch):
    known = understanding_in(checkpoint_folder(starter))
    forest = Prompt("text", "a forest", embedding=starter.aligner.embed("text", ["a forest"])[0])
    monkeypatch.setattr(starter.aligner, "given", {"text"})
    assert as_named(forest, known, starter.aligner, starter.prior) is forest


@pytest.mark.parametrize(
    ("text", "as_if"),
    [
        ("a black cat with green eyes", "a black cat with eyes"),
        ("a boy in a blue shirt", "a boy in a shirt"),
        ("a yellow bird on a green branch", "a yellow bird on a branch"),
        ("a car in navy", "a car in dark blue"),
    ],
)
def test_a_thing_is_encoded_in_its_own_colour(starter, text, as_if):
    known = understanding_in(checkpoint_folder(starter))
    texts = [Prompt("text", t, embedding=starter.aligner.embed("text", [t])[0]) for t in (text, as_if)]
    drawn, expected = (as_named(p, known, starter.aligner, starter.prior).embedding for p in texts)
    torch.testing.assert_close(drawn, expected)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("an owl wearing glasses", "owl"),
        ("a lion roaring", "lion"),
        ("a clown", "clown face"),
        ("a lion in the grass", "lion"),
        ("a cat sleeping on a sofa", "cat"),
    ],
)
def test_what_names_no_several_things_is_drawn_as_one(starter, text, drawn):
    """These are encoded beside pictures of two things, and would be drawn as scraps of both."""
    known, prior = understanding_in(checkpoint_folder(starter)), starter.prior
    (before,) = starter.aligner.embed("text", [text])
    after = as_named(Prompt("text", text, embedding=before), known, starter.aligner, prior).embedding
    assert prior.arranged(before)
    assert not prior.arranged(after)
    assert known.names[prior.likeliest(after)] == drawn
    assert float(before @ after) > 0.8


@pytest.mark.parametrize("text", ["seven dogs", "a bird and a cat under a tree", "a dog on blue"])
def test_what_says_a_number_a_place_or_a_ground_keeps_it(starter, text):
    prior, (embedding,) = starter.prior, starter.aligner.embed("text", [text])
    assert prior.arranged(embedding)
    assert prior.arranged(
        as_named(
            Prompt("text", text, embedding=embedding), understanding_in(checkpoint_folder(starter)), starter.aligner, prior
        ).embedding
    )


def test_a_thing_that_is_known_by_the_colour_of_a_part_keeps_it(starter):
    hair = Prompt("text", "a woman with red hair", embedding=starter.aligner.embed("text", ["a woman with red hair"])[0])
    assert as_named(hair, understanding_in(checkpoint_folder(starter)), starter.aligner, starter.prior) is hair


def test_what_is_with_a_thing_is_said_with_its_colour(starter):
    told = starter.embed(text=["a boy in a blue shirt", "three cats and four dogs"]).notes
    said = "of 'a boy in a blue shirt' 'blue shirt' may be missing: it is drawn as boy"
    assert [note.text for note in told if note.kind == "left out"][:1] == [said]
    others = [note.text.split(" may")[0] for note in told if note.kind == "left out"][1:]
    assert others == ["of 'three cats' 'three'", "of 'four dogs' 'four'"]


def test_what_only_another_way_of_asking_would_draw_is_said(starter):
    grey = Image.new("RGB", (64, 64), "grey")
    told = starter.edit(grey, text="a cat and a dog", strength=0.5, num_inference_steps=2).notes
    assert [note.text for note in told] == ["'a cat and a dog' names several things: here they are one point, the mean of them"]
    (told,) = starter.embed(text="a (red car:1.3)").notes
    assert told.text == "(red car:1.3) is read as words: weights go with whole texts, not with words of one"
    assert starter.embed(text="a car (red)").notes == []


def test_a_picture_or_video_with_nothing_in_it_is_said(starter, tmp_path):
    blank, seen = Image.new("RGBA", (64, 64)), Image.new("RGB", (64, 64), "white")
    seen.paste("red", (20, 20, 40, 40))
    seen.save(tmp_path / "red.png")
    said = "the picture is of one colour all over: there is nothing to see"
    assert [n.text for n in starter.embed(image=blank).notes][:1] == [said]
    nothing, something = (np.stack([np.asarray(p.convert("RGB"))] * 3) for p in (blank, seen))
    assert [n.kind for n in starter.embed(video=nothing).notes][:1] == ["blank"]
    for other in ({"image": tmp_path / "red.png"}, {"video": np.concatenate([nothing, something])}):
        assert "blank" not in [n.kind for n in starter.embed(**other).notes]
