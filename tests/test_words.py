"""Words that the recipe teaches by what WordNet says they are."""

import pytest
import torch
import torch.nn.functional as F

from unialign_gen.checkpoints.recipe import words
from unialign_gen.checkpoints.recipe.rows import Picture
from unialign_gen.errors import InputError

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by\n"
#    bird ─┬─ wading bird ─┬─ flamingo
#          │               └─ heron ── egret          deer ── caribou, reindeer
#          ├─ crow                                    seal (a stamp), seal (an animal) ── sea lion
#          └─ penguin
SYNSETS = [  # offset, file, words, broader, gloss
    ("00000001", 5, ["animal"], [], "a living organism"),
    ("00000002", 5, ["bird"], ["00000001"], 'warm-blooded vertebrates with feathers; "a bird sang"'),
    ("00000003", 5, ["wading_bird", "wader"], ["00000002"], "any of many long-legged birds"),
    ("00000004", 5, ["flamingo"], ["00000003"], "large pink wading bird"),
    ("00000005", 5, ["heron"], ["00000003"], "grey or white wading bird"),
    ("00000006", 5, ["egret", "Egretta_garzetta"], ["00000005"], "a white heron"),
    ("00000007", 5, ["crow"], ["00000002"], "black birds having a raucous call"),
    ("00000008", 5, ["penguin"], ["00000002"], "flightless birds"),
    ("00000009", 5, ["deer"], ["00000001"], "a ruminant with antlers"),
    ("00000010", 5, ["animal", "caribou", "reindeer"], ["00000009"], "Arctic deer with large antlers"),
    ("00000011", 6, ["seal"], [], "a device that makes an impression"),
    ("00000012", 5, ["seal"], ["00000001"], "marine mammals"),
    ("00000013", 5, ["sea_lion"], ["00000012"], "large eared seal"),
    ("00000014", 9, ["crow", "boast"], [], "an instance of boastful talk"),
    ("00000015", 5, ["raven"], ["00000007"], "large black bird"),
    ("00000016", 6, ["bank"], [], "a building"),
    ("00000017", 17, ["bank"], [], "sloping land"),
    ("00000018", 18, ["bird_watcher"], ["00000007"], "a person who is called what somebody said"),
]
ORDER = {"seal": ["00000011", "00000012"], "crow": ["00000014", "00000007"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The synsets in WordNet's own format."""
    root = tmp_path_factory.mktemp("wordnet")
    out = root / "unpacked" / words.FOLDER
    out.mkdir(parents=True)
    senses, lines = {}, [LICENCE]
    for offset, file, names, broader, gloss in SYNSETS:
        pointers = [f"@ {b} n 0000" for b in broader] + ["~ 00000001 n 0000", "+ 00000002 v 0101"]
        spelled = " ".join(f"{name} 0" for name in names)
        lines.append(f"{offset} {file:02d} n {len(names):02x} {spelled} {len(pointers):03d} {' '.join(pointers)} | {gloss}  \n")
        for name in names:
            senses.setdefault(name.lower(), []).append(offset)
    index = [LICENCE]
    for name, offsets in sorted(senses.items()):
        offsets = ORDER.get(name, offsets)
        index.append(f"{name} n {len(offsets)} 2 @ ~ {len(offsets)} 0 {' '.join(offsets)}  \n")
    (out / "data.noun").write_text("".join(lines))
    (out / "index.noun").write_text("".join(index))
    return root


@pytest.fixture(scope="module")
def nouns(folder):
    return words.read(folder)


def test_the_files_of_wordnet_are_read(nouns):
    assert len(nouns.synsets) == len(SYNSETS)
    heron = nouns.synsets["00000005"]
    assert (heron.words, heron.broader, heron.gloss, heron.file) == (("heron",), ("00000003",), "grey or white wading bird", 5)
    assert nouns.senses["wading bird"] == nouns.senses["wader"] == ("00000003",)
    assert nouns.senses["seal"] == ("00000011", "00000012")
    assert nouns.senses["egretta garzetta"] == ()  # a name, not a common noun
    assert nouns.synsets["00000007"].visible
    assert not nouns.synsets["00000014"].visible
    assert nouns.definition("00000002") == "bird, animal: warm-blooded vertebrates with feathers"


def test_a_name_means_what_its_captions_are_near_to_and_a_concept_one_of_its_kind(nouns):
    near, far = torch.tensor([1.0, 0]), torch.tensor([0, 1.0])
    glosses = {"00000011": near, "00000012": far, "00000014": near, "00000003": near}
    # a seal is a concept, an animal, however near the stamp is
    assert words.known_things(nouns, {"seal": near}, glosses) == {"seal": "00000012"}
    # of others the nearest counts, a rarer meaning if it is nearer by enough
    usual, rarer = "00000016", "00000017"
    assert words.known_things(nouns, {"bank": far}, {usual: near, rarer: far}) == {"bank": rarer}
    turned = F.normalize(torch.tensor([1.0, 1 + words.MARGIN]), dim=0)
    assert words.known_things(nouns, {"bank": turned}, {usual: near, rarer: far}) == {"bank": usual}
    # a boast cannot be seen, and the name is left out
    assert words.known_things(nouns, {"boast": near, "wader": far, "unheard of": near}, glosses) == {"wader": "00000003"}


def test_a_word_is_taught_by_the_nearest_things_that_there_are_pictures_of(nouns):
    known = {"flamingo": "00000004", "crow": "00000007", "penguin": "00000008", "deer": "00000009", "seal": "00000012"}
    found = words.nearest_things(nouns, known)
    assert found["00000004"] == {"flamingo"}  # itself
    assert found["00000010"] == {"deer"}  # the kind that it is of
    assert found["00000005"] == found["00000003"] == {"flamingo"}  # another of its kind, or one below it
    assert found["00000006"] == {"flamingo"}
    assert found["00000002"] == {"crow", "penguin"}  # one step down, where the flamingo is two
    assert "00000014" not in found
    taught = words.taught(nouns, known, {}, set(known))
    assert taught["deer"] == ["animal", "caribou", "reindeer"]
    assert taught["flamingo"] == ["egret", "heron", "wader", "wading bird"]
    assert taught["crow"] == ["bird", "raven"]
    assert taught["penguin"] == ["bird"]
    assert taught["seal"] == ["animal", "sea lion"]
    # what a picture is called is not taught, and no word for a person
    again = words.taught(nouns, known, {}, {*known, "bird", "reindeer"})
    assert not {"bird", "reindeer", "bird watcher"} & {word for found in again.values() for word in found}
    assert again["deer"] == ["animal", "caribou"]
    # a meaning that is given goes before the most usual one
    assert "boast" in words.taught(nouns, known, {"boast": "00000007"}, set())["crow"]


def test_a_kind_of_too_many_things_teaches_nothing(nouns, monkeypatch):
    monkeypatch.setattr(words, "MOST", 1)
    known = {"crow": "00000007", "penguin": "00000008"}
    assert "00000002" not in words.nearest_things(nouns, known)
    monkeypatch.setattr(words, "UP", 0)
    assert set(words.nearest_things(nouns, known)) == {"00000007", "00000008"}


class Texts:
    """A random feature of each text, the same every time."""

    def encode(self, texts):
        pass

    def __call__(self, texts):
        seeds = [sum(map(ord, text)) for text in texts]
        return torch.stack([torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def test_lessons_are_dealt_to_the_pictures_of_each_name(nouns):
    def picture(name, concepts, captions):
        return Picture(name, "train", "A", "emoji", "s", captions, concepts, "", "plain", [name], None)

    pictures = [
        picture("deer-1", ["deer"], ["deer", "a deer"]),
        picture("deer-2", ["deer"], ["deer emoji"]),
        picture("heron-1", [], ["Heron", "a bird"]),
        picture("nameless", [], []),
        picture("vetoed", [], ["Crow", "a crowbar"]),
    ]
    found = {row.id: taught for row, taught in words.lessons(nouns, Texts(), pictures, {"seal": ["the sound of a seal"]})}
    # animal, caribou, reindeer, sea lion and seal by turns; what only a sound is called among them, in that meaning
    assert found["deer-1"] == ["animal", "an animal", "reindeer", "a reindeer", "seal", "a seal"]
    assert found["deer-2"] == ["caribou", "a caribou", "sea lion", "a sea lion"]
    assert {"egret", "an egret", "flamingo", "a flamingo"} <= set(found["heron-1"])
    assert not {"heron", "bank"} & set(found["heron-1"])
    assert set(found) == {"deer-1", "deer-2", "heron-1"}
    without = {row.id: taught for row, taught in words.lessons(nouns, Texts(), pictures, {})}
    assert "seal" not in {word for taught in without.values() for word in taught}  # a stamp, as a rule


def test_without_wordnet_the_recipe_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="run `data` first"):
        words.read(tmp_path)
