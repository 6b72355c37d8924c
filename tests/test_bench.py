"""The alignment bench: known truth, splits, figures against plain formulas, and whole benches at tiny size."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from unialign_gen.bench import measure, synthetic
from unialign_gen.bench.config import BenchConfig, Dataset
from unialign_gen.bench.datasets import ROWS, split_of
from unialign_gen.bench.datasets import write as write_datasets
from unialign_gen.bench.report import read
from unialign_gen.bench.run import search
from unialign_gen.bench.synthetic import Synthetic, draw, put
from unialign_gen.cli import app
from unialign_gen.config import load
from unialign_gen.configs import find_config
from unialign_gen.data.cache import FeatureCache, Ragged, Shard, counted
from unialign_gen.errors import InputError
from unialign_gen.objectives import GRAM, OBJECTIVES

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import bench_page as page_of

# The synthetic family.


def explained(x, y):
    """R squared of y (N, k) by a least-squares fit of x (N, d), on the second half."""
    half = len(x) // 2
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    fit = torch.linalg.lstsq(x[:half], y[:half]).solution
    left = (y[half:] - x[half:] @ fit).square().sum()
    return 1 - float(left / (y[half:] - y[half:].mean(0)).square().sum())


def test_every_modality_shows_the_shared_factors_as_clearly_as_its_noise_lets_it():
    shard, factors = draw(Synthetic(modalities=4, test=2000, noise=[0.01, 0.3, 1.0, 3.0]))["test"]
    seen = [explained(shard.features[name].values, factors) for name in ("image", "text", "audio", "video")]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 0.99
    assert seen[3] < 0.6


def test_private_factors_are_private():
    """What one modality says beyond the shared factors, another does not know."""
    shard, factors = draw(Synthetic(modalities=2, test=2000, noise=0.01))["test"]
    image, text = (shard.features[name].values for name in ("image", "text"))

    def without(x):
        return x - factors @ torch.linalg.lstsq(factors, x).solution

    assert explained(without(image), without(text)) < 0.05
    assert explained(image, text) > 0.3


def test_what_is_missing_wrong_or_mislabelled_is_as_often_as_was_asked_and_never_in_the_test():
    asked = Synthetic(train=4000, test=400, missing=0.3, wrong_pairs=0.2, label_noise=0.25, noise=0.01, seed=1)
    splits, clean = draw(asked), draw(Synthetic(train=4000, test=400, noise=0.01, seed=1))
    shard, factors = splits["train"]
    assert float((shard.features["text"].counts == 0).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert shard.features["image"].counts.min() == 1  # the first modality is always there
    assert len(splits["test"][0].features["text"].values) == 400
    labels = [a != b for a, b in zip(shard.labels, clean["train"][0].labels, strict=True)]
    assert np.mean(labels) == pytest.approx(0.25 * 19 / 20, abs=0.03)  # one in twenty draws its own label again
    view = torch.linalg.lstsq(clean["train"][1], clean["train"][0].features["audio"].values).solution
    there = shard.features["audio"].counts > 0
    off = (shard.features["audio"].values - factors[there] @ view).norm(dim=1)
    right = (clean["train"][0].features["audio"].values - clean["train"][1] @ view).norm(dim=1)
    assert float((off > right.quantile(0.99)).double().mean()) == pytest.approx(0.2, abs=0.06)


def test_options_of_other_lengths_are_refused():
    with pytest.raises(InputError, match="2 values for 3 modalities"):
        Synthetic(noise=[0.1, 0.2])
    with pytest.raises(InputError, match="modalities: expected at most 8"):
        Synthetic(modalities=9)


def test_a_folder_of_other_options_is_refused(tmp_path):
    synthetic.write(Synthetic(train=16), tmp_path)
    first = (tmp_path / "train" / "shard-00000.safetensors").read_bytes()
    synthetic.write(Synthetic(train=16), tmp_path)
    assert (tmp_path / "train" / "shard-00000.safetensors").read_bytes() == first
    with pytest.raises(InputError, match="noise"):
        synthetic.write(Synthetic(train=16, noise=0.5), tmp_path)


# Splits of a cache, and what stands for a modality by its label.


def ragged(rows):
    return Ragged(torch.cat(rows), counted(torch.tensor([len(r) for r in rows])))


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Pictures with captions, of the widths of the starter's encoders, and sounds of two of their three labels."""
    root, g = tmp_path_factory.mktemp("caches"), torch.Generator().manual_seed(0)
    labels = [("dog", "cat", "car")[i % 3] for i in range(240)]
    image = [torch.randn(1, 1664, generator=g) for _ in labels]
    text = [torch.randn(1 + i % 2, 384, generator=g) for i in range(240)]
    put(root / "pictures", Shard([f"p{i}" for i in range(240)], labels, {"image": ragged(image), "text": ragged(text)}), {})
    sounds = [("dog", "cat|bell")[i % 2] for i in range(60)]
    audio = [torch.full((2, 8), float(i)) for i in range(60)]
    put(root / "sounds", Shard([f"s{i}" for i in range(60)], sounds, {"audio": ragged(audio)}), {})
    return root


def test_a_cache_is_divided_by_its_ids_and_labels_bring_sounds_of_the_same_split(caches, tmp_path):
    write_datasets(Dataset(cache=caches / "pictures", pairs={"audio": [caches / "sounds"]}, sizes=[20]), tmp_path)
    whole = FeatureCache.open(caches / "pictures")
    splits = {name: FeatureCache.open(tmp_path / name) for name in synthetic.SPLITS}
    assert sorted(i for s in splits.values() for i in s.ids) == sorted(whole.ids)
    for name, split in splits.items():
        assert {split_of(i) for i in split.ids} == {name}
        text, audio = split.features("text"), split.features("audio")
        for i, (key, label) in enumerate(zip(split.ids, split.labels, strict=True)):
            assert torch.equal(text[i], whole.features("text")[int(key[1:])])
            numbers = audio[i][:, 0].long().tolist()
            assert len(numbers) <= ROWS
            assert all(split_of(f"s{n}") == name and label == ("dog", "cat")[n % 2] for n in numbers)
            assert label != "car" or not numbers
    assert FeatureCache.open(tmp_path / "train-20").ids == splits["train"].ids[:20]
    with pytest.raises(InputError, match="size 999 is more than"):
        write_datasets(Dataset(cache=caches / "pictures", sizes=[999]), tmp_path / "other")


def test_a_sample_without_labels_has_no_pair_and_one_of_several_has_those_of_each(tmp_path):
    kinds = ["dog|cat", "cat", None, ""]
    features = [torch.randn(1, 4) for _ in range(400)]
    put(
        tmp_path / "own",
        Shard([f"p{i}" for i in range(400)], [kinds[i % 4] for i in range(400)], {"text": ragged(features)}),
        {},
    )
    sounds, numbers = ["dog", "cat", None, "bell"], [torch.full((1, 1), float(i)) for i in range(400)]
    put(
        tmp_path / "heard",
        Shard([f"s{i}" for i in range(400)], [sounds[i % 4] for i in range(400)], {"audio": ragged(numbers)}),
        {},
    )
    write_datasets(Dataset(cache=tmp_path / "own", pairs={"audio": [tmp_path / "heard"]}), tmp_path / "set")
    split = FeatureCache.open(tmp_path / "set" / "train")
    found = {kind: set() for kind in kinds}
    for label, rows in zip(split.labels, split.features("audio"), strict=True):
        found[label] |= {int(n) % 4 for n in rows[:, 0]}
    assert found == {"dog|cat": {0, 1}, "cat": {1}, None: set(), "": set()}


# Figures.


def space(n=30, d=6, noise=0.5):
    g = torch.Generator().manual_seed(0)
    common = torch.randn(n, d, generator=g)
    z = {m: F.normalize(common + noise * torch.randn(n, d, generator=g), dim=1) for m in ("image", "text", "audio")}
    return z, torch.randint(4, (n,), generator=g)


def test_label_precision_equals_its_definition():
    z, labels = space()
    got = measure.precision(z["text"], z["image"], labels, labels)
    together = measure.groups(z, labels)
    everything, repeated = torch.cat(list(z.values())), labels.repeat(3)
    for i in range(30):
        count = int((labels == labels[i]).sum())
        nearest = (z["image"] @ z["text"][i]).topk(count).indices
        assert got[i] == pytest.approx(float((labels[nearest] == labels[i]).double().mean()))
        shares = []
        for k in range(3):
            scores = everything @ everything[30 * k + i]
            scores[30 * k + i] = -9
            near = scores.topk(3 * count - 1).indices
            shares.append(float((repeated[near] == labels[i]).double().mean()))
        assert together[i] == pytest.approx(np.mean(shares))


def test_retrieval_of_pathways_and_of_all_together():
    z, labels = space()
    found = measure.of_samples(z, labels, "text", [str(i) for i in range(30)], [0.5])
    ways = [(z["text"] @ z["image"].T), (z["text"] @ z["image"].T).T]
    r1 = np.mean([(w.argmax(1) == torch.arange(30)).double().mean() for w in ways])
    assert found["R@1|text, image"].mean() == pytest.approx(float(r1))
    best = max(found[f"R@1|text, {m}"].mean() for m in ("image", "audio"))
    gain = found["gain in R@1 over the best pathway alone|centroid"].mean()
    assert gain == pytest.approx(found["R@1|centroid"].mean() - best)
    assert found["R@1|centroid, 50% missing"].mean() < found["R@1|centroid"].mean()
    product = F.normalize(z["text"]) @ (z["image"] * z["audio"]).T
    r1 = np.mean([(w.argmax(1) == torch.arange(30)).double().mean() for w in (product, product.T)])
    assert found["R@1|product"].mean() == pytest.approx(float(r1))
    pathways = np.mean([found[f"R@1|text, {m}"].mean() for m in ("image", "audio")])
    together = max(found[f"R@1|{name}"].mean() for name in measure.JOINT)
    groups = np.mean([measure.precision(z["text"], z[m], labels, labels).mean() for m in ("image", "audio")])
    assert measure.validation_score(z, labels, "text") == pytest.approx(np.mean([pathways, together, groups]))


def test_a_modality_that_was_aligned_the_wrong_way_round_is_turned_and_nothing_else():
    z, _ = space()
    flipped = z | {"audio": -z["audio"]}
    for given in (z, flipped):
        found = measure.turned(given, "image", given)
        assert all(torch.equal(found[name], z[name]) for name in z)
    assert torch.allclose(GRAM()(flipped), GRAM()(z), rtol=1e-4)  # whose volume knows no sign


def test_a_gap_that_is_put_in_moves_the_means_and_no_neighbours():
    z, labels = space(n=300, noise=0.2)
    near, far = (measure.with_gap(z, "image", gap) for gap in (0.0, 3.0))
    spaces = [measure.of_space(s, "image") for s in (near, far)]
    assert spaces[0]["gap"] < 0.05
    assert spaces[1]["gap"] > 0.8
    before, after = (measure.pathways(s, labels, "text") for s in (near, far))
    assert after["label precision|all modalities together"] < before["label precision|all modalities together"]


def test_precision_is_of_those_that_have_a_label(tmp_path):
    z, labels = space()
    some = labels.clone()
    some[:10] = -1
    every = measure.precision(z["text"], z["image"], some, some)
    assert np.isnan(every[:10]).all()
    assert not np.isnan(every[10:]).any()
    assert every[10:] == pytest.approx(measure.precision(z["text"][10:], z["image"], labels[10:], some))
    found = measure.pathways(z, some, "text")
    assert found["label precision|all modalities together"] == pytest.approx(np.nanmean(measure.groups(z, some)))
    assert 0 < measure.validation_score(z, some, "text") < 1
    rows = [torch.eye(4)[i : i + 1] for i in range(4)]
    put(tmp_path / "x", Shard(list("abcd"), ["dog", None, "", "cat"], {"text": ragged(rows)}), {})
    assert measure.embed(FeatureCache.open(tmp_path / "x"), {"text": torch.nn.Identity()})[1].tolist() == [1, -1, -1, 0]


def test_without_labels_only_pairs_count():
    z, _ = space()
    found = measure.of_samples(z, torch.zeros(30, dtype=torch.int64), "text", [str(i) for i in range(30)], [])
    assert not [key for key in found if "label" in key]
    r1 = np.mean([found[f"R@1|text, {m}"].mean() for m in ("image", "audio")])
    together = max(found[f"R@1|{name}"].mean() for name in measure.JOINT)
    score = measure.validation_score(z, torch.zeros(30, dtype=torch.int64), "text")
    assert score == pytest.approx((r1 + together) / 2)


# Whole benches.

TINY = """
out: {out}
datasets:
  equal:
    synthetic: {{modalities: 3, train: 64, validation: 24, test: 40, labels: 4, width: 12, shared: 4, private: 2}}
    sizes: [32]
  two:
    synthetic: {{modalities: 2, train: 64, validation: 24, test: 40, labels: 4, width: 12, shared: 4, private: 2}}
    settings: equal
objectives:
  infonce:
    objective: {{name: infonce}}
    search: {{tau: [0.1, 0.5], lr: [1e-2, 1e-3]}}
  triangle:
    objective: {{name: triangle, anchor: text}}
    search: {{tau: [0.1, 0.5], lr: [1e-2, 1e-3]}}
reference: infonce
seeds: 2
steps: 3
batch: 16
hidden: 8
embed_dim: 8
missing: [0.5]
gaps: [0, 1]
"""


def bench(file, *more):
    result = CliRunner().invoke(app, ["bench", str(file), *more])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


def test_a_rate_at_which_the_training_diverges_has_lost(tmp_path):
    config, trials = load(BenchConfig, write_tiny(tmp_path)), []
    config.objectives["infonce"].search = {"lr": [1e-2, 1e12]}
    write_datasets(config.datasets["equal"], tmp_path / "out" / "data" / "equal")
    assert search(config, "equal", "infonce", trials, lambda: None) == {"lr": 1e-2}
    assert [trial["score"] > 0 for trial in trials] == [True, False]


def write_tiny(folder):
    (folder / "tiny.yaml").write_text(TINY.format(out=folder / "out"))
    return folder / "tiny.yaml"


def test_a_bench_searches_resumes_and_reports(tmp_path, monkeypatch):
    out, file = tmp_path / "out", write_tiny(tmp_path)
    bench(file)
    found = json.loads((out / "results/equal/infonce.json").read_text())
    assert len(found["trials"]) == 3
    scores = [(t["settings"], t["score"]) for t in found["trials"]]
    best_tau = max(scores[:2], key=lambda s: s[1])[0]["tau"]
    assert found["trials"][2]["settings"] == {"tau": best_tau, "lr": 1e-3}
    assert found["settings"] == max(scores, key=lambda s: s[1])[0]
    assert [(r["size"], r["seed"]) for r in found["runs"]] == [(32, 0), (32, 1), (None, 0), (None, 1)]
    two = json.loads((out / "results/two/infonce.json").read_text())
    assert two["settings"] == found["settings"]
    assert two["trials"] == []
    assert "3 modalities are needed" in json.loads((out / "results/two/triangle.json").read_text())["unusable"]

    rows = read(out / "report.json")
    assert set(rows) == {"equal", "two"}
    mean = next(
        r
        for r in rows["equal"]
        if (r["metric"], r["task"], r["subset"], r["method"]) == ("R@1", "text, image", "all", "infonce")
    )
    values = [np.mean(r["samples"]["R@1|text, image"]) for r in found["runs"] if r["size"] is None]
    assert mean["value"] == pytest.approx(np.mean(values), abs=2e-3)
    assert mean["low"] <= mean["value"] <= mean["high"]
    for metric in ("gap", "zeta", "Hoelder divergence", "processor seconds", "R@1, moved apart by 1"):
        assert any(r["metric"] == metric for r in rows["equal"]), metric
    page = (out / "report.html").read_text()
    assert "settings: infonce" in page
    assert len(page) < 500_000

    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "bench.md").write_text(f"before\n{page_of.BEGIN}\nold\n{page_of.END}\nafter\n")
    monkeypatch.setattr(page_of, "DOCS", docs)
    page_of.main([out])
    text = (docs / "bench.md").read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    for title, (_, figure) in page_of.SECTIONS.items():
        assert f"### {title}" in text
        assert not figure or 0 < (docs / "bench" / f"{figure}.svg").stat().st_size < 60_000

    # what was lost is done again, what is there is not
    kept = found["runs"][:-1]
    (out / "results/equal/infonce.json").write_text(json.dumps({**found, "runs": kept}))
    other = (out / "results/equal/triangle.json").stat().st_mtime_ns
    bench(file)
    again = json.loads((out / "results/equal/infonce.json").read_text())
    assert again["runs"][:-1] == kept
    assert again["runs"][-1]["samples"] == found["runs"][-1]["samples"]  # the same from its seed
    assert json.loads((out / "results/equal/triangle.json").read_text())["runs"][0]["cost"]
    assert other > 0
    for change, message in (("steps=4", "another configuration"), (f"out={tmp_path / 'new'}", "data set equal has no smell")):
        done = CliRunner().invoke(app, ["bench", str(file), "--set", change, "--set", "query=smell"])
        assert done.exit_code == 2
        assert message in done.stderr


def test_several_processes_find_the_same(tmp_path):
    file = tmp_path / "tiny.yaml"
    text = TINY.replace("    sizes: [32]\n", "").replace("seeds: 2", "seeds: 1")
    text = text[: text.index("  two:")] + text[text.index("objectives:") :]  # two jobs, one for each process
    found = []
    for processes in ("1", "2"):
        out = tmp_path / processes
        file.write_text(text.format(out=out))
        bench(file, "--processes", processes)
        results = [json.loads((out / f"results/equal/{name}.json").read_text()) for name in ("infonce", "triangle")]
        found.append([(r["space"]["gap"], r["samples"]) for result in results for r in result["runs"]])
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_frozen_space_whose_decoder_draws(caches, tmp_path):
    text = (
        TINY[: TINY.index("datasets:")]
        + f"""
datasets:
  pictures:
    cache: {caches / "pictures"}
    pairs: {{{{audio: [{caches / "sounds"}]}}}}
    checkpoint: starter
    objectives: [infonce]
    pictures: {{{{prompts: 3, steps: 1}}}}
"""
        + TINY[TINY.index("objectives:") :].replace("seeds: 2", "seeds: 1")
    )
    file = tmp_path / "tiny.yaml"
    file.write_text(text.format(out=tmp_path / "out"))
    bench(file)
    (run,) = json.loads((tmp_path / "out/results/pictures/infonce.json").read_text())["runs"]
    assert {"judge top-5|text", "judge top-5|audio", "variety|text"} <= set(run["samples"])
    assert run["space"]["Frechet distance|audio"] > 0
    assert "Frechet distance|text" in run["moved"]["1"]
    heads = tmp_path / "out/runs/pictures/infonce/all-0/heads"
    assert {p.name for p in heads.iterdir()} == {"text", "audio"}  # the image stays where the decoder knows it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reference: infonce", "reference: gram"), "there is no objective gram"),
        (("{tau: [0.1, 0.5], lr: [1e-2, 1e-3]}", "{tau: [0.1, 0.5]}"), "trials are {'infonce': 2, 'triangle': 3}"),
        (("settings: equal", "settings: four"), "four is no data set with a search before this one"),
        (("    settings: equal", "    objectives: [gram]"), "datasets.two.objectives: there is no objective gram"),
        (("    sizes: [32]", "    objectives: [infonce]"), "datasets.two: equal has no settings for triangle"),
        (("    settings: equal", "    pictures: {prompts: 2}"), "pictures need a checkpoint"),
        (("    sizes: [32]", "    cache: somewhere"), "either synthetic or cache"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, change, message):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY.format(out=tmp_path / "out").replace(*change, 1))
    with pytest.raises(InputError) as error:
        load(BenchConfig, file)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["synthetic", "starter"])
def test_shipped_benches_are_whole(name, monkeypatch):
    monkeypatch.setenv("UNIALIGN_DATA", "/data")
    config = load(BenchConfig, find_config(name, "bench"))
    assert config.seeds >= 3
    assert {entry.objective["name"] for entry in config.objectives.values()} == set(OBJECTIVES)
    assert {entry.trials for entry in config.objectives.values()} == {6}
