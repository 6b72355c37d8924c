"""Corpora and caches in stores, tars and tables give what the same files on the disk do."""

import io
import json
import os
import random
import shutil
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import processes
import pytest
import torch
from conftest import tone, write_video, write_wav
from PIL import Image

from unialign_gen.data import extract
from unialign_gen.data.cache import FeatureCache
from unialign_gen.data.extract_config import ExtractConfig
from unialign_gen.data.sources import CorpusConfig, read_corpus
from unialign_gen.data.storage import expanded, made_once, place
from unialign_gen.errors import InputError
from unialign_gen.training.config import HeadConfig, StreamConfig, TrainConfig
from unialign_gen.training.train import train

ENCODERS = {"text": "starter", "audio": "starter", "image": "starter"}
COUNT, SHARDS = 8, 4


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIALIGN_COPIES", str(tmp_path / "copies"))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A manifest of sounds, pictures, captions and labels."""
    root = tmp_path_factory.mktemp("media")
    rows = []
    for i in range(COUNT):
        Image.new("RGB", (32, 32), (30 * i, 255 - 30 * i, 90)).save(root / f"{i}.png")
        write_wav(root / f"{i}.wav", tone(0.5, 16000, 200 + 100 * i), 16000)
        rows.append(
            {"id": f"s{i}", "image": f"{i}.png", "audio": f"{i}.wav", "text": [f"tone {i}", "a tone"], "label": "ab"[i % 2]}
        )
    (root / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


def extracting(corpus: CorpusConfig, out: str | Path) -> ExtractConfig:
    return ExtractConfig(corpus, ENCODERS, out, shard_size=-(-COUNT // SHARDS), workers=2, batch_size=2)


def training(cache: str | Path, out: Path) -> TrainConfig:
    heads = {"text": HeadConfig(hidden=8), "audio": HeadConfig(hidden=8)}
    streams = [StreamConfig({"all": 1.0}, ["image", "text", "audio"], batch=4)]
    config = TrainConfig(out, {"all": cache}, heads, streams, steps=4, trackers=[])
    config.evaluation.held_out = 0.0
    return config


@pytest.fixture(scope="module")
def local(media, tmp_path_factory):
    """The cache and the losses of the files on the disk."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("local")
    extract.run(extracting(CorpusConfig("manifest", manifest=media / "m.jsonl"), root / "cache"), progress=False)
    train(training(root / "cache", root / "run"))
    return root


def losses(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def same_features(found: FeatureCache, wanted: FeatureCache) -> None:
    assert found.ids == wanted.ids
    assert found.labels == wanted.labels
    for modality in ENCODERS:
        a, b = found.features(modality), wanted.features(modality)
        assert a.counts.equal(b.counts)
        assert a.values[:].equal(b.values[:])


def test_in_memory_of_fsspec(media, local, tmp_path):
    """The manifest, its media and the cache in `memory://`: the same bytes, and the same losses from them."""
    store = fsspec.filesystem("memory")
    store.put(f"{media}/", "/media/", recursive=True)
    corpus = CorpusConfig("manifest", manifest="memory://media/m.jsonl")
    found = extract.run(extracting(corpus, "memory://cache"), progress=False)
    assert found["complete"]
    assert found["out"] == "memory://cache"
    for path in (local / "cache").glob("*.safetensors"):
        assert store.cat_file(f"/cache/{path.name}") == path.read_bytes()
    assert sorted(p.name for p in (local / "cache").glob("*[ns]")) == sorted(
        n.rpartition("/")[2] for n in store.ls("/cache", detail=False) if n[-1] in "ns"
    )
    train(training("memory://cache", tmp_path / "run"))
    assert losses(tmp_path / "run") == losses(local / "run")
    extract.run(extracting(corpus, "memory://cache"), progress=False)  # finds itself done
    with pytest.raises(InputError, match="was made with frames = 8, this run has 2"):
        extract.run(replace(extracting(corpus, "memory://cache"), frames=2), progress=False)
    store.rm("/media/3.png")
    extract.run(extracting(corpus, "memory://again"), progress=False)
    (row,) = [json.loads(line) for line in store.cat_file("/again/report.jsonl").decode().splitlines()]
    assert (row["id"], row["modality"], row["reason"]) == ("s3", "image", "no such file: memory://media/3.png")


def test_a_folder_of_clips_in_a_store(tmp_path):
    store = fsspec.filesystem("memory")
    store.pipe_file("/vgg/a/clip_000001.mp4", write_video(tmp_path / "x.mp4", 0.5).read_bytes())
    store.pipe_file("/vgg/vggsound.csv", b"clip,1,a tone,test\ngone,2,nothing,test\n")
    corpus = read_corpus(CorpusConfig("vggsound", "memory://vgg", "test", with_sound=True))
    (sample,) = corpus.samples
    assert (sample.id, sample.label, str(sample.video)) == ("clip_000001", "a tone", "memory://vgg/a/clip_000001.mp4")
    assert [m.id for m in corpus.missing] == ["gone_000002"]


@pytest.fixture(scope="module")
def server():
    """An S3 server of this machine."""
    from moto.server import ThreadedMotoServer

    found = ThreadedMotoServer(port=0, verbose=False)
    found.start()
    host, port = found.get_host_and_port()
    set_before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    yield fsspec.filesystem("s3")
    found.stop()
    os.environ.clear()
    os.environ |= set_before


ENCODER = '''
import torch
from unialign_gen.encoders.base import Encoder

class Small(Encoder):
    """The mean colour of a picture, or the letters of a text."""
    dim, config = 3, {"encoder": "small"}

    def prepare(self, inputs):
        def one(x):
            if isinstance(x, str):
                return torch.tensor([len(x), ord(x[-1]), x.count("t")]).float()
            return torch.tensor(x.resize((1, 1)).getpixel((0, 0))).float()
        return torch.stack([one(x) for x in inputs])

    def forward(self, x):
        return x

def build(folder, config):
    return Small()

def weights(folder, config):
    return {}
'''


def small_extraction(corpus: CorpusConfig, out: str | Path, file: Path) -> None:
    torch.set_num_threads(1)
    encoder = {"encoder": "small", "file": str(file)}
    config = replace(extracting(corpus, out), encoders={"image": encoder, "text": encoder})
    extract.run(config, progress=False)


def small_training(cache: str | Path, out: Path) -> TrainConfig:
    heads = {"text": HeadConfig(hidden=8), "image": HeadConfig(hidden=8)}
    return replace(
        training(cache, out), heads=heads, embed_dim=8, streams=[StreamConfig({"all": 1.0}, ["image", "text"], batch=4)]
    )


def test_in_s3_killed_at_ten_moments(media, server, tmp_path):
    """A process that is killed leaves whole objects or none; the last one's cache trains to the losses of the disk."""
    (tmp_path / "small.py").write_text(ENCODER)
    small_extraction(CorpusConfig("manifest", manifest=media / "m.jsonl"), tmp_path / "cache", tmp_path / "small.py")
    train(small_training(tmp_path / "cache", tmp_path / "disk"))
    server.mkdir("bucket")
    server.put(f"{media}/", "bucket/media/", recursive=True)
    corpus = CorpusConfig("manifest", manifest="s3://bucket/media/m.jsonl")
    dice, killed = random.Random(0), 0

    def shards() -> list[str]:
        server.invalidate_cache()
        return list(server.glob("bucket/cache/shard-*"))

    for _ in range(10):
        there = shards()
        if len(there) == SHARDS:
            server.rm(dice.choice(there))
            there = shards()
        process = processes.start(small_extraction, corpus, "s3://bucket/cache", tmp_path / "small.py")
        wanted, until = len(there) + dice.choice([0, 0, 1]), time.monotonic() + 30
        while process.alive() and len(shards()) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.3))
        killed += process.alive()
        process.kill()
    small_extraction(corpus, "s3://bucket/cache", tmp_path / "small.py")
    assert killed >= 5
    for path in (tmp_path / "cache").glob("*.safetensors"):
        assert server.cat_file(f"bucket/cache/{path.name}") == path.read_bytes()
    train(small_training("s3://bucket/cache", tmp_path / "run"))
    assert losses(tmp_path / "run") == losses(tmp_path / "disk")
    with pytest.raises(InputError, match="no feature cache in s3://bucket/nothing"):
        FeatureCache.open("s3://bucket/nothing")


def test_stores_that_cannot_be_reached_are_one_line(monkeypatch, tmp_path):
    for location, words in (("s4://bucket/x", "s4://bucket/x cannot be reached"), ("memory://nowhere", "no feature cache in")):
        with pytest.raises(InputError, match=words):
            FeatureCache.open(location)
    with pytest.raises(InputError, match=r"no such file: memory://nowhere/m.jsonl"):
        read_corpus(CorpusConfig("manifest", manifest="memory://nowhere/m.jsonl"))
    with pytest.raises(InputError, match="root: expected a path or a URL, got 3"):
        CorpusConfig("vggsound", root=3)


def write_tars(media: Path, folder: Path, count: int = 2) -> None:
    for number in range(count):
        with tarfile.open(folder / f"{number:04d}.tar", "w") as tar:
            for i in range(number * COUNT // count, (number + 1) * COUNT // count):
                about = json.dumps({"captions": [f"tone {i}", "a tone"], "label": "ab"[i % 2]}).encode()
                entry = tarfile.TarInfo(f"s{i}.json")
                entry.size = len(about)
                tar.addfile(entry, io.BytesIO(about))
                tar.add(media / f"{i}.png", f"s{i}.png")
                tar.add(media / f"{i}.wav", f"s{i}.wav")


def test_tars_of_webdataset(media, local, tmp_path):
    """Extraction reads clips by their place in the tars, and so does an encoder that is trained on them."""
    write_tars(media, tmp_path)
    corpus = CorpusConfig("webdataset", f"{tmp_path}/{{0000..0001}}.tar")
    extract.run(extracting(corpus, tmp_path / "cache"), progress=False)
    same_features(FeatureCache.open(tmp_path / "cache"), FeatureCache.open(local / "cache"))
    config = replace(
        training(tmp_path / "cache", tmp_path / "run"), encoders={"audio": "starter"}, corpora={"all": corpus}, lr=1e-4, steps=1
    )
    disk = CorpusConfig("manifest", manifest=media / "m.jsonl")
    other = replace(config, caches={"all": local / "cache"}, out=tmp_path / "disk", corpora={"all": disk})
    for run in (config, other):
        train(run)
    assert losses(tmp_path / "run") == losses(tmp_path / "disk")
    store = fsspec.filesystem("memory")
    store.put(f"{tmp_path}/0000.tar", "/tars/0000.tar")
    found = read_corpus(CorpusConfig("webdataset", "memory://tars"))
    assert found.ids == [f"s{i}" for i in range(COUNT // 2)]
    assert found.samples[1].image.read() == (media / "1.png").read_bytes()
    assert str(found.samples[1].image) == "memory://tars/0000.tar/s1.png"


def test_tars_as_the_webdataset_package_reads_them(media, tmp_path):
    """The samples, their order and the bytes of their files are those of the package that the format is named after."""
    webdataset = pytest.importorskip("webdataset")
    write_tars(media, tmp_path, 3)
    theirs = list(webdataset.WebDataset(str(tmp_path / "{0000..0002}.tar"), shardshuffle=False))
    ours = read_corpus(CorpusConfig("webdataset", str(tmp_path / "{0000..0002}.tar"))).samples
    assert [s.id for s in ours] == [t["__key__"] for t in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.audio.read(), a.image.read(), list(a.text)) == (b["wav"], b["png"], json.loads(b["json"])["captions"])


def test_bad_tars_are_one_line(media, tmp_path):
    with pytest.raises(InputError, match="no tars at"):
        read_corpus(CorpusConfig("webdataset", str(tmp_path)))
    write_tars(media, tmp_path, 1)
    shutil.copy(tmp_path / "0000.tar", tmp_path / "0001.tar")
    with pytest.raises(InputError, match=r"0001.tar: sample 's0' is in .*0000.tar too"):
        read_corpus(CorpusConfig("webdataset", str(tmp_path)))
    (tmp_path / "0001.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(InputError, match=r"0001.tar is not a tar that can be read by place"):
        read_corpus(CorpusConfig("webdataset", str(tmp_path)))
    with pytest.raises(InputError, match=r"no such file: .*0007.tar"):
        read_corpus(CorpusConfig("webdataset", f"{tmp_path}/0007.tar"))


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_rows_of_datasets(media, local, tmp_path, form, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features(
        id=datasets.Value("string"),
        text=datasets.Sequence(datasets.Value("string")),
        sound={"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        picture=datasets.Image(decode=False),
        label=datasets.ClassLabel(names=["a", "b"]),
    )
    rows = {
        "id": [f"s{i}" for i in range(COUNT)],
        "text": [[f"tone {i}", "a tone"] for i in range(COUNT)],
        "sound": [{"bytes": (media / f"{i}.wav").read_bytes(), "path": None} for i in range(COUNT)],
        "picture": [{"bytes": None, "path": str(media / f"{i}.png")} for i in range(COUNT)],
        "label": [i % 2 for i in range(COUNT)],
    }
    # made an Audio column afterwards: writing one at once would need torchcodec
    table = datasets.Dataset.from_dict(rows, features).cast_column("sound", datasets.Audio(decode=False))
    if form == "saved":
        table.save_to_disk(str(tmp_path / "rows"))
    else:
        (tmp_path / "rows").mkdir()
        table.to_parquet(str(tmp_path / "rows" / "0.parquet"))
    extract.run(extracting(CorpusConfig("dataset", tmp_path / "rows"), tmp_path / "cache"), progress=False)
    same_features(FeatureCache.open(tmp_path / "cache"), FeatureCache.open(local / "cache"))


def test_splits_of_parquet_files_and_labels_that_are_not_published(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["a", "b"]))
    (tmp_path / "rows").mkdir()
    for split, label in (("train", 1), ("validation", -1)):
        table = datasets.Dataset.from_dict({"text": [split], "label": [label]}, features)
        table.to_parquet(str(tmp_path / "rows" / f"{split}-00000-of-00001.parquet"))

    def read(split):
        found = read_corpus(CorpusConfig("dataset", tmp_path / "rows", split)).samples
        return [(sample.text, sample.label) for sample in found]

    assert read("train") == [(("train",), "b")]
    assert read("validation") == [(("validation",), None)]
    assert len(read(None)) == 2
    with pytest.raises(InputError, match="no split test: it has train, validation"):
        read("test")


def test_rows_with_one_id_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"id": ["x", "x"], "text": ["a", "b"]}).save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(InputError, match="1 ids are of several rows, the first: x"):
        read_corpus(CorpusConfig("dataset", tmp_path / "rows"))


def test_files_of_one_folder_are_made_beside_each_other(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    both = Barrier(2, timeout=10)

    def make(part: Path) -> None:
        both.wait()
        part.write_text("x")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: made_once(tmp_path / name, make), "ab"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_is_made_by_one_of_many(tmp_path):
    made = []

    def make(part: Path) -> None:
        made.append(part)
        time.sleep(0.05)
        part.write_text("x")

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        assert {p.read_text() for p in pool.map(lambda _: made_once(tmp_path / "file", make), range(6))} == {"x"}
    assert len(made) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_patterns_and_places(tmp_path):
    assert expanded("s3://b/{00008..00010}-{0..1}.tar")[1:3] == ["s3://b/00008-1.tar", "s3://b/00009-0.tar"]
    assert place("~/x") == Path.home() / "x"
    assert place("file:///a/b") == Path("/a/b")
    assert str(place("memory://a/b")) == "memory://a/b"
