"""The recipe's command line from packages to heads, a rehearsal: its outputs, a second run, and kills at random moments."""

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import processes
import pytest
import tiny_recipe
import torch
import torch.nn.functional as F
from PIL import Image
from recipe_process import recipe, voices
from safetensors.torch import load_file
from tiny_recipe import SIZES

from unialign_gen.encoders import load_encoder
from unialign_gen.heads import load_head
from unialign_gen.loading import find

pytestmark = [
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="the recipe needs Debian's tools"),
    pytest.mark.timeout(500),  # where much else runs; alone a minute
]
ALIGNER = find("starter") / "aligner"


def start(tiny, *words, root=None, networks="real"):
    words = [*words, "--root", str(root or tiny.root)]
    return processes.start(recipe, words, networks, limit=400, environment=tiny.environment)


def run(tiny, *words, **options):
    child = start(tiny, *words, **options)
    assert child.wait() == 0, child.stderr[-3000:]
    return child


class Tiny:
    def __init__(self, folder):
        self.folder, self.root = folder, folder / "root"
        self.environment = tiny_recipe.make(folder, self.root)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    for package in ("ai_edge_litert", "espeakng_loader", "openvino", "resvg_py", "soundfile", "soxr", "tinysoundfont"):
        pytest.importorskip(package, reason="of the extra `recipe`")
    return Tiny(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def whole(tiny):
    """After `data`, `encode` and `all`, with what the last said. Thousands of names in `heads` are not worth real networks."""
    run(tiny, "data", "--jobs", "2")
    run(tiny, "encode")
    tiny.said = run(tiny, "all", networks="cheap").stderr
    return tiny


def rows_of(root):
    return [json.loads(line) for line in (root / "rows.jsonl").read_text().splitlines()]


def heard_of(root):
    return [r for r in map(json.loads, (root / "manifest.jsonl").read_text().splitlines()) if r["kind"] == "sound"]


def test_all_says_how_long_each_stage_will_take(whole):
    first, *rest = whole.said.splitlines()
    assert first == "all: data 14, encode 22, space 4, heads 6; together 46 minutes."
    for stage in ("data: 14 minutes.", "encode: 22 minutes.", "space: 4 minutes.", "heads: 6 minutes."):
        assert stage in rest


def test_pictures_come_out_of_every_kind_of_package(whole):
    rows = rows_of(whole.root)
    plain = {r["id"]: r for r in rows if r["kind"] == "plain"}
    assert Counter(r["source"] for r in plain.values()).keys() == {
        *tiny_recipe.SETS, "fluent-emoji-3d", "openclipart", "tuxpaint-stamps", "gcompris", "scratch"
    }  # fmt: skip
    dog = plain["noto-dog-face-0"]
    assert dog["captions"] == ["dog face", "dog face emoji", "dog face, thing", "a brown dog", "brown dog"]
    assert (dog["concepts"], dog["colour"], dog["tier"], dog["parts"]) == (["dog"], "brown", "A", ["noto-dog-face-0"])
    assert plain["tuxpaint-stamps-dog-png"]["captions"][0] == "dog on a walk"
    assert plain["openclipart-animals-cat-on-mat-svg"]["captions"][:2] == ["cat on mat", "clip art of a cat on mat"]
    assert {r["split"] for r in plain.values() if r["tier"] == "C"} == {"cross"}
    assert plain["scratch-dog-jpg"]["style"] == "photo"
    assert f"{len(plain)} pictures, {len(rows)} with variants" in whole.said
    assert "'broken': 1" in whole.said  # an empty page
    kinds = Counter((r["kind"], r["split"]) for r in rows)
    assert kinds["composition", "test"] <= SIZES["test_compositions"] + SIZES["pairs"]
    assert sum(r["id"].startswith("pair-unseen") for r in rows) == SIZES["pairs"]
    assert kinds["composition", "train"] > SIZES["compositions"] / 2
    assert kinds["recoloured", "train"] > len(plain) / 2


def test_pixels_and_rows_are_in_one_order(whole):
    rows = rows_of(whole.root)
    large, small = (np.load(whole.root / f"pictures{side}.npy") for side in (128, 64))
    assert large.shape == (len(rows), 128, 128, 3)
    assert small.shape == (len(rows), 64, 64, 3)
    halved = large.reshape(len(rows), 64, 2, 64, 2, 3).astype(float).mean((2, 4))
    assert np.abs(halved - small).max() <= 1
    car = next(n for n, r in enumerate(rows) if r["id"] == "noto-car-0")
    assert tuple(large[car, 64, 64]) == (0xE0, 0x10, 0x10)
    assert tuple(large[car, 0, 0]) == (255, 255, 255)
    assert np.array_equal(np.asarray(Image.open(whole.root / "images" / "noto-car-0.png")), large[car])
    assert {Image.open(f).size for f in (whole.root / "pictures512").glob("*.webp")} == {(512, 512)}


def test_sounds_come_out_of_every_kind_of_package(whole):
    import soundfile

    heard = heard_of(whole.root)
    count = Counter((r["source"], r["concepts"][0]) for r in heard)
    expected = {
        ("tuxpaint", "dog"): 1, ("gcompris", "dog"): 1, ("sound-like", "dog"): 3, ("sound-like", "cat"): 3,
        ("sound-like", "car"): 1, ("sound-like", "guitar"): 1, ("opensfx", "dog"): 1, ("0ad", "cat"): 1,
        ("fluid-gm", "guitar"): 12, **{("espeak-ng", concept): 4 for concept in tiny_recipe.CONCEPTS},
    }  # fmt: skip
    assert count == expected
    for row in heard:
        samples, rate = soundfile.read(whole.root / row["path"])
        assert (rate, samples.ndim) == (44100, 1), row["id"]
        assert 0.12 < len(samples) / rate < 4, row["id"]
        assert 0.02 < np.abs(samples).max() < 0.95, row["id"]
    bark = next(r for r in heard if r["key"].endswith("dog_a1.wav"))
    samples, _ = soundfile.read(whole.root / bark["path"])
    strongest = np.abs(np.fft.rfft(samples)).argmax() / len(samples) * 44100
    assert strongest == pytest.approx(200 + 90 * 10, rel=0.01)
    listed = [line.split("\t") for line in (whole.root / "ATTRIBUTION.tsv").read_text().splitlines()[1:]]
    assert sum(int(line[-1]) for line in listed) == len((whole.root / "manifest.jsonl").read_text().splitlines())
    assert {line[0] for line in listed if line[4].startswith("nothing")} == {"tuxpaint", "tuxpaint-stamps", "gcompris"}


def test_a_voice_says_a_name_alike_in_every_process(tiny):
    said = [processes.start(voices, environment=tiny.environment) for _ in range(2)]
    processes.finish(*said)
    assert said[0].stdout == said[1].stdout
    assert len(said[0].stdout.splitlines()) == 4 * len(tiny_recipe.CONCEPTS)


def test_encoders_come_out_of_their_packages_as_they_ship(whole):
    """The packages were made of the shipped encoders, so the very same weights must come out."""
    shipped = {kind: ALIGNER / kind for kind in ("image", "text", "audio")} | {"judge": ALIGNER.parent.parent / "judge"}
    for kind, folder in shipped.items():
        found, expected = (load_file(f / "model.safetensors") for f in (whole.root / "encoders" / kind, folder))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype, name
            assert torch.allclose(found[name].float(), value.float(), rtol=1e-3, atol=1e-5), name


def test_features_are_the_encoders(whole):
    rows, heard = rows_of(whole.root), heard_of(whole.root)
    (file,) = (whole.root / "features" / "image").glob("*.npy")
    found = np.load(file)
    encoder = load_encoder(ALIGNER / "image")
    pictures = np.load(whole.root / "pictures128.npy")[:3]
    with torch.no_grad():
        expected = encoder(encoder.prepare([Image.fromarray(p) for p in pictures])).numpy()
    assert found.shape == (len(rows), 1664)
    assert np.allclose(found[:3], expected, atol=2e-2)
    said = {}
    for file in (whole.root / "features" / "text").glob("*.npy"):
        said |= dict(zip(json.loads(file.with_suffix(".json").read_text()), np.load(file), strict=True))
    assert {caption for row in rows for caption in row["captions"]} <= said.keys()
    encoder = load_encoder(ALIGNER / "text")
    with torch.no_grad():
        expected = encoder(encoder.prepare(["a red car"]))[0].numpy()
    assert np.allclose(said["a red car"], expected, atol=2e-3)
    versions = {"rec": 5, "fx": 5, "font": 2, "speech": 2}
    for row in heard:
        count = versions[row["style"]] if row["split"] == "train" else 1
        assert np.load(whole.root / "features" / "audio" / f"{row['id']}.npy").shape == (count, 2304)


def test_space_and_heads_are_those_that_embed(whole):
    root, rows = whole.root, rows_of(whole.root)
    embeds = torch.from_numpy(np.load(root / "embeddings.npy")).float()
    (file,) = (root / "features" / "image").glob("*.npy")
    expected = F.normalize(load_head(root / "space")(torch.from_numpy(np.load(file)).float()), dim=1)
    assert embeds.shape == (len(rows), 256)
    assert torch.allclose(embeds, expected, atol=2e-3)
    for kind, width in (("text", 384), ("audio", 2304)):
        assert load_head(root / "heads" / "heads" / kind)(torch.randn(2, width)).shape == (2, 256)
    seen = load_head(root / "recognition" / "image")
    assert [one["classes"] for one in seen.config["recognises"]] == [700]
    heard = load_head(root / "recognition" / "audio")
    assert [one["classes"] for one in heard.config["recognises"]] == [300, len(tiny_recipe.CONCEPTS)]
    assert all(torch.isfinite(p).all() for head in (seen, heard) for p in head.state_dict().values())
    steps = (root / "heads" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in steps] == [1, 2, 3, 4]
    taught = {text for file in (root / "features" / "text").glob("*.json") for text in json.loads(file.read_text())}
    assert {"pooch", "a hound"} <= taught
    assert "flag" not in taught


def test_what_is_made_is_measured_and_judged(whole):
    found = json.loads(run(whole, "recall", "--json", networks="cheap").stdout)
    held = [r for r in rows_of(whole.root) if r["kind"] == "plain" and r["concepts"]]
    assert found["picture"]["together"]["n"] == sum(r["split"] != "train" for r in held)
    assert found["name"]["together"]["n"] == len(tiny_recipe.CONCEPTS)
    assert found["meaning"]["pairs"] == SIZES["pairs"]
    out = whole.folder / "judge"
    run(whole, "judge", "--out", str(out), networks="cheap")
    from unialign_gen.eval.judge import Judge

    (file,) = (whole.root / "features" / "judge").glob("*.npy")
    shown = [r["concepts"] for r in held if r["split"] == "train" and r["tier"] in "AB"]
    named = Judge.from_folder(out).named(torch.from_numpy(np.load(file)).float(), 1)
    assert np.mean([one[0] in concepts for one, concepts in zip(named, shown, strict=True)]) > 0.7


# left by a kill, or named by time or place
PASSING = re.compile(r"\.part|^heads/(?!heads/)|^caches/.*/(anchor|content|moments)-")


def files(root):
    """What stages have made, by name; not what training notes of its own run."""
    found = {f.relative_to(root).as_posix(): f for f in sorted(root.rglob("*")) if f.is_file()}
    return {name: f for name, f in found.items() if not PASSING.search(name)}


def content(root):
    """Bytes by name."""
    return {name: f.read_bytes() for name, f in files(root).items()}


def times(root):
    """When each was written, but for the lists, which every run writes anew."""
    return {name: f.stat().st_mtime_ns for name, f in files(root).items() if name not in ("manifest.jsonl", "ATTRIBUTION.tsv")}


def test_a_second_run_makes_nothing_again(whole):
    """Neither a download nor a network is asked for, and no file is written."""
    before = times(whole.root), content(whole.root)
    there = whole.environment
    whole.environment = there | {"PATH": "/nowhere", "PIP_FIND_LINKS": "/nowhere"}
    try:
        run(whole, "all", networks="none")
    finally:
        whole.environment = there
    assert times(whole.root) == before[0]
    assert content(whole.root) == before[1]


def test_ten_kills_change_nothing(whole):
    """SIGKILL of the whole process group at random moments of `all`; what is made is what an undisturbed run makes."""
    roots = whole.folder / "undisturbed", whole.folder / "killed"
    for root in roots:
        for part in ("packages", "encoders"):  # what these are made of is not copied: `unpacked`
            shutil.copytree(whole.root / part, root / part, copy_function=os.link)
    begin = time.monotonic()
    run(whole, "all", "--jobs", "1", root=roots[0], networks="cheap")
    took, dice, hits = time.monotonic() - begin, random.Random(0), 0
    for _ in range(10):
        child = start(whole, "all", "--jobs", "1", root=roots[1], networks="cheap")
        child.process.join(dice.uniform(0.05, 0.3) * took)
        if child.alive():
            hits += 1
            with suppress(ProcessLookupError):  # it has no group yet
                os.killpg(child.process.pid, signal.SIGKILL)
            child.kill()
        child.process.join()
    run(whole, "all", "--jobs", "1", root=roots[1], networks="cheap")
    assert hits >= 5
    expected, found = map(content, roots)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
