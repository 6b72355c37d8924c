"""The recipe's space, heads and what is known: what each loss asks for, on data small enough to see through."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from unialign_gen.checkpoints.recipe import drawable, heads, known, recall, space, stages
from unialign_gen.checkpoints.recipe.__main__ import app
from unialign_gen.checkpoints.recipe.files import kept
from unialign_gen.checkpoints.recipe.rows import Picture
from unialign_gen.checkpoints.recipe.variants import FIVE
from unialign_gen.concepts import ConceptTable
from unialign_gen.errors import InputError
from unialign_gen.pipelines import EmbeddingPrior


def picture(name, concepts=(), captions=(), kind="plain", colour="", parts=(), variant_of=None, split="train", tier="A"):
    parts = list(parts) or [name]
    return Picture(name, split, tier, "emoji", "s", list(captions), list(concepts), colour, kind, parts, variant_of)


class Texts:
    """Text features by a table of one-hot words."""

    words = ("dog", "cat", "car", "tree", "red", "blue", "and", "two")

    def __call__(self, texts):
        return torch.stack([torch.tensor([float(w in t) for w in self.words]) for t in texts])

    def encode(self, texts):
        pass


def test_soft_cross_entropy_of_distinct_names_is_infonce():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))
    assert float(space.soft_cross_entropy(logits, torch.eye(6))) == pytest.approx(float(expected), rel=1e-5)


def test_thumbnails_are_means_of_blocks():
    pictures = np.random.default_rng(0).integers(0, 256, (600, 64, 64, 3), np.uint8)
    expected = F.adaptive_avg_pool2d(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), 16).flatten(1) / 127.5 - 1
    assert torch.allclose(space.thumbnails(pictures), expected, atol=1e-5)


def small():
    """Four things with features of their own, each plain, red and blue, and all pairs; colours and pairs can be read off."""
    things, rows, features = ["dog", "cat", "car", "tree"], [], []
    axes = torch.eye(8)
    for i, name in enumerate(things):
        for k in range(3):
            rows.append(picture(f"{name}{k}", captions=[name]))
            features.append(3 * axes[i] + 0.3 * axes[7] * k)
        for j, colour in enumerate(("red", "blue")):
            made = picture(
                f"{name}-{colour}", kind="recoloured", captions=[f"{colour} {name}"], colour=colour, variant_of=f"{name}0"
            )
            made.concepts = [name]
            rows.append(made)
            features.append(3 * axes[i] + 3 * axes[4 + j])
    for i in range(4):
        for j in range(i):
            rows.append(
                picture(
                    f"{i}{j}",
                    kind="composition",
                    captions=[f"{things[i]} and {things[j]}"],
                    parts=[f"{things[i]}0", f"{things[j]}0"],
                )
            )
            features.append(2 * axes[i] + 2 * axes[j])
    return rows, torch.stack(features).half().numpy()


def data_of(rows, features):
    pixels = np.full((len(rows), 16, 16, 3), 255, np.uint8)
    pixels[:, :8] = np.random.default_rng(0).integers(0, 255, (len(rows), 8, 1, 3), np.uint8)
    return space.Examples(rows, features, pixels, Texts())


def test_a_caption_is_true_of_what_it_names_in_no_colour_or_the_pictures_own():
    rows, features = small()
    data = data_of(rows, features)
    where = {r.id: n for n, r in enumerate(rows)}
    shown = torch.tensor([where[n] for n in ("dog0", "dog-red", "dog-blue", "cat0", "10")])
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert space.true_of(data, shown, data.first[shown]).tolist() == expected


def test_kinds_of_pictures_share_a_batch_as_said():
    rows, features = small()
    weights = data_of(rows, features).weights
    for kind, share in space.SHARES.items():
        assert float(weights[[r.kind == kind for r in rows]].sum()) == pytest.approx(share, rel=1e-5)


def test_the_space_tells_things_and_colours_apart_and_a_pair_is_the_mix_of_its_parts(monkeypatch):
    monkeypatch.setattr(space, "HIDDEN", 32)
    rows, features = small()
    head = space.train(data_of(rows, features), steps=120, batch=64, lr=5e-3)
    z = torch.from_numpy(space.embed(head, features)).float()
    assert torch.allclose(z.norm(dim=1), torch.ones(len(z)), atol=2e-3)
    where = {r.id: n for n, r in enumerate(rows)}
    for i, a in enumerate(("dog", "cat", "car", "tree")):
        assert float(z[where[f"{a}0"]] @ z[where[f"{a}1"]]) > 0.9
        assert float(z[where[f"{a}-red"]] @ z[where[f"{a}-blue"]]) < 0.9
        for j, b in enumerate(("dog", "cat", "car", "tree")[:i]):
            mix = F.normalize(z[where[f"{a}0"]] + z[where[f"{b}0"]], dim=0)
            assert float(z[where[f"{i}{j}"]] @ mix) > 0.85


def things(seed=0, each=40, spread=0.05):
    """Embeddings of three things, each `each` times, with twice the variance along the last two axes; and their rows."""
    generator = torch.Generator().manual_seed(seed)
    rows, out = [], []
    noise = torch.diag(spread * torch.tensor([0.3, 0.3, 0.3, 1, 3, 3]))
    for i, name in enumerate(("dog", "cat", "car")):
        for k in range(each):
            rows.append(picture(f"{name}{k}", [name], [name]))
            out.append(torch.eye(6)[i] + torch.randn(6, generator=generator) @ noise)
    return rows, F.normalize(torch.stack(out), dim=1)


def test_whitening_makes_pictures_of_one_thing_differ_by_one_in_every_direction(monkeypatch):
    monkeypatch.setattr(known, "SHRINKAGE", 0.0)
    rows, z = things()
    groups = list(known.grouped((r.name, n) for n, r in enumerate(rows)).values())
    white = z @ known.whitening(z, groups)
    apart = torch.cat([white[g] - white[g].mean(0) for g in groups])
    assert torch.allclose(apart.T @ apart / (len(z) - 3), torch.eye(6), atol=1e-3)


@pytest.mark.parametrize(("share", "left"), [(0.5, 4), (0.75, 6), (0.1, 4)])
def test_the_prior_keeps_of_a_thing_the_pictures_that_are_drawn_as_it(monkeypatch, share, left):
    """A decoder draws every other picture of the first thing as the second; of a thing with three pictures all stay."""
    monkeypatch.setattr(drawable, "SHARE", share)
    prior = EmbeddingPrior(16, 2, bandwidth=0.1, temperature=1.0, pictures=11)
    prior.points.copy_(torch.eye(16)[:2])
    prior.deviations.copy_(0.3 * torch.eye(16)[2:13])  # each picture differs along an axis of its own
    prior.shows.copy_(torch.tensor([0] * 8 + [1] * 3))

    def see(pictures):
        axes = pictures[:, 2:13].argmax(1)
        return torch.where(((axes < 8) & (axes % 2 == 1))[:, None], prior.points[1], pictures)

    drawable.keep_drawable(prior, lambda embeds: embeds, see)
    assert prior.config["pictures"] == left + 3
    kept = prior.deviations[prior.shows == 0].argmax(1) - 2
    assert {0, 2, 4, 6} <= set(kept.tolist())
    assert len(kept) == left
    assert (prior.deviations[prior.shows == 1].argmax(1) - 2).tolist() == [8, 9, 10]
    asked = F.normalize(prior.points[prior.shows] + prior.deviations, dim=1)
    lost = torch.tensor([n in (1, 3, 5, 7) for n in (prior.deviations.argmax(1) - 2).tolist()])
    expected = torch.where(lost, asked @ prior.points[1], 1.0)
    assert prior.config["fidelities"]
    torch.testing.assert_close(prior.fidelity, expected)


def test_of_pictures_that_differ_alike_from_their_thing_the_prior_keeps_one():
    """A third of sixteen is kept, of which four are there twice; of four alike none can go."""
    prior = EmbeddingPrior(16, 2, bandwidth=0.1, temperature=1.0, pictures=20)
    prior.points.copy_(torch.eye(16)[:2])
    prior.shows.copy_(torch.tensor([0] * 16 + [1] * 4))
    prior.deviations.copy_(
        torch.cat([0.3 * torch.eye(16)[[2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12, 13]], 0.3 * torch.eye(16)[[2] * 4]])
    )
    drawable.keep_drawable(prior, lambda embeds: embeds, lambda pictures: pictures)
    axes = prior.deviations[prior.shows == 0].argmax(1).tolist()
    assert len(axes) == len(set(axes)) == 5  # a third of sixteen
    assert int((prior.shows == 1).sum()) == 4


def test_the_prior_moves_a_thing_to_its_mean_and_keeps_its_colour(monkeypatch):
    """Colours are a shift along the last axis, numbers along the one before, both learned from variants; a colour stays, an
    error goes, and what is several stays where it is.
    """
    monkeypatch.setattr(known, "LEAST", 3)
    rows, z = things()
    colours = {"red": 0.5, "blue": -0.5}
    for n in range(0, len(rows), 4):
        for colour, shift in colours.items():
            made = picture(
                f"{rows[n].id}-{colour}",
                rows[n].concepts,
                [f"{colour} {rows[n].name}"],
                "recoloured",
                colour,
                variant_of=rows[n].id,
            )
            rows.append(made)
            z = torch.cat([z, F.normalize(z[n] + shift * torch.eye(6)[5], dim=0)[None]])
    for n in (0, 40, 80):
        captions, place = [f"two {rows[n].name}s"], rows[n].id
        rows.append(picture(f"{place}-two", rows[n].concepts, captions, "composition", parts=[place, place]))
        z = torch.cat([z, F.normalize(z[n] + 0.9 * torch.eye(6)[4], dim=0)[None]])
    prior, names = known.prior(rows, z)
    assert names == ["dog", "cat", "car"]
    assert prior.config["colours"] == (2, 1)
    assert prior.config["layouts"] == (1, 1)
    assert prior.points.shape == (3, 6)
    red = F.normalize(torch.tensor([[1.0, 0.3, 0, 0, 0, 0.5]]), dim=1)  # a red dog, a little of a cat
    moved = prior(red, strength=1.0)[0]
    assert float(moved[1] / moved[0]) < 0.1
    assert float(moved[5] / moved[0]) == pytest.approx(0.5, abs=0.25)
    plain = prior(F.normalize(torch.tensor([[1.0, 0.3, 0, 0, 0, 0.05]]), dim=1), strength=1.0)[0]
    assert float(plain[5] / plain[0]) < 0.02
    two = F.normalize(torch.tensor([[1.0, 0.1, 0, 0, 0.9, 0]]), dim=1)  # no one thing
    assert torch.allclose(prior(two, strength=1.0), two, atol=0.02)
    shown = [n for n, row in enumerate(rows) if row.kind == "plain"]
    kept = z[shown] @ prior.whitening @ prior.neighbour_axes.T  # all six directions: distances are those of embeddings
    assert torch.allclose(kept, prior.neighbour_values / 6, atol=0.1)
    assert [names[i] for i in prior.neighbour_shows] == [rows[n].name for n in shown]


def test_what_four_pictures_of_a_concept_are_called_is_a_thing_of_its_kind():
    said = ["Panda"] * 4 + ["polar bear"] * 3 + ["orso"] * 4 + ["bear"] * 4 + ["bear, animal"] * 5
    rows = [picture(f"b{n}", ["bear"], [name]) for n, name in enumerate(said)]
    rows += [picture(f"k{n}", captions=["kite"]) for n in range(4)]
    rows.append(picture("b0-red", ["bear"], ["a red bear"], "recoloured", "red", variant_of="b0"))
    found = known.things(rows)
    assert {tuple(thing): places for thing, places in found.items()} == {
        ("bear", "bear", False): list(range(20)),  # all of them
        ("kite", "kite", False): list(range(20, 24)),
        ("bear", "panda", True): list(range(4)),
        ("bear", "bear", True): list(range(11, 15)),
    }
    hearts = known.things([picture(f"h{n}", ["heartbeat"], ["red heart"]) for n in range(5)])
    assert [tuple(thing) for thing in hearts] == [("heartbeat", "heart", False)]  # no other ones


def test_pictures_are_compared_with_whole_concepts():
    rows = [picture(f"b{n}", ["bear"], ["panda" if n < 4 else "bear, animal"]) for n in range(9)]
    rows += [picture(f"k{n}", captions=["kite"]) for n in range(2)]
    rows.append(picture("b0-red", ["bear"], ["a red bear"], "recoloured", "red", variant_of="b0"))
    towards = torch.eye(6)[[0] * 9 + [1] * 2 + [0]]
    z = F.normalize(torch.randn(12, 6, generator=torch.Generator().manual_seed(2)) + 3 * towards, dim=1)
    prior, names = known.prior(rows, z)
    assert names == ["bear", "kite", "panda"]
    assert prior.kind_of.tolist() == [0, 1, 0]
    assert [names[i] for i in prior.neighbour_shows] == ["bear"] * 9 + ["kite"] * 2
    means = F.normalize(torch.stack([z[:9].mean(0), z[9:11].mean(0), z[:4].mean(0)]), dim=1)
    assert torch.allclose(prior.points, means, atol=1e-6)
    assert prior.shows.tolist() == [0] * 9 + [2] * 4
    assert [prior.likeliest(one, picture=True) for one in z[:9]] == [0] * 9


def test_a_layout_is_number_size_place_and_ground():
    def says(caption, *parts):
        return known.layout(picture("a", captions=[caption], kind="composition", parts=parts))

    assert says("two men on red", "m", "m") == says("two cats on red", "c", "c") != says("two cats", "c", "c")
    assert says("a man above a cat", "m", "c") != says("a man and a cat", "m", "c") != says("two cats", "c", "c")
    assert says("a small cat", "c") != says("a cat on red", "c")


def test_a_concepts_point_is_the_mean_of_its_pictures_or_else_of_its_name():
    rows, z = things()
    names = torch.zeros(len(known.CONCEPTS), 6)
    names[:, 3] = 1
    table = known.concept_table(rows, z, names)
    place = table.names.index
    for i, name in enumerate(("dog", "cat", "car")):
        assert torch.allclose(table.points[place(name)], F.normalize(z[40 * i : 40 * i + 40].sum(0), dim=0), atol=1e-6)
    assert torch.equal(table.points[place("piano")], torch.eye(6)[3])
    assert table.nearest(z[:1], 1) == [["dog"]]


def test_pairs_are_counted_by_both_parts():
    rows = [picture(n, [n], [n], split="test") for n in ("dog", "cat", "car")]
    rows.append(picture("pair-unseen-0", captions=["a dog and a cat"], kind="composition", parts=["dog", "cat"], split="test"))
    rows.append(picture("twice", ["car"], ["two cars"], kind="composition", parts=["car", "car"], split="test"))
    axes = torch.eye(8)
    z = torch.stack([axes[0], axes[1], axes[2], F.normalize(axes[0] + axes[1], dim=0), axes[2]])
    table = ConceptTable(["dog", "cat", "car", *"abcde"], axes)
    said = {"dog": axes[0], "cat": axes[1]}

    def text(x):
        return torch.stack([sum(said[w] for w in ("dog", "cat") if row[Texts.words.index(w)]) for row in x])

    found = recall.mixing(rows, z, Texts(), table, text)
    assert found["pairs"] == 1
    assert all(
        found[name] == pytest.approx(1) for name in ("composition_cosine", "composition_both", "mix_both", "sentence_both")
    )
    z[3] = F.normalize(axes[0] - 0.2 * axes[1], dim=0)
    assert recall.mixing(rows, z, Texts(), table, text)["composition_both"] == 0


def test_labels_and_caches_hold_what_each_stream_draws(tmp_path):
    from unialign_gen.data.cache import read_about

    def samples():
        made.append(1)
        yield "a", "dog|cat", {"image": torch.ones(1, 4)}
        yield "b", "car", {"image": torch.ones(2, 4)}

    made = []
    for _ in range(2):
        heads.keep_cache(tmp_path / "x", samples())
    assert read_about(tmp_path / "x" / "shard-00000.safetensors")["labels"] == ["dog|cat", "car"]
    assert len(made) == 1
    assert heads.label(["dog", "cat"], "A|B") == "dog|cat"
    assert heads.label([], "A|B") == "a b"


def test_texts_that_say_nothing_are_of_many_kinds_and_the_same_every_time():
    found = heads.nonsense(400)
    assert found == heads.nonsense(400)
    assert len(set(found)) > 380
    assert all(text.strip() for text in found)
    assert any(text.isascii() and text.replace(" ", "").isalpha() for text in found)
    assert any(not text.isascii() for text in found)
    assert any(not any(c.isalpha() for c in text) for text in found)


def test_colour_words_are_told_by_the_nearest_of_five():
    rows = [picture("apple", ["apple"], ["apple"], split="test")]
    rows += [
        picture(f"apple+{c}", ["apple"], [f"a {c} apple"], "recoloured", c, split="test", variant_of="apple") for c in FIVE
    ]
    z = torch.cat([torch.eye(6)[5:], torch.eye(6)[:5]])

    class Said:
        def __call__(self, texts):
            return torch.stack([torch.eye(6)[next(i for i, c in enumerate(FIVE) if c in t)] for t in texts])

    assert recall.colour_words(rows, z, Said(), lambda x: x) == {"colours": 5, "colour": 1.0}
    assert recall.colour_words(rows, z, Said(), lambda x: x.roll(1, 1))["colour"] == 0.0


def test_a_stage_begins_again_at_its_last_file(tmp_path):
    calls = []

    def make():
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {"a": 1}

    path = tmp_path / "done" / "x.json"
    with pytest.raises(KeyboardInterrupt):
        kept(path, make)
    assert not path.exists()
    assert kept(path, make) == kept(path, make) == {"a": 1}
    assert len(calls) == 2


def test_a_space_is_trained_once_for_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "HIDDEN", 16)
    rows, features = small()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(vars(r)) + "\n" for r in rows))
    np.save(tmp_path / "pictures64.npy", np.random.default_rng(0).integers(0, 256, (len(rows), 64, 64, 3), np.uint8))
    monkeypatch.setattr(stages.Data, "image", features)
    monkeypatch.setattr(stages.Data, "texts", Texts())
    trained = []
    once = space.train
    monkeypatch.setattr(space, "train", lambda data: (trained.append(1), once(data, steps=2, batch=8))[1])
    (tmp_path / "heads").mkdir()
    stages.space(tmp_path)
    first = (tmp_path / "space.json").read_text()
    assert not (tmp_path / "heads").exists()  # they were of the space before
    stages.space(tmp_path)
    assert len(trained) == 1
    (tmp_path / "rows.jsonl").write_text((tmp_path / "rows.jsonl").read_text().replace("dog0", "dog9"))
    stages.space(tmp_path)
    assert len(trained) == 2
    assert (tmp_path / "space.json").read_text() != first
    z = torch.from_numpy(np.load(tmp_path / "embeddings.npy")).float()
    assert torch.allclose(z.norm(dim=1), torch.ones(len(rows)), atol=2e-3)


def test_what_is_missing_is_one_line(tmp_path):
    for stage, match in ((stages.space, "rows"), (stages.recall, "run `heads` first"), (stages.assemble, "run `heads` first")):
        with pytest.raises(InputError, match=match):
            stage(tmp_path)
    done = CliRunner().invoke(app, ["recall", "--root", str(tmp_path)])
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert done.output.count("\n") == 1
