"""Caches larger than memory: features stay in their files, and a run is what it would be with all of them in memory."""

import json
import os
import runpy
import sys
from pathlib import Path

import processes
import pytest
import test_training
import torch
import torch.nn.functional as F
from test_training import losses, settings, write_cache

from unialign_gen.data.cache import FeatureCache, MappedRows, Ragged
from unialign_gen.errors import InputError
from unialign_gen.heads import Head
from unialign_gen.training import features
from unialign_gen.training.features import Labels, Moments, embed_mean, moments, read
from unialign_gen.training.train import train

caches = test_training.caches
BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "training.py"


def test_rows_of_many_files_are_those_of_one():
    g = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 4, generator=g) for n in (3, 0, 5, 1)]
    whole, mapped = torch.cat(parts), MappedRows(parts)
    assert (mapped.shape, mapped.dtype, len(mapped)) == (whole.shape, whole.dtype, 9)
    for start in range(10):
        for stop in range(start, 12):
            assert mapped[start:stop].equal(whole[start:stop])
    index = torch.randint(0, 9, (50,), generator=g)
    assert mapped[index].equal(whole[index])
    mask = torch.arange(9) % 2 == 0
    assert mapped[mask].equal(whole[mask])
    assert mapped[index[:0]].shape == (0, 4)
    assert [len(p) for p in mapped.split(4)] == [4, 4, 1]
    assert torch.cat(list(mapped.split(4))).equal(whole)
    assert MappedRows([parts[1], parts[1]])[:].shape == (0, 4)
    ragged = Ragged(mapped, torch.tensor([0, 2, 2, 8, 9]))
    assert ragged[2].equal(whole[2:8])
    assert ragged.some(torch.tensor([3, 0])).values.equal(whole[[8, 0, 1]])


@pytest.fixture
def uneven(tmp_path):
    """A cache whose samples have up to three rows and values far from zero, and the same rows in memory."""
    g = torch.Generator().manual_seed(1)
    rows = [1000 + 3 * torch.randn(i % 4, 6, generator=g) for i in range(50)]
    return write_cache(tmp_path / "cache", {"text": rows}), torch.cat(rows), rows


def test_moments_in_pieces_are_those_of_all_rows(uneven, tmp_path, monkeypatch):
    folder, rows, _ = uneven
    monkeypatch.setattr(features, "CHUNK", 7)
    source = read("x", FeatureCache.open(folder), {"text"}, 0.0, 0)
    for _ in range(2):  # computed, then read
        found = moments([source], "text", tmp_path)
        assert torch.allclose(found.mean, rows.double().mean(0), rtol=1e-12)
        assert torch.allclose(found.std, rows.double().std(0), rtol=1e-9)
    twice = moments([source, source], "text", tmp_path)
    assert torch.allclose(twice.std, torch.cat([rows, rows]).double().std(0), rtol=1e-9)
    nothing = Moments(0, torch.zeros(6).double(), torch.zeros(6).double())
    assert (nothing + found).mean.equal(found.mean)


def test_embeddings_in_pieces_are_those_of_all_samples(uneven, monkeypatch):
    folder, _, rows = uneven
    torch.manual_seed(0)
    head = Head(6, 5, 8).eval()
    source = read("x", FeatureCache.open(folder), {"text"}, 0.0, 0)
    monkeypatch.setattr(features, "CHUNK", 7)
    found = embed_mean(source.rows["text"], head)
    for i, mine in enumerate(rows):
        wanted = F.normalize(F.normalize(head(mine), dim=1).sum(0), dim=0) if len(mine) else torch.zeros(5)
        assert torch.allclose(found[i], wanted, atol=1e-5)


def test_what_follows_from_a_cache_is_kept_beside_it_and_made_anew_when_it_changes(caches, tmp_path):
    import shutil

    shutil.copytree(caches / "clips", tmp_path / "clips", ignore=shutil.ignore_patterns("anchor-*", "content-*", "moments-*"))
    config = settings(caches, tmp_path / "a", caches={"clips": tmp_path / "clips"}, steps=2)
    train(config)
    kept = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("clips/*-*") if "shard" not in p.name}
    assert sorted(name.rpartition("-")[0] for name in kept) == ["anchor", "content", "moments-audio", "moments-text"]
    train(settings(caches, tmp_path / "b", caches={"clips": tmp_path / "clips"}, steps=2))
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("clips/*-*") if "shard" not in p.name} == kept
    assert losses(tmp_path / "b") == losses(tmp_path / "a")
    os.utime(tmp_path / "clips" / "shard-00000.safetensors", ns=(1, 1))
    train(settings(caches, tmp_path / "c", caches={"clips": tmp_path / "clips"}, steps=2))
    assert len(list(tmp_path.glob("clips/anchor-*"))) == 2
    assert losses(tmp_path / "c") == losses(tmp_path / "a")


def test_labels_as_numbers():
    listed = [["b", "a"], [], ["a"]]
    labels = Labels.of(listed)
    assert [labels[i] for i in range(3)] == listed
    assert Labels.of([[], []]).numbers.values.dtype == torch.int64


def test_infinite_anchors_are_said(tmp_path, caches):
    text, image = [torch.randn(1, 12) for _ in range(30)], [torch.randn(1, 1664) for _ in range(30)]
    image[7][0, 0] = float("inf")
    write_cache(tmp_path / "bad", {"text": text, "image": image})
    config = settings(caches, tmp_path / "run", caches={"clips": tmp_path / "bad"})
    config.streams[0].modalities.remove("audio")
    del config.heads["audio"]
    with pytest.raises(InputError, match="cache clips: image holds NaN or infinite features"):
        train(config)
    assert not [p for p in (tmp_path / "bad").iterdir() if "part" in p.name or "anchor" in p.name]


def benchmark(*arguments):
    sys.argv = [str(BENCHMARK), *arguments]
    sys.path.insert(0, str(BENCHMARK.parent))
    runpy.run_path(str(BENCHMARK), run_name="__main__")


def test_a_process_keeps_far_less_than_its_cache_and_trains_as_from_memory():
    """The command that `docs/training.md` names for 20 GB, at 0.25, beside the same with the features read whole."""
    arguments = ["--gigabytes", "0.25", "--processes", "1", "--steps", "2", "--batch", "64"]
    found = []
    for how in ([], ["--in-memory"]):
        child = processes.start(benchmark, *arguments, *how)
        assert child.wait() == 0, child.stderr
        found.append(json.loads(child.stdout))
    mapped, whole = found
    assert len(mapped["losses"]) == 2
    assert mapped["losses"] == whole["losses"]
    added, all_of_it = (run["processes"][0]["peak"] - run["processes"][0]["before"] for run in (mapped, whole))
    assert added < 0.3e9 < all_of_it, (added, all_of_it)
