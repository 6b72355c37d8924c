"""Damaged and odd media files by the dozen: the run finishes, each is named, and memory stays flat."""

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import tone, write_video, write_wav
from PIL import Image
from test_decoding import write

from unialign_gen import config
from unialign_gen.data import extract
from unialign_gen.data.cache import FeatureCache
from unialign_gen.data.decode import prepare
from unialign_gen.data.extract_config import ExtractConfig
from unialign_gen.data.vggsound import read
from unialign_gen.encoders.base import Encoder

GOOD, BROKEN, MUTE, BLIND, NOTED = "good", "broken", "mute", "blind", "noted"


def damaged_files(root: Path) -> dict[str, str]:
    """Writes them all; what becomes of each, by name: whether it gives sound and pictures, one, or nothing."""
    dice = np.random.default_rng(0)
    whole = write_video(root / "source.mp4", 1.0).read_bytes()
    (root / "source.mp4").unlink()
    out: dict[str, str] = {}

    def put(name: str, data: bytes, kind: str, suffix: str = "mp4") -> None:
        (root / f"{name}_000000.{suffix}").write_bytes(data)
        out[name] = kind

    for i in range(4):
        put(f"truncated{i}", whole[: len(whole) * (i + 1) // 6], BROKEN)  # the index of an mp4 is at its end
        put(f"empty{i}", b"", BROKEN, ["mp4", "mkv", "webm", "avi"][i])
        put(f"random{i}", dice.integers(0, 256, 200 * 10**i // 10, dtype=np.uint8).tobytes(), "any")
        head = bytearray(whole)
        head[4 + 3 * i : 40 + 9 * i] = bytes(36 + 6 * i)
        put(f"zeroed_head{i}", bytes(head), "any")
        noise = bytearray(whole)
        for at in dice.integers(40, len(whole) - 1200, 30 * 4**i):
            noise[at] = int(dice.integers(0, 256))
        put(f"flipped{i}", bytes(noise), "any")
        put(f"wrong_suffix{i}", whole, GOOD, ["avi", "webm", "mkv", "mov"][i])
    put("text", b"<html>404 not found</html>" * 50, BROKEN)
    put("header", whole[:32], BROKEN)
    for name, options in (("stills", [0]), ("two", [0, 40])):
        write(root / f"{name}_000000.mkv", "matroska", "mpeg4", {}, options, 1.0)
        out[name] = GOOD
    write(root / "uneven_000000.mkv", "matroska", "mpeg4", {}, [0, 10, 20, 700, 710, 990], 1.0)
    write(root / "blind_000000.mp4", "mp4", "mpeg4", {}, [], 1.0)
    write(root / "mute_000000.mp4", "mp4", "mpeg4", {}, range(0, 1000, 40))
    write(root / "half_000000.mkv", "matroska", "mpeg4", {}, range(0, 6000, 40), 6.0)
    half = root / "half_000000.mkv"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    out |= {"uneven": GOOD, "blind": BLIND, "mute": MUTE, "half": NOTED}
    write_wav(root / "silent_000000.mkv", np.zeros((16000, 1)), 16000)
    out["silent"] = BLIND
    Image.new("RGB", (20, 20)).save(root / "picture.png")
    put("picture", (root / "picture.png").read_bytes(), "any")
    with (root / "huge_000000.mp4").open("wb") as f:  # sparse: 3 GB of nothing behind a header
        f.write(whole[:100])
        f.truncate(3 * 10**9)
    out["huge"] = BROKEN
    (root / "vggsound.csv").write_text("".join(f"{name},0,label,test\n" for name in [*out, "gone"]))
    return out


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    return root, damaged_files(root)


def test_the_run_finishes_and_names_each(damaged, tmp_path):
    root, files = damaged
    settings = {
        "corpus": {"kind": "vggsound", "root": str(root), "split": "test", "captions": "labels"},
        "encoders": {"text": "starter", "audio": "starter", "video": "starter"},
        "out": str(tmp_path / "out"),
        "frames": 2,
        "shard_size": 16,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    extract.run(config.load(ExtractConfig, tmp_path / "c.yaml"), progress=False)
    cache = FeatureCache.open(tmp_path / "out")
    counts = {m: dict(zip(cache.ids, cache.features(m).counts.tolist(), strict=True)) for m in cache.modalities}
    problems: dict[str, dict[str, dict]] = {}
    for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines():
        row = json.loads(line)
        problems.setdefault(row["id"].removesuffix("_000000"), {})[row.get("modality", "")] = row
    assert problems.pop("gone")[""]["kind"] == "missing"
    for name, kind in files.items():
        key = f"{name}_000000"
        seen, heard, told = counts["video"][key], counts["audio"][key], problems.get(name, {})
        assert counts["text"][key] == 1
        assert (seen, heard) in {
            GOOD: [(2, 1)],
            NOTED: [(2, 1)],
            BROKEN: [(0, 0)],
            MUTE: [(2, 0)],
            BLIND: [(0, 1)],
            "any": [(s, h) for s in (0, 1, 2) for h in (0, 1)],
        }[kind], (name, seen, heard, told)
        if kind == GOOD:
            assert not told, (name, told)
        if kind == NOTED:
            assert [p["kind"] for p in told.values()] == ["noted"]
            assert "cut off" in next(iter(told.values()))["reason"]
        for modality, count in (("video", seen), ("audio", heard)):
            if count == 0:  # never lost without a word
                assert told[modality]["kind"] in ("broken", "absent"), (name, modality, told)
                assert len(told[modality]["reason"].splitlines()) == 1
                assert told[modality]["path"].startswith(str(root / name))
    assert problems["silent"]["audio"]["note"] == "silent"
    assert problems["mute"]["audio"] | {"reason": "has no sound"} == problems["mute"]["audio"]
    assert cache.features("video").values[:].isfinite().all()


class Rate(Encoder):
    """As little of an encoder as decoding needs."""

    dim, rate = 1, 16000
    config = {"encoder": "rate"}  # noqa: RUF012

    def prepare(self, inputs):
        return torch.zeros(len(inputs), 1)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_flat(damaged):
    root, _ = damaged
    samples = read(root).samples
    encoders = {"audio": Rate(), "video": Rate()}

    def round_of_all() -> int:
        for sample in samples:
            prepare(sample, encoders, 4, 60.0)
        gc.collect()
        return resident()

    for _ in range(3):
        before = round_of_all()
    after = [round_of_all() for _ in range(5)][-1]
    assert after - before < 8_000_000  # 200 files more


def test_a_file_that_decodes_for_ever_is_given_up(tmp_path):
    write_video(tmp_path / "slow_000000.mp4", 3.0)
    (tmp_path / "vggsound.csv").write_text("slow,0,label,test\n")
    (sample,) = read(tmp_path).samples
    made = prepare(sample, {"audio": Rate(), "video": Rate()}, 4, 0.0)
    assert not made.inputs
    assert {p["modality"] for p in made.problems} == {"audio", "video"}
    assert "takes more than 0 s" in made.problems[0]["reason"]


def test_a_fault_of_any_kind_belongs_to_its_sample(tmp_path):
    class Failing(Rate):
        def prepare(self, inputs):
            raise ZeroDivisionError("of its own making")

    write_wav(tmp_path / "a_000000.wav", tone(0.5, 16000), 16000)
    (tmp_path / "vggsound.csv").write_text("a,0,label,test\n")
    (sample,) = read(tmp_path).samples
    made = prepare(sample, {"audio": Failing()}, 4, 60.0)
    assert [p["reason"] for p in made.problems] == ["ZeroDivisionError: of its own making"]
