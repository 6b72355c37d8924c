"""Extraction with the starter's encoders over small clips made on the spot."""

import hashlib
import json
import os
import random
import re
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
import yaml
from conftest import said, tone, write_video, write_wav
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from unialign_gen import config
from unialign_gen.cli import app
from unialign_gen.data import extract
from unialign_gen.data.cache import FeatureCache, read_descriptions
from unialign_gen.data.extract_config import ExtractConfig
from unialign_gen.errors import InputError
from unialign_gen.media import load_image, load_sound, load_video
from unialign_gen.notes import collected

CLIPS, SHARDS = 7, 4
SETTINGS = {
    "corpus": {"kind": "vggsound", "split": "test", "captions": "labels"},
    "encoders": {"text": "starter", "audio": "starter", "video": "starter"},
    "frames": 2,
    "shard_size": 2,
    "batch_size": {"video": 3, "audio": 2, "text": 2},
    "workers": 2,
}


ENCODER = '''
import numpy as np, torch
from unialign_gen.encoders.base import Encoder

class Mean(Encoder):
    """The means of three columns of numbers."""
    dim, config = 3, {"encoder": "mean"}

    def prepare(self, inputs):
        return torch.stack([torch.from_numpy(np.loadtxt(p, dtype=np.float32)) for p in inputs])

    def forward(self, x):
        return x.mean(1)

def build(folder, config):
    return Mean()

def weights(folder, config):
    return {}
'''


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    lines = []
    for i in range(CLIPS):
        lines.append(f"clip{i},{i},sound number {i},test")
        write_video(root / f"clip{i}_{i:06d}.mp4", 0.4 + 0.1 * i, sound=i != 4)
    (root / "vggsound.csv").write_text("\n".join([*lines, "gone,0,nothing,test"]))
    return root


def settings(folder: Path, clips: Path, out: str = "out", **changes) -> Path:
    path = folder / f"{out}.yaml"
    made = {**SETTINGS, **changes, "out": str(folder / out)}
    made["corpus"] = {**made["corpus"], "root": str(clips)}
    path.write_text(yaml.safe_dump(made))
    return path


def run(path: Path, rank: int = 0, world: int = 1) -> dict:
    torch.set_num_threads(1)
    return extract.run(config.load(ExtractConfig, path), extract.Process(rank, world), progress=False)


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files by name, hidden ones too."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """The cache of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    processes.finish(processes.start(run, settings(folder, clips)))
    return folder / "out"


def test_features_are_those_of_the_encoders(clips, whole, starter):
    cache = FeatureCache.open(whole)
    encoders = {kind: starter.aligner.part(kind).encoder for kind in ("text", "audio", "image")}
    assert cache.ids == [f"clip{i}_{i:06d}" for i in range(CLIPS)]
    assert cache.labels[3] == "sound number 3"
    assert cache.modalities == {"text": 384, "audio": 2304, "video": 1664}
    text, audio, video = (cache.features(m) for m in ("text", "audio", "video"))
    with torch.no_grad():
        for i, path in enumerate(sorted(clips.glob("*.mp4"))):
            words = encoders["text"](encoders["text"].prepare([f"A video of sound number {i}."]))
            assert torch.allclose(text[i], words, atol=1e-4)
            frames = encoders["image"](encoders["image"].prepare(load_video(path, 2).frames))
            assert torch.allclose(video[i], frames, atol=1e-3)
            if i == 4:
                assert len(audio[i]) == 0
            else:
                heard = encoders["audio"](encoders["audio"].prepare([load_sound(path, 44100)]))
                assert torch.allclose(audio[i], heard, atol=1e-3)
    assert cache.problems() == [
        {
            "id": "clip4_000004",
            "modality": "audio",
            "path": str(clips / "clip4_000004.mp4"),
            "kind": "absent",
            "reason": "has no sound",
        }
    ]
    report = [json.loads(line) for line in (whole / "report.jsonl").read_text().splitlines()]
    assert [(r["id"], r["kind"]) for r in report] == [("gone_000000", "missing"), ("clip4_000004", "absent")]


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(clips, whole, tmp_path):
    dice = random.Random(0)
    path, out = settings(tmp_path, clips), tmp_path / "out"
    killed = 0
    for _ in range(10):
        there = sorted(out.glob("shard-*"))
        if len(there) == SHARDS:
            for name in (dice.choice(there).name, "report.jsonl"):
                (out / name).unlink(missing_ok=True)
        process = processes.start(run, path)
        wanted = len(list(out.glob("shard-*"))) + dice.choice([0, 0, 1])
        while process.alive() and len(list(out.glob("shard-*"))) < wanted:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.5))
        killed += process.alive()
        process.kill()
    processes.finish(processes.start(run, path))
    assert killed >= 5
    assert contents(out) == contents(whole)


def test_killed_while_a_shard_is_written(clips, whole, tmp_path):
    path = settings(tmp_path, clips)
    process = processes.start(run, path)
    while process.alive() and not list((tmp_path / "out").glob("*shard*")):
        time.sleep(0.001)
    process.kill()
    (tmp_path / "out" / ".shard-00002.safetensors.1-1.part").write_bytes(b"half of it")
    processes.finish(processes.start(run, path))
    assert contents(tmp_path / "out") == contents(whole)


def test_other_numbers_of_processes_take_over(clips, whole, tmp_path):
    path = settings(tmp_path, clips)
    processes.finish(processes.start(run, path, 1, 2))
    with pytest.raises(InputError, match="2 of 4 shards are to be done"):
        FeatureCache.open(tmp_path / "out")
    processes.finish(*(processes.start(run, path, rank, 3) for rank in range(3)))
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"frames": 3}, "frames = 2, this run has 3"),
        ({"shard_size": 3}, "shards = 4, this run has 3"),
        ({"store": "float16"}, "store"),
        ({"corpus": {**SETTINGS["corpus"], "limit": 6}}, "corpus.samples = 7, this run has 6"),
        ({"encoders": {"text": "starter"}}, "encoders.audio"),
        ({"encoders": {**SETTINGS["encoders"], "video": {"encoder": "text"}}}, "unknown encoder"),
        ({"sources": {"audio": "/nowhere/weights.pt"}}, "sources.audio: no encoder here takes it"),
        ({"batch_size": {"txet": 2}}, "batch_size.txet: no encoder here is of it"),
    ],
)
def test_a_cache_of_other_settings_is_refused(clips, whole, change, key):
    path = settings(whole.parent, clips, **change)
    result = CliRunner().invoke(app, ["extract", str(path)])
    assert result.exit_code == 2
    assert key in result.stderr
    assert len(said(result.stderr)) == 1


def test_other_weights_are_refused_too(clips, whole, starter, tmp_path):
    from unialign_gen.encoders import load_encoder, save_encoder
    from unialign_gen.encoders.registry import load_encoder as load_again

    source = starter.aligner.folder / "text"
    encoder = load_encoder(source)
    next(encoder.parameters()).data[0, 0] += 1
    save_encoder(encoder, tmp_path / "text")
    assert load_again(tmp_path / "text").dim == 384
    path = settings(whole.parent, clips, encoders={**SETTINGS["encoders"], "text": str(tmp_path / "text")})
    with pytest.raises(InputError, match=r"was made with encoders.text.digest"):
        run(path)


def test_the_command_reports(clips, whole):
    path = settings(whole.parent, clips)
    result = CliRunner().invoke(app, ["extract", str(path), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["complete"]
    assert (found["samples"], found["missing"], found["shards"]) == (CLIPS, 1, 4)
    assert found["problems"] == {"missing": 1, "broken": 0, "absent": 1, "noted": 0}
    plain = CliRunner().invoke(app, ["extract", str(path)])
    assert "report.jsonl: 1 missing, 0 broken, 1 absent, 0 noted" in plain.stdout


def test_any_columns_and_a_modality_of_ones_own(tmp_path):
    (tmp_path / "mean.py").write_text(ENCODER)
    rows = [{"id": "a", "text": ["x", "y"], "signal": "a.txt", "image": "a.png"}, {"id": "b", "text": "z", "signal": "b.txt"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.savetxt(tmp_path / "a.txt", np.arange(12).reshape(4, 3))
    (tmp_path / "b.txt").write_text("no numbers")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    path = tmp_path / "c.yaml"
    encoders = {"text": "starter", "image": "starter", "signal": {"encoder": "mean", "file": str(tmp_path / "mean.py")}}
    corpus = {"kind": "manifest", "manifest": str(tmp_path / "m.jsonl")}
    path.write_text(yaml.safe_dump({"corpus": corpus, "encoders": encoders, "out": str(tmp_path / "out"), "store": "float16"}))
    with collected() as notes:
        run(path)
    cache = FeatureCache.open(tmp_path / "out")
    assert cache.features("text").counts.tolist() == [2, 1]
    assert cache.features("image").counts.tolist() == [1, 0]
    signal = cache.features("signal")
    assert signal.values.dtype == torch.float16
    assert signal[0].tolist() == [[4.5, 5.5, 6.5]]
    assert [(p["id"], p["modality"], p["kind"]) for p in cache.problems()] == [("b", "signal", "broken")]
    assert load_image(tmp_path / "a.png").size == (30, 20)
    np.savetxt(tmp_path / "b.txt", np.arange(12).reshape(4, 3))
    said = "broken: what could not be read (report.jsonl) is not tried again: once it is mended, delete"
    assert [str(n) for n in notes] == [f"{said} shard-00000.safetensors first"]
    (tmp_path / "out" / "shard-00000.safetensors").unlink()
    with collected() as notes:
        run(path)
    assert not notes
    assert FeatureCache.open(tmp_path / "out").features("signal").counts.tolist() == [1, 1]


def test_the_file_of_an_encoder_is_part_of_what_a_cache_was_made_with(tmp_path):
    (tmp_path / "mean.py").write_text(ENCODER)
    np.savetxt(tmp_path / "a.txt", np.arange(12).reshape(4, 3))
    (tmp_path / "m.csv").write_text("id,signal\na,a.txt\n")
    encoders = {"signal": {"encoder": "mean", "file": str(tmp_path / "mean.py")}}
    corpus = {"kind": "manifest", "manifest": str(tmp_path / "m.csv")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"corpus": corpus, "encoders": encoders, "out": str(tmp_path / "out")}))
    run(tmp_path / "c.yaml")
    assert run(tmp_path / "c.yaml")["complete"]
    described = read_descriptions(tmp_path / "out")
    assert described == {"signal": {"encoder": "mean", "file": str(tmp_path / "out" / "signal.py")}}
    assert (tmp_path / "out" / "signal.py").read_text() == ENCODER
    (tmp_path / "mean.py").write_text(ENCODER.replace("x.mean(1)", "x.mean(1) * 2"))
    with pytest.raises(InputError, match=r"was made with encoders.signal.digest"):
        run(tmp_path / "c.yaml")


def test_a_row_loses_only_the_modality_whose_file_is_missing(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("id,text,image\na,hello,a.png\nb,you,b.png\n")
    encoders = {"text": "starter", "image": "starter"}
    corpus = {"kind": "manifest", "manifest": str(tmp_path / "m.csv")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"corpus": corpus, "encoders": encoders, "out": str(tmp_path / "out")}))
    assert run(tmp_path / "c.yaml")["samples"] == 2
    cache = FeatureCache.open(tmp_path / "out")
    assert (cache.features("text").counts.tolist(), cache.features("image").counts.tolist()) == ([1, 1], [1, 0])
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "report.jsonl").read_text().splitlines()]
    assert (row["id"], row["modality"], row["kind"]) == ("b", "image", "missing")
    assert row["reason"] == f"no such file: {tmp_path / 'b.png'}"


def test_sources_are_for_the_encoders_that_are_there(clips, tmp_path):
    path = settings(tmp_path, clips)
    for arguments, message in (
        (["--source", "decoder=x"], "sources.decoder: no encoder here is of it"),
        (["--source", "image"], "write PART=FOLDER"),
        (["--set", "encoders.audio=stable-unclip"], "give one .--source audio=..."),
        (["--set", "encoders.audio=nobody"], "unknown checkpoint"),
        (["--set", "encoders.audio={encoder: bets}"], "unknown encoder 'bets'"),
        (["--set", "frame=3"], "frame: unknown key, did you mean frames"),
    ):
        result = CliRunner().invoke(app, ["extract", str(path), *arguments])
        assert result.exit_code == 2
        assert re.search(message, result.stderr), result.stderr
        assert not (tmp_path / "out").exists()  # nothing is left behind


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no Python file"), ("1 / 0", "cannot be run .ZeroDivisionError"), ("x = 1", "defines no build")],
)
def test_a_bad_file_of_a_encoder_is_one_line(tmp_path, text, message):
    (tmp_path / "s.txt").touch()
    (tmp_path / "m.csv").write_text("id,signal\na,s.txt\n")
    if text:
        (tmp_path / "t.py").write_text(text)
    encoders = f"{{signal: {{encoder: t, file: {tmp_path}/t.py}}}}"
    (tmp_path / "c.yaml").write_text(
        f"corpus: {{kind: manifest, manifest: {tmp_path}/m.csv}}\nencoders: {encoders}\nout: {tmp_path}/out"
    )
    with pytest.raises(InputError, match=message):
        run(tmp_path / "c.yaml")


def test_what_no_sample_has_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("id,text,audio,imu\na,hello,gone.wav,m.csv\n")
    (tmp_path / "c.yaml").write_text(
        f"corpus: {{kind: manifest, manifest: {tmp_path}/m.csv}}\nencoders: {{audio: starter}}\nout: {tmp_path}/out"
    )
    said = rf"encoders.audio: no sample of m has audio \(no such file: {tmp_path}/gone.wav\); they have imu, text$"
    with pytest.raises(InputError, match=said):
        run(tmp_path / "c.yaml")
    assert not (tmp_path / "out").exists()


def test_padding_together_is_padding_by_the_encoder(starter):
    encoder = starter.aligner.part("audio").encoder
    sounds = [torch.from_numpy(tone(s, 44100)[:, 0]).float() for s in (1.0, 3.0, 2.5)]
    apart = encoder.collate([encoder.prepare([s]) for s in sounds])
    assert torch.equal(apart.nan_to_num(7.0), encoder.prepare(sounds).nan_to_num(7.0))


def test_shards_hold_what_the_index_says(whole):
    first = load_file(whole / "shard-00000.safetensors")
    assert sorted(first) == ["audio", "audio.offsets", "text", "text.offsets", "video", "video.offsets"]
    assert first["video"].shape == (4, 1664)
    assert first["video.offsets"].tolist() == [0, 2, 4]
    assert os.path.getsize(whole / "index.json") < 3000


def test_wav_files_beside_the_clips(clips, tmp_path):
    write_wav(tmp_path / "clip9_000009.wav", tone(1.0, 16000), 16000)
    (tmp_path / "vggsound.csv").write_text("clip9,9,a tone,test\n")
    path = settings(tmp_path, tmp_path, encoders={"text": "starter", "audio": "starter"})
    assert run(path)["problems"] == {"missing": 0, "broken": 0, "absent": 0, "noted": 0}
    assert FeatureCache.open(tmp_path / "out").features("audio").counts.tolist() == [1]


BROKEN = """
import torch
from unialign_gen.encoders.base import Encoder


class Broken(Encoder):
    dim, config = 2, {"encoder": "broken"}

    def prepare(self, texts):
        return torch.full((len(texts), 2), 1e6)

    def forward(self, rows):
        return rows


def build(folder, config):
    return Broken()


def weights(folder, config):
    return {}
"""


def test_texts_without_a_finite_feature_are_refused(clips, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    encoder = {"encoder": "broken", "file": str(tmp_path / "broken.py")}
    path = settings(tmp_path, clips, encoders={"text": encoder}, batch_size=2, store="float16")
    with pytest.raises(InputError, match=r"features of .* are not finite: use dtype float32, store float32"):
        run(path)
