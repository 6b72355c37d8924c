"""Training from caches: what is drawn, what is computed, and that neither kills nor processes change it."""

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import processes
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.cli import app
from unialign_gen.config import load
from unialign_gen.data.cache import FORMAT, FeatureCache, Ragged, Shard, counted, create, write_shard
from unialign_gen.data.extract import run as extract
from unialign_gen.data.extract_config import ExtractConfig
from unialign_gen.data.sources import CorpusConfig
from unialign_gen.errors import InputError
from unialign_gen.eval import gap, search
from unialign_gen.eval.embeddings import of_modality
from unialign_gen.eval.search import retrieval_figures
from unialign_gen.eval.study import Plan, check_heads
from unialign_gen.heads import Head, heads_in, load_head, save_head
from unialign_gen.loading import open_aligner
from unialign_gen.loading.methods import Method
from unialign_gen.notes import collected
from unialign_gen.objectives import OBJECTIVES, UniAlign
from unialign_gen.training import evaluation
from unialign_gen.training.batches import Batches
from unialign_gen.training.config import EvaluationConfig, HeadConfig, StreamConfig, TrainConfig
from unialign_gen.training.features import Labels, Moments, held_out, read
from unialign_gen.training.folder import RunFolder
from unialign_gen.training.model import Heads, whole_batch_gradients
from unialign_gen.training.rows import Rows, StreamBatch
from unialign_gen.training.seeds import derived
from unialign_gen.training.state import objective_of, prepare
from unialign_gen.training.streams import Stream, systematic
from unialign_gen.training.trackers import tracker_options
from unialign_gen.training.train import DivergedError, train

WIDTH = {"image": 1664, "text": 12, "audio": 10}  # the starter's image head takes 1664 features


def ragged(parts):
    return Ragged(torch.cat(parts), counted(torch.tensor([len(p) for p in parts])))


def write_cache(folder, features, labels=None, ids=None):
    """A cache of two shards from lists of tensors (k, width) by modality."""
    count = len(next(iter(features.values())))
    ids = ids or [f"{folder.name}-{i}" for i in range(count)]
    labels = labels or [None] * count
    create(folder, {"format": FORMAT, "encoders": {n: {"dim": f[0].shape[1]} for n, f in features.items()}, "shards": 2})
    half = count // 2
    for number, part in enumerate((slice(half), slice(half, None))):
        write_shard(folder, number, Shard(ids[part], labels[part], {n: ragged(f[part]) for n, f in features.items()}))
    return folder


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """Clips whose modalities are noisy linear views of common factors; sounds alone; a third of the clips are silent."""
    root = tmp_path_factory.mktemp("caches")
    g = torch.Generator().manual_seed(0)
    names = ["cat", "dog", "car", "bell"]
    base = torch.randn(len(names), 8, generator=g)
    view = {n: torch.randn(8, w, generator=g) for n, w in WIDTH.items()}

    def sample(label, modality, rows=1):
        factors = base[names.index(label)] + 0.5 * torch.randn(rows, 8, generator=g)
        return factors @ view[modality] * 0.3

    labels = [names[i % 4] for i in range(60)]
    clips = {
        "image": [sample(x, "image") for x in labels],
        "text": [sample(x, "text", 1 + i % 3) for i, x in enumerate(labels)],
        "audio": [sample(x, "audio", 0 if i % 3 == 0 else 2) for i, x in enumerate(labels)],
    }
    write_cache(root / "clips", clips, labels)
    heard = [names[i % 3] for i in range(24)]  # there is no bell
    write_cache(root / "sounds", {"audio": [sample(x, "audio") for x in heard]}, heard)
    return root


def settings(root, out, **changes):
    base = TrainConfig(
        out=out,
        caches={"clips": root / "clips"},
        heads={"text": HeadConfig(hidden=16, dropout=0.1), "audio": HeadConfig(hidden=16, dropout=0.0, rows="mean", noise=0.1)},
        streams=[StreamConfig({"clips": 1.0}, ["image", "text", "audio"], batch=16)],
        objective={"name": "unialign", "tau": 0.5, "tau_centroid": 0.5},
        steps=12,
        lr=3e-3,
        ema=0.5,
        save_every=4,
        trackers=[],
    )
    changed = replace(base, **changes)
    changed.evaluation.every, changed.evaluation.held_out = 6, 0.15
    return changed


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


# what is drawn


def source(caches, name="clips", share=0.2):
    return read(name, FeatureCache.open(caches / name), {"image", "text", "audio"}, share, seed=0)


def test_held_out_samples_follow_from_their_ids_alone():
    ids = [f"clip-{i}" for i in range(4000)]
    mask = held_out(ids, 0.1, seed=0)
    assert mask.float().mean() == pytest.approx(0.1, abs=0.02)
    assert held_out(ids[::-1], 0.1, seed=0).tolist() == mask.tolist()[::-1]
    assert not held_out(ids, 0.1, seed=1).equal(mask)


def test_a_frozen_anchor_may_have_another_head_than_the_checkpoints(caches, tmp_path):
    torch.manual_seed(0)
    head = Head(WIDTH["image"], 6, 8).eval()
    save_head(head, tmp_path / "image")
    found = prepare(settings(caches, tmp_path / "run", anchor_head=tmp_path / "image"))
    clips = source(caches)
    features = torch.stack([clips.rows["image"][i].float().mean(0) for i in range(3)])
    assert torch.allclose(found.points["clips"][:3], F.normalize(head(features), dim=1), atol=1e-4)
    assert found.heads.heads["text"].config["embed_dim"] == 6
    with pytest.raises(InputError, match="anchor_head: the anchor, text, is trained"):
        settings(caches, tmp_path / "run", anchor_head=tmp_path / "image", anchor="text")


def test_an_epoch_draws_every_training_sample_once(caches):
    clips = source(caches)
    usable = [i for i in range(len(clips)) if not clips.held_out[i]]
    stream = Stream("s", StreamConfig({"clips": 1.0}, ["image", "text"], batch=7), {"clips": clips}, "image", seed=3)
    assert len(stream) == len(usable)
    drawn = torch.cat([stream.draw(step).samples for step in range(3 * len(usable))])  # 21 epochs, over their ends too
    for epoch in drawn.view(-1, len(usable)):
        assert sorted(epoch.tolist()) == usable
    assert not drawn[: len(usable)].equal(drawn[len(usable) : 2 * len(usable)])


def test_balance_draws_labels_equally_often():
    g = torch.Generator().manual_seed(1)
    cumulative = torch.tensor([1.0, 3.0, 3.0, 7.0], dtype=torch.float64)
    counts = Counter(torch.cat([systematic(cumulative, 50, g) for _ in range(200)]).tolist())
    assert counts[0] / 10000 == pytest.approx(1 / 7, abs=0.01)
    assert counts[1] / 10000 == pytest.approx(2 / 7, abs=0.01)
    assert counts[2] == 0


def test_pairs_have_the_anchors_label_and_caches_their_share(caches):
    sources = {"clips": source(caches), "sounds": source(caches, "sounds")}
    pairs = {"audio": {"clips": 1.0, "sounds": 3.0}}
    config = StreamConfig({"clips": 1.0}, ["image", "audio"], batch=8, balance=0, pairs=pairs)
    stream = Stream("s", config, sources, "image", seed=0)
    used, labels = Counter(), Counter()
    for step in range(150):
        drawn = stream.draw(step)
        cache, sample = drawn.paired["audio"]
        assert len(set(zip(drawn.caches.tolist(), drawn.samples.tolist(), strict=True))) == 8
        there = [pair for pair in zip(cache.tolist(), sample.tolist(), strict=True) if pair[0] >= 0]
        assert len(set(there)) == len(there) >= 6
        for own, which, other in zip(drawn.labels.tolist(), cache.tolist(), sample.tolist(), strict=True):
            label = stream.labels[own]
            labels[label] += 1
            if which < 0:
                continue
            name = sorted(config.pairs["audio"])[which]
            assert label in sources[name].labels[other]
            assert not sources[name].held_out[other]
            assert int(sources[name].rows["audio"].counts[other]) > 0
            if label != "bell":  # which the sounds do not have
                used[name] += 1
    assert used["sounds"] / used.total() == pytest.approx(0.75, abs=0.04)
    assert all(count / labels.total() == pytest.approx(0.25, abs=0.02) for count in labels.values())


def test_a_label_with_fewer_samples_than_rows_leaves_the_rest_without(caches):
    """One recording for all: the second picture of its label has no sound, not the same again."""
    clips = source(caches, share=0.0)
    one = read("one", FeatureCache.open(caches / "sounds"), {"audio"}, 0.0, seed=0)
    one.labels = Labels.of(["cat"] if i == 0 else [] for i in range(len(one)))
    config = StreamConfig({"clips": 1.0}, ["image", "audio"], batch=12, pairs={"audio": {"one": 1.0}})
    stream = Stream("s", config, {"clips": clips, "one": one}, "image", seed=0)
    cache, _ = stream.draw(0).paired["audio"]
    assert sorted(cache.tolist()) == [-1] * 11 + [0]
    run = TrainConfig(
        Path("x"), {"clips": caches / "clips", "one": caches / "sounds"}, {"audio": HeadConfig()}, [config], steps=1
    )
    points = {"clips": torch.randn(len(clips), 4)}
    for rows in ("one", "mean"):
        run.heads["audio"].rows = rows
        made = Batches(run, stream, {"clips": clips, "one": one}, points, {}, {}).batch(0, 0, 1).rows["audio"]
        assert made.present.tolist() == (cache >= 0).tolist()


def test_no_batch_holds_a_sample_twice(caches):
    """Over the ends of epochs, where a label is rare, and where samples have several labels."""
    clips = source(caches)
    clips.labels = Labels.of(["rare"] if i < 3 else ["cat", "dog", "car"] for i in range(len(clips)))
    usable = int((~clips.held_out).sum())
    for balance in (1.0, 0.5, 0.0):
        for batch in (7, usable - 1, usable):
            config = StreamConfig({"clips": 1.0}, ["image", "text"], batch=batch, balance=balance)
            stream = Stream("s", config, {"clips": clips}, "image", seed=3)
            for step in range(30):
                assert len(set(stream.draw(step).samples.tolist())) == batch
    with pytest.raises(InputError, match=rf"s: a batch of {usable + 1} is larger than its set of {usable} samples"):
        Stream("s", StreamConfig({"clips": 1.0}, ["image"] * 2, batch=usable + 1), {"clips": clips}, "image", seed=3)


def test_a_sample_that_several_caches_hold_is_in_a_batch_once(tmp_path):
    """Drawn, or as what a label is paired with; the same clips with other captions, say."""
    names, sources = {"a": range(16), "b": range(8, 24)}, {}
    for name, ids in names.items():
        features = {m: [torch.randn(1, WIDTH[m]) for _ in ids] for m in ("image", "text", "audio")}
        folder = write_cache(tmp_path / name, features, ["cat"] * 16, [str(i) for i in ids])
        sources[name] = read(name, FeatureCache.open(folder), set(features), 0.0, seed=0)
    both = {"a": 1.0, "b": 1.0}
    config = StreamConfig(both, ["image", "audio"], batch=20, pairs={"audio": both})
    with collected() as notes:
        stream = Stream("s", config, sources, "image", seed=0)
    assert [str(n) for n in notes] == [
        "same samples: 8 samples of a, b have the id of one in another of these caches: a batch holds one of each id"
    ]
    for step in range(10):
        drawn = stream.draw(step)
        for caches, samples in ((drawn.caches, drawn.samples), drawn.paired["audio"]):
            ids = [names["ab"[c]][s] for c, s in zip(caches.tolist(), samples.tolist(), strict=True) if c >= 0]
            assert len(set(ids)) == len(ids) > 12
    with pytest.raises(InputError, match="a batch of 25 is larger than its set of 24 samples"):
        Stream("s", replace(config, batch=25), sources, "image", seed=0)


def test_a_step_is_drawn_the_same_in_any_order(caches):
    config = StreamConfig({"clips": 1.0}, ["image", "text"], batch=11)
    streams = [Stream("s", config, {"clips": source(caches)}, "image", seed=3) for _ in range(2)]
    forward = [streams[0].draw(step).samples.tolist() for step in range(20)]
    assert [streams[1].draw(step).samples.tolist() for step in reversed(range(20))] == forward[::-1]


def test_streams_steps_and_seeds_draw_independently(caches, tmp_path):
    """Two equal streams of a run, and neighbouring seeds: neither the same samples nor the same noise."""
    stream = StreamConfig({"clips": 1.0}, ["image", "text"], batch=16, balance=0.0)
    heads = {"text": HeadConfig(noise=1.0)}
    drawn, noise = [], []
    for seed in (0, 1):
        config = settings(caches, tmp_path, streams=[stream, replace(stream)], heads=heads, seed=seed)
        for batches in prepare(config).batches:
            for step in (0, 1):
                drawn.append(batches.stream.draw(step).samples)
                silent = Batches(replace(config, heads={"text": HeadConfig()}), *vars_of(batches))
                noise.append(batches.batch(step, 0, 1).rows["text"].values - silent.batch(step, 0, 1).rows["text"].values)
    for values in (drawn, noise):
        assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])
    flat = torch.stack([n.flatten() for n in noise])
    assert (torch.corrcoef(flat) - torch.eye(len(flat))).abs().max() < 0.3
    assert len({derived(*key) for key in ((), (0,), (0, 0), (1,), (0, 1), (1, 0), (2**40,))}) == 7


def vars_of(batches):
    return batches.stream, batches.sources, batches.points, {}, batches.spread


def test_what_cannot_be_drawn_is_said(caches):
    with pytest.raises(InputError, match="no sample of sounds has audio and image"):
        Stream(
            "streams[0]", StreamConfig({"sounds": 1.0}, ["image", "audio"], 4), {"sounds": source(caches, "sounds")}, "image", 0
        )


def test_batches_hold_the_drawn_rows_and_the_anchor_moves_towards_its_label(caches):
    clips = source(caches)
    points = {"clips": F.normalize(torch.randn(len(clips), 5, generator=torch.Generator().manual_seed(0)), dim=1)}
    means = {label: F.normalize(torch.arange(5.0) + i + 1, dim=0) for i, label in enumerate(["bell", "car", "cat", "dog"])}
    config = StreamConfig({"clips": 1.0}, ["image", "text", "audio"], batch=12, label_share=0.25)
    heads = {"text": HeadConfig(), "audio": HeadConfig(rows="mean")}
    run = TrainConfig(Path("x"), {"clips": caches / "clips"}, heads, [config], steps=1)
    stream = Stream("s", config, {"clips": clips}, "image", 0)
    batches = Batches(run, stream, {"clips": clips}, points, means, {})
    whole = batches.batch(5, 0, 1)
    drawn = stream.draw(5)
    for i, sample in enumerate(drawn.samples.tolist()):
        label = clips.labels[sample][0]
        expected = F.normalize(0.75 * points["clips"][sample] + 0.25 * means[label], dim=0)
        assert torch.allclose(whole.anchor[i], expected, atol=1e-6)
        assert any(whole.rows["text"].values[i].equal(row) for row in clips.rows["text"][sample])
        mine = whole.rows["audio"].values[whole.rows["audio"].owner == i]
        assert mine.equal(clips.rows["audio"][sample])
        assert bool(whole.rows["audio"].present[i]) == (len(mine) > 0)
    halves = [batches.batch(5, rank, 2) for rank in (0, 1)]
    for rank, half in enumerate(halves):
        assert half.anchor.equal(whole.anchor[rank::2])
        assert half.rows["text"].values.equal(whole.rows["text"].values[rank::2])


# what is computed


def test_gradients_of_parts_are_those_of_the_whole_batch():
    """With an objective's own parameter, and embeddings that nothing depends on: those get zeros, not nothing."""
    torch.manual_seed(0)
    heads = Heads({"text": Head(6, 4, 8), "audio": Head(5, 4, 8)}).double().eval()
    anchor = F.normalize(torch.randn(9, 4).double(), dim=1)
    audio = torch.randn(14, 5).double()
    owner = torch.tensor([0, 0, 1, 3, 3, 3, 4, 5, 6, 6, 7, 7, 8, 8])  # sample 2 has no sound
    present = torch.ones(9, dtype=torch.bool)
    present[2] = False
    rows = {"text": Rows(torch.randn(9, 6).double(), None, None, 9), "audio": Rows(audio, owner, present, 9)}
    loss = UniAlign(tau=0.5, tau_centroid=0.5)
    own = torch.nn.Parameter(torch.tensor(1.3).double())

    def value(z):
        return own * loss({"image": anchor, **z[0]}, {"audio": present})

    naive = value(heads([rows]))
    expected = torch.autograd.grad(naive, [*heads.parameters(), own])
    for size, factor in ((0, 1.0), (0, 8.0), (1, 1.0), (4, 1.0), (4, 8.0), (9, 1.0), (20, 1.0)):
        heads.zero_grad()
        own.grad = None
        got = whole_batch_gradients(
            lambda groups, part: heads(groups), [StreamBatch(rows, anchor)], value, [own], size, lambda x, f=factor: f * x
        )
        assert got.item() == pytest.approx(naive.item(), rel=1e-6)
        for parameter, gradient in zip([*heads.parameters(), own], expected, strict=True):
            assert torch.allclose(parameter.grad, factor * gradient, atol=1e-6), size
    for size in (0, 4):
        heads.zero_grad()
        streams = [StreamBatch(rows, anchor), StreamBatch({"text": rows["text"]}, anchor)]
        only_audio = lambda z: loss({"image": anchor, "audio": z[0]["audio"]}, {"audio": present})  # noqa: E731
        whole_batch_gradients(lambda groups, part: heads(groups), streams, only_audio, [], size)
        assert all(p.grad is not None and not p.grad.any() for p in heads.heads["text"].parameters())
        assert any(p.grad.any() for p in heads.heads["audio"].parameters())


def test_recall_and_the_number_of_pairs_are_those_of_the_evaluator(caches):
    """Equal captions share a hit, as `eval retrieval` counts them."""
    clips = source(caches)
    text = F.normalize(torch.randn(len(clips), 8), dim=1)[torch.arange(len(clips)) // 3]
    image = F.normalize(text + 0.3 * torch.randn_like(text), dim=1)
    found = evaluation.evaluate(
        ["text"], lambda name, _, rows: (text if name == "text" else image)[rows], {"c": clips}, {}, "image", 100
    )
    wanted = retrieval_figures(text[clips.held_out], {"image": image[clips.held_out]})
    assert found["text/r1"] == pytest.approx((wanted["T->I cosine|R@1"] + wanted["I->T cosine|R@1"]) / 2)
    assert found["text/n"] == int(clips.held_out.sum()) > 4


def test_few_pairs_held_out_are_a_note(caches, tmp_path):
    path = write_config(settings(caches, tmp_path / "run", steps=1), tmp_path / "run.yaml")
    done = json.loads(CliRunner().invoke(app, ["train", str(path), "--json"]).stdout)
    counts = {name: done["metrics"][f"{name}/n"] for name in ("audio", "text")}
    assert 2 < counts["audio"] < counts["text"] < 20
    (told,) = [n["text"] for n in done["notes"] if n["kind"] == "few held out"]
    few = f"audio/r1 of {counts['audio']}, text/r1 of {counts['text']}"
    assert told == f"held out are too few pairs to tell much: {few}; raise evaluation.held_out"
    assert f"text/n {counts['text']}" in CliRunner().invoke(app, ["train", str(path)]).output.replace("\n", ", ")
    bare = replace(settings(caches, tmp_path / "bare", steps=1), evaluation=EvaluationConfig(held_out=1e-9))
    with collected() as notes:
        train(bare)
    assert [n.text for n in notes if n.kind == "few held out"] == [
        "nothing that is held out can be measured, the last heads are kept: raise evaluation.held_out"
    ]


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_trains(caches, tmp_path, name):
    """On complete clips, since some objectives take nothing else; frozen anchors where that is what they are for."""
    options = {"tau": 0.5, "tau_centroid": 0.5} if name == "unialign" else {}
    heads = {"text": HeadConfig(hidden=16, dropout=0.0)}
    modalities = ["image", "text"]
    if name in ("gram", "triangle", "pmrl"):
        heads["audio"], modalities = HeadConfig(hidden=16, dropout=0.0), ["image", "text", "audio"]
    streams = [StreamConfig({"clips": 1.0}, modalities, batch=32)]
    objective = {"name": name, **options}
    config = settings(caches, tmp_path / name, objective=objective, heads=heads, streams=streams, steps=25, lr=1e-2, ema=0.0)
    result = train(config)
    assert result.finished
    curve = losses(tmp_path / name)
    assert sum(curve[-5:]) < sum(curve[:5])
    assert load_head(result.heads / "text").config["embed_dim"] == 256


def test_trained_heads_learn_and_take_the_checkpoints_place(caches, tmp_path):
    config = settings(caches, tmp_path / "run", steps=60, lr=1e-2)
    result = train(config)
    assert result.metrics["label1"] > 0.6  # four labels
    assert set(result.metrics) >= {"r1", "label1", "text/r1", "audio/label1", "text/gap"}
    kept = load_head(tmp_path / "run" / "heads" / "text")
    clips = FeatureCache.open(caches / "clips")
    rows = clips.features("text").values[:].float()
    assert F.normalize(kept(rows), dim=1).shape == (len(rows), 256)
    about = json.loads((tmp_path / "run" / "about.json").read_text())
    assert about["packages"]["torch"] == torch.__version__.split("+")[0]
    # heads for other features than the encoder's are refused, not used
    with pytest.raises(InputError, match="takes 12 features, the text encoder gives 384"):
        unialign_gen.load("starter", heads=tmp_path / "run").embed(text="a cat")


def test_heads_of_a_run_are_what_the_pipeline_embeds_with(tmp_path, starter):
    head = Head(384, 256, 8)
    from unialign_gen.heads import save_head

    save_head(head, tmp_path / "text")
    changed = unialign_gen.load("starter", heads=tmp_path)
    encoder = changed.aligner.part("text").encoder
    expected = F.normalize(head.eval()(encoder(encoder.prepare(["a cat"]))), dim=1)
    assert torch.allclose(changed.embed(text="a cat", prior_strength=0), expected, atol=1e-6)
    assert not torch.allclose(starter.embed(text="a cat", prior_strength=0), expected, atol=1e-2)
    changed.aligner.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "text" / "head.safetensors")
    assert saved["linear.weight"].float().equal(head.linear.weight)
    with pytest.raises(InputError, match="no heads in"):
        unialign_gen.load("starter", heads=tmp_path / "nothing")


# neither kills nor processes change it


def write_config(config, path):
    from unialign_gen.config import to_dict

    path.write_text(yaml.safe_dump(to_dict(config)))
    assert load(TrainConfig, path) == config
    return path


@pytest.fixture
def one_thread():
    """As the processes that the test starts: the last digits of sums depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_that_is_stopped_and_killed_ends_as_one_that_is_not(caches, tmp_path, one_thread):
    train(settings(caches, tmp_path / "whole", steps=40))
    config = settings(caches, tmp_path / "broken", steps=40)
    path = write_config(config, tmp_path / "broken.yaml")
    log = tmp_path / "broken" / "metrics.jsonl"
    for number, sig in enumerate((signal.SIGKILL, signal.SIGTERM)):
        run = processes.program("train", path, "--json")
        done = len(log.read_text().splitlines()) if log.exists() else 0
        while run.alive():
            if log.exists() and len(log.read_text().splitlines()) > done + (1, 5)[number]:  # first before a state is saved
                run.signal(sig)
                break
            time.sleep(0.002)
        if run.wait() in (0, 130):  # ended, or stopped
            assert json.loads(run.stdout)["step"] >= done
        else:
            assert number == 0, run.stderr
    train(config)
    assert log.read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    for kind in ("text", "audio"):
        names = [tmp_path / run / "heads" / kind / "head.safetensors" for run in ("whole", "broken")]
        assert names[0].read_bytes() == names[1].read_bytes()


def train_all(rank, world, paths):
    for path in paths:
        train(load(TrainConfig, path))
    torch.distributed.destroy_process_group()


def test_two_processes_lose_what_one_does(caches, tmp_path):
    quiet = {"text": HeadConfig(hidden=16, dropout=0.0), "audio": HeadConfig(hidden=16, dropout=0.0, rows="mean", noise=0.1)}
    objective = {"name": "infonce", "learnable": True}
    runs = {"unialign": {}, "learnable": {"objective": objective}, "parts": {"micro_batch": 3}}
    paths = []
    for name, changes in runs.items():
        config = settings(caches, tmp_path / f"{name}-one", heads=quiet, **changes)
        train(config)
        paths.append(str(write_config(replace(config, out=tmp_path / f"{name}-two"), tmp_path / f"{name}.yaml")))
    processes.together(2, train_all, paths)
    for name in runs:
        one, two = losses(tmp_path / f"{name}-one"), losses(tmp_path / f"{name}-two")
        assert two == pytest.approx(one, rel=1e-4, abs=1e-4)
    assert losses(tmp_path / "parts-one") == pytest.approx(losses(tmp_path / "unialign-one"), rel=1e-4)


@pytest.mark.parametrize("call", ["rename", "replace"])
def test_kept_heads_are_whole_at_any_moment(tmp_path, monkeypatch, call):
    """A kill at every step of writing: first heads appear together or not at all, later ones leave none out."""
    torch.manual_seed(0)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    real = {"rename": Path.rename, "replace": os.replace}
    kills = 0

    def killed_at(number):
        calls = [0]

        def move(*arguments):
            calls[0] += 1
            if calls[0] == number:
                raise KeyboardInterrupt
            return real[call](*arguments)

        return move

    for generation in range(3):
        heads = Heads({"text": Head(6, 4, 8), "audio": Head(5, 4, 8)})
        for number in range(1, 6):
            with monkeypatch.context() as patch:
                patch.setattr(Path if call == "rename" else os, call, killed_at(number))
                try:
                    folder.keep(heads, {})
                except KeyboardInterrupt:
                    kills += 1
            if generation or (folder.path / "heads").exists():
                found = heads_in(folder.path)
                assert set(found) == {"text", "audio"}
                assert [load_head(found[m]).config["features"] for m in ("audio", "text")] == [5, 6]
        folder.keep(heads, {})
        assert load_head(folder.path / "heads" / "text").linear.weight.equal(heads.heads["text"].linear.weight)
    assert kills == {"rename": 1, "replace": 11}[call]
    assert sorted(p.name for p in folder.path.iterdir()) == ["heads"]


def test_training_works_off_the_main_thread(caches, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(settings(caches, tmp_path / "run", steps=2))))
    thread.start()
    thread.join()
    assert found[0].finished


def test_two_runs_of_one_process_may_differ_in_precision(caches, tmp_path):
    assert train(settings(caches, tmp_path / "a", steps=1)).finished
    assert train(settings(caches, tmp_path / "b", steps=1, precision="bf16")).finished


def test_an_identity_start_gives_the_features(caches, tmp_path):
    features = torch.randn(50, 6) * 3 + 1
    head = Head(6, 6, 8, dropout=0.5).eval()
    head.fit_standardisation(features)
    head.start_as_identity()
    assert torch.allclose(head(features), features, atol=1e-5)
    assert all(p.requires_grad for p in head.parameters())
    with pytest.raises(InputError, match=r"heads.text.init: .* 12 features and 256 dimensions"):
        prepare(settings(caches, tmp_path, heads={"text": HeadConfig(init="identity"), "audio": HeadConfig()}))


# what a user gets wrong


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "nobody"},
        {"caches": {"clips": Path("/nowhere")}},
        {"objective": {"name": "unialing"}},
        {"objective": {"name": "unialign", "anchor": "depth"}},
        {"heads": {"text": HeadConfig(start=Path("/nowhere")), "audio": HeadConfig()}},
        {"evaluation": EvaluationConfig(held_out=0.15, metric="depth/r1")},
        {"trackers": ["nonsense"]},
        {"streams": [StreamConfig({"clips": 1.0}, ["image", "text", "audio"], batch=1000)]},
    ],
)
def test_wrong_names_leave_nothing_behind(caches, tmp_path, change):
    config = settings(caches, tmp_path / "run")
    evaluation = {"evaluation": change.get("evaluation", config.evaluation)}
    with pytest.raises(InputError):
        train(replace(config, **{**change, **evaluation}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": None}, "give steps or epochs"),
        ({"steps": None, "epochs": 1.0, "heads": {}}, "at least one stream and one head"),
        ({"streams": [StreamConfig({"clops": 1.0}, ["image", "text"])]}, "no cache is called clops"),
        ({"streams": [StreamConfig({"clips": 1.0}, ["text", "audio"])]}, "must hold the anchor, image"),
        ({"streams": [StreamConfig({"clips": 1.0}, ["image", "depth"])]}, "depth has no entry in heads"),
        ({"streams": [StreamConfig({}, ["image", "text"])]}, "needs a cache"),
        ({"streams": [StreamConfig({"clips": 1.0}, ["image", "text"])]}, "heads.audio: no stream uses it"),
        (
            {"streams": [StreamConfig({"clips": 1.0}, ["image", "text", "audio"], detach=["text", "audio"])]},
            "nothing is left that",
        ),
        ({"ema": 2.0}, "ema: expected less than 1, got 2"),
        ({"lr": float("nan")}, "lr: expected a finite number, got nan"),
        ({"betas": (0.9,)}, r"betas\[1\]: missing"),
    ],
)
def test_contradictions_are_one_line(caches, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        settings(caches, tmp_path / "x", **change)


def test_a_folder_of_another_run_is_left_alone(caches, tmp_path):
    train(settings(caches, tmp_path / "run", steps=4))
    with pytest.raises(InputError, match="holds a run with another lr"):
        train(settings(caches, tmp_path / "run", steps=8, lr=1.0))


def test_a_run_does_not_go_on_with_inputs_that_have_changed(caches, tmp_path):
    cache, head, run = tmp_path / "clips", tmp_path / "head", tmp_path / "run"
    shutil.copytree(caches / "clips", cache)
    torch.manual_seed(0)
    save_head(Head(WIDTH["image"], 6, 8), head)
    config = settings(tmp_path, run, steps=2, anchor_head=head)
    train(config)
    os.utime(cache / "shard-00001.safetensors")  # the same again, as after a copy
    train(replace(config, steps=4))
    save_head(Head(WIDTH["image"], 6, 8), head)
    with pytest.raises(InputError, match=f"{run} holds a run of which anchor_head was another"):
        train(replace(config, steps=6))
    first = cache / "shard-00000.safetensors"
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=f"{run} holds a run of which caches.clips was another: what lies there has changed"):
        train(replace(config, steps=6))
    (run / "about.json").write_text("{}")  # of an earlier version
    assert train(replace(config, steps=6)).step == 6


def test_a_run_goes_on_with_other_workers(caches, tmp_path):
    train(settings(caches, tmp_path / "run", steps=4, workers=1))
    assert train(settings(caches, tmp_path / "run", steps=8, workers=3)).step == 8


def test_a_metric_that_cannot_be_measured_is_said_before_the_first_step(caches, tmp_path):
    config = settings(caches, tmp_path / "run")
    config.evaluation.metric = "depth/r1"
    with pytest.raises(InputError, match=r"there is no depth/r1, but .*text/r1"):
        train(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("missing", [None, "image", "text"])
def test_what_can_be_measured_is_known_beforehand(caches, missing):
    found = source(caches)
    if missing:
        found.rows.pop(missing)
    names = [n for n in ("text", "audio") if n != missing]
    labels = {n: F.normalize(torch.randn(8), dim=0) for n in ("cat", "dog")}

    def embed(modality, source, rows):
        z = F.normalize(torch.randn(len(rows), 8), dim=1)
        return torch.where(source.has(modality)[rows][:, None], z, 0)

    measured = evaluation.evaluate(names, embed, {"clips": found}, labels, "image", 100)
    known = [name for name in measured if not name.endswith("/n")]
    assert evaluation.measurable(names, {"clips": found}, labels, "image", 100) == known
    assert measured


def test_trackers_get_the_metrics_and_absent_ones_are_said(caches, tmp_path):
    for steps in (2, 4):  # the second goes on with the run, and does not tell its configuration again
        train(settings(caches, tmp_path / "run", steps=steps, save_every=1, trackers=["tensorboard"]))
    place = tmp_path / "run" / "unialign_gen"
    assert len(list(place.glob("events.out.tfevents*"))) == 2
    (told,) = place.rglob("hparams.yml")
    told = yaml.safe_load(told.read_text())
    assert (told["lr"], told["objective.name"], told["heads.text.hidden"]) == (3e-3, "unialign", 16)
    events = EventAccumulator(str(place))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]
    run_id = json.loads((tmp_path / "run" / "about.json").read_text())["id"]
    options = tracker_options(tmp_path / "run", run_id, 2)
    assert options["wandb"] == {"name": "run", "dir": str(tmp_path / "run"), "id": run_id, "resume": "allow"}
    train(settings(caches, tmp_path / "run", steps=5, trackers=[]))
    assert json.loads((tmp_path / "run" / "about.json").read_text())["id"] == run_id
    with pytest.raises(InputError, match="trackers: nonsense is not there"):
        train(settings(caches, tmp_path / "other", trackers=["nonsense"]))


def test_bad_objectives_and_features_are_said(caches, tmp_path):
    with pytest.raises(InputError, match="objective: unknown objective 'unialing'"):
        prepare(settings(caches, tmp_path / "a", objective={"name": "unialing"}))
    write_cache(tmp_path / "thin", {"image": [torch.randn(1, 7)] * 4, "text": [torch.randn(1, 12)] * 4})
    with pytest.raises(InputError, match="image has 7 features, this checkpoint's head takes 1664"):
        prepare(settings(caches, tmp_path / "b", caches={"clips": tmp_path / "thin"}))
    bad = [torch.randn(i % 2, 1664) for i in range(8)]
    bad[5][0, 3] = float("nan")
    write_cache(tmp_path / "nan", {"image": bad, "text": [torch.randn(1, 12)] * 8})
    with pytest.raises(InputError, match="image holds NaN or infinite features, the first of 'nan-5': extract again"):
        prepare(settings(caches, tmp_path / "c", caches={"clips": tmp_path / "nan"}))
    write_cache(tmp_path / "mute", {m: [torch.randn(1, WIDTH[m]) for _ in range(20)] for m in ("image", "audio")})
    with pytest.raises(InputError, match=r"heads\.text: no cache has text, but audio, image"):
        prepare(settings(caches, tmp_path / "d", caches={"clips": tmp_path / "mute"}))


@pytest.mark.parametrize(("name", "rate"), [("unialign", 1e12), ("infonce", 1e36)])
@pytest.mark.parametrize("steps", [1, 12])
def test_a_rate_that_is_too_high_is_called_so(caches, tmp_path, name, rate, steps):
    """Found by the objective at the next step, or by the measurement after the last one."""
    config = settings(caches, tmp_path / "run", objective={"name": name}, lr=rate, steps=steps, warmup=0.0, ema=0.0)
    with pytest.raises(DivergedError, match=r"the training diverged, .* (zero|infinite) at step [12]: lower lr"):
        train(config)
    assert not (tmp_path / "run" / "heads").exists()


@pytest.mark.parametrize(("flat", "value"), [("image", 1.0), ("audio", 0.0), ("text", 3.3)])
def test_features_that_never_vary_are_said(caches, tmp_path, flat, value):
    """A note where those of another cache do: the starter's nonsense is all drawn to one point."""
    features = {m: [torch.full((1, w), value) if m == flat else torch.randn(1, w) for _ in range(20)] for m, w in WIDTH.items()}
    write_cache(tmp_path / "flat", features)
    caches = {"flat": tmp_path / "flat", "clips": caches / "clips"}

    def with_caches(*names):
        streams = [StreamConfig(dict.fromkeys(names, 1.0), ["image", "text", "audio"], batch=8)]
        return settings(tmp_path, tmp_path / "run", caches={name: caches[name] for name in names}, streams=streams)

    with pytest.raises(InputError, match=f"cache flat: all rows of {flat} are the same, nothing can be learnt"):
        prepare(with_caches("flat"))
    with collected() as notes:
        prepare(with_caches("flat", "clips"))
    told = [n.text for n in notes if n.kind == "constant features"]
    assert told == [f"cache flat: all rows of {flat} are the same: they say nothing of one sample against another"]


# encoders that are trained too


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A manifest of a dozen pictures and captions, one file broken, and its cache."""
    root = tmp_path_factory.mktemp("media")
    colours = ["red", "green", "blue", "white"]
    rows = []
    for i in range(12):
        Image.new("RGB", (32, 32), colours[i % 4]).save(root / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "text": [colours[i % 4], f"a {colours[i % 4]} page"]})
    (root / "table.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    corpus = CorpusConfig("manifest", manifest=root / "table.jsonl")
    extract(ExtractConfig(corpus, {"image": "starter", "text": "starter"}, root / "cache", workers=1), progress=False)
    (root / "3.png").write_bytes(b"broken since")
    return root, corpus


@pytest.fixture(scope="module")
def moved(clips):
    """A run that trains the starter's text encoder too."""
    root, corpus = clips
    config = TrainConfig(
        root / "moved",
        caches={"clips": root / "cache"},
        heads={"text": HeadConfig(hidden=8, dropout=0.0)},
        streams=[StreamConfig({"clips": 1.0}, ["image", "text"], batch=6)],
        objective={"name": "infonce"},
        encoders={"text": "starter"},
        corpora={"clips": corpus},
        steps=3,
        lr=1e-3,
        micro_batch=2,
        trackers=[],
        workers=1,
    )
    config.evaluation.held_out = 0.3
    assert "text/r1" in train(config).metrics
    return config


def test_a_trained_encoder_moves_and_takes_the_checkpoints_place(moved, starter):
    trained = unialign_gen.load("starter", heads=moved.out)
    encoder = trained.aligner.part("text").encoder
    before, after = (part.state_dict() for part in (starter.aligner.part("text").encoder, encoder))
    assert any(not torch.equal(after[k], before[k]) for k in after)
    assert trained.embed(text="red").shape == (1, 256)


def test_heads_of_a_trained_encoder_take_its_features_alone(clips, moved, tmp_path):
    root, corpus = clips
    heads = moved.out / "heads"
    frozen, of_another = FeatureCache.open(root / "cache"), f"{root / 'cache'} holds text of another one: extract with"
    with pytest.raises(InputError, match=of_another):
        gap.embed(frozen, ["image", "text"], heads, open_aligner("starter"), 100)
    with pytest.raises(InputError, match=of_another):
        search.evaluate(frozen, [Method("mine", (None, heads))], ["image"], open_aligner("starter"))
    pull = {"encoders": {}, "corpora": {}, "out": tmp_path / "run"}
    with pytest.raises(InputError, match=of_another):
        prepare(replace(moved, heads={"text": HeadConfig(start=heads / "text")}, **pull))
    with pytest.raises(InputError, match=of_another):
        prepare(replace(moved, heads={"image": HeadConfig()}, anchor="text", anchor_head=heads / "text", **pull))
    plan = Plan(corpus, "starter", (None,), (Method("mine", (heads,)),), ("text",), tmp_path / "out", seeds=1)
    with pytest.raises(InputError, match="mine was trained with its text encoder, and all methods are drawn by"):
        check_heads(plan)
    extract(ExtractConfig(corpus, {"text": str(heads / "text")}, tmp_path / "own", workers=1), progress=False)
    own = of_modality(FeatureCache.open(tmp_path / "own"), "text", heads, None)
    trained = unialign_gen.load("starter", heads=moved.out).aligner
    assert torch.allclose(own[:4], trained("text", ["red", "green", "blue", "white"]), atol=1e-5)


def test_media_that_break_under_a_trained_encoder_are_left_out_and_named(clips, tmp_path):
    root, corpus = clips
    config = TrainConfig(
        tmp_path / "run",
        caches={"clips": root / "cache"},
        heads={"image": HeadConfig(hidden=8), "text": HeadConfig(hidden=8)},
        streams=[StreamConfig({"clips": 1.0}, ["image", "text"], batch=12)],
        objective={"name": "unialign", "tau": 0.5, "tau_centroid": 0.5},
        anchor="text",
        encoders={"image": "starter"},
        corpora={"clips": corpus},
        steps=1,
        trackers=[],
        workers=1,
    )
    config.evaluation.held_out = 0.0
    assert train(config).finished
    problems = [json.loads(line) for line in (tmp_path / "run" / "problems.jsonl").read_text().splitlines()]
    assert [p["id"] for p in problems] == ["3"]
    (root / "3.png").rename(root / "gone.png")
    with pytest.raises(InputError, match=r"holds a run of which corpora\.clips was another"):
        train(replace(config, steps=2))
    (root / "gone.png").rename(root / "3.png")


def test_a_trained_encoder_needs_its_media(clips, tmp_path):
    root, _ = clips
    config = TrainConfig(
        tmp_path / "run",
        caches={"clips": root / "cache"},
        heads={"text": HeadConfig(hidden=8)},
        streams=[StreamConfig({"clips": 1.0}, ["image", "text"], batch=6)],
        encoders={"text": "starter"},
        steps=1,
        trackers=[],
    )
    with pytest.raises(InputError, match="corpora: clips is missing: text is trained from its media"):
        train(config)


# what comes with the package


def test_shipped_configurations_are_valid(monkeypatch):
    from unialign_gen.bench.config import BenchConfig
    from unialign_gen.configs import configs_folder

    for name in (
        "CLIPS",
        "CAPTIONS",
        "FEATURES",
        "RUN",
        "VGGSOUND",
        "IMAGEBIND",
        "BEATS",
        "VAST150K",
        "EVA_CLIP",
        "UNIALIGN_DATA",
        "SPACE",
        "PE_AV",
    ):
        monkeypatch.setenv(name, f"/{name.lower()}")
    files = sorted(configs_folder().glob("*.yaml"))
    assert len(files) >= 8
    for path in files:
        kind = ExtractConfig if "extract" in path.stem else BenchConfig if "bench" in path.stem else TrainConfig
        config = load(kind, path)
        if isinstance(config, TrainConfig):
            assert objective_of(config).anchor == config.anchor
    paper = load(TrainConfig, configs_folder() / "vggsound-kandinsky.yaml")
    assert (paper.epochs, paper.lr, paper.streams[0].batch, paper.objective["volume_weight"]) == (50, 2e-5, 512, 0.1)


def test_an_objective_that_cannot_use_a_streams_modalities_is_said_before_the_first_batch(caches, tmp_path):
    pair, heads = [StreamConfig({"clips": 1.0}, ["image", "text"], batch=16)], {"text": HeadConfig(hidden=16)}
    with pytest.raises(InputError, match="objective: TRIANGLE: 3 modalities are needed, got"):
        prepare(settings(caches, tmp_path / "a", objective={"name": "triangle"}, streams=pair, heads=heads))
    with pytest.raises(InputError, match="objective: UniAlign: tau is a finite number above 0, got True"):
        prepare(settings(caches, tmp_path / "b", objective={"name": "unialign", "tau": True}))
    with pytest.raises(InputError, match=r"objective: file:.*no such Python file"):
        prepare(settings(caches, tmp_path / "c", objective={"name": f"file:{tmp_path}/none.py:Mine"}))


def test_terms_of_every_objective_are_logged(caches, tmp_path):
    config = settings(caches, tmp_path / "run", objective={"name": "modgap"}, steps=2)
    train(config)
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"alignment", "centroid_uniformity"} <= set(row)


def test_what_would_do_nothing_is_said(caches, tmp_path):
    stream = StreamConfig({"clips": 1.0}, ["image", "text"], batch=8, label_share=0.5)
    with pytest.raises(InputError, match="label_share: it moves a frozen anchor"):
        settings(caches, tmp_path / "a", heads={"image": HeadConfig(), "text": HeadConfig()}, streams=[stream])
    noisy = {"text": HeadConfig(noise=0.1)}
    plain = StreamConfig({"clips": 1.0}, ["image", "text"], batch=8)
    with pytest.raises(InputError, match=r"heads\.text\.noise: it is of features"):
        settings(caches, tmp_path / "b", heads=noisy, streams=[plain], encoders={"text": "starter"})
    write_cache(tmp_path / "bare", {m: [torch.randn(1, WIDTH[m]) for _ in range(40)] for m in ("image", "text")})
    by_label = StreamConfig({"clips": 1.0}, ["image", "text"], batch=8, balance=0)
    changes = {"caches": {"clips": tmp_path / "bare"}, "heads": {"text": HeadConfig()}, "streams": [by_label]}
    with pytest.raises(InputError, match=r"balance: 0 draws by label, and no sample"):
        prepare(settings(caches, tmp_path / "c", **changes))


def test_heads_of_a_run_that_left_no_state_are_gone(caches, tmp_path):
    train(settings(caches, tmp_path / "run", steps=2))
    (tmp_path / "run" / "state.pt").unlink()  # as if it had been killed before the first
    alone = [StreamConfig({"clips": 1.0}, ["image", "text"], batch=16)]
    train(settings(caches, tmp_path / "run", steps=2, heads={"text": HeadConfig(hidden=16)}, streams=alone))
    assert [p.name for p in (tmp_path / "run" / "heads").iterdir()] == ["text"]


def test_one_row_has_no_spread_and_other_widths_are_said():
    one = Moments(1, torch.ones(3).double(), torch.zeros(3).double())
    assert one.std.tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="this head takes 4 features, these have 5: extract with"):
        Head(4, 2, 8)(torch.ones(1, 5))


def test_problems_are_kept_once_over_a_resume(tmp_path):
    folder = RunFolder(tmp_path)
    a, b = ({"id": name, "problem": "broken"} for name in "ab")
    folder.keep_problems([a])
    folder.keep_problems([a, b])
    assert [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()] == [a, b]


def test_heads_that_no_run_wrote_are_left_alone(caches, tmp_path):
    save_head(Head(4, 4, 8), tmp_path / "run" / "heads" / "audio")
    with pytest.raises(InputError, match="heads that no run wrote"):
        train(settings(caches, tmp_path / "run", steps=2))
    assert load_head(tmp_path / "run" / "heads" / "audio")


def test_what_is_called_like_a_share_of_a_state_stays(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("state-4", "state-8", "state-backup"):
        (tmp_path / name).mkdir()
    (tmp_path / "state-5.pt").write_bytes(b"")
    folder.forget_shares("state-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-5.pt", "state-8", "state-backup"]


def test_a_state_that_is_cut_off_is_one_line(caches, tmp_path):
    train(settings(caches, tmp_path / "run", steps=2))
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"state\.pt cannot be read, it may be cut off: delete it"):
        train(settings(caches, tmp_path / "run", steps=4))


def test_of_gaps_the_smallest_is_kept(caches, tmp_path):
    config = settings(caches, tmp_path / "run", steps=24)
    config.evaluation.metric = "text/gap"
    train(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["text/gap"] for row in rows if "text/gap" in row]
    assert len(set(gaps)) > 1
    best = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["best"]
    assert best == pytest.approx(-min(gaps), rel=1e-4)


def test_half_precision_on_a_processor_is_refused(caches, tmp_path):
    if torch.accelerator.is_available():
        pytest.skip("there is a device that has fp16")
    with pytest.raises(InputError, match="fp16 would change nothing on a processor"):
        train(settings(caches, tmp_path / "run", precision="fp16"))
    assert not list(tmp_path.iterdir())


def test_samples_that_a_stream_cannot_use_are_counted(tmp_path):
    image, text = ([torch.randn(int(has), width) for has in there] for width, there in ((1664, [1, 0] * 20), (12, [1] * 40)))
    write_cache(tmp_path / "clips", {"image": image, "text": text})
    stream = [StreamConfig({"clips": 1.0}, ["image", "text"], batch=8)]
    config = settings(tmp_path, tmp_path / "run", heads={"text": HeadConfig(hidden=16)}, streams=stream)
    with collected() as notes:
        prepare(config)
    (told,) = [n.text for n in notes if n.kind == "not trained on"]
    held = held_out([f"clips-{i}" for i in range(40)], 0.15, config.seed)
    lacking = sum(i % 2 == 1 and not held[i] for i in range(40))
    assert told == f"{lacking} of 40 samples of clips are not trained on: they lack image or text"
