"""The recipe's last stages on a small data folder: heads that recognise, recall, what is known, the judge."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

from unialign_gen.checkpoints.recipe import encoders, features, known, stages
from unialign_gen.checkpoints.recipe.__main__ import app
from unialign_gen.checkpoints.recipe.rows import Picture
from unialign_gen.checkpoints.recipe.variants import FIVE
from unialign_gen.data import manifest
from unialign_gen.data.manifest import Row
from unialign_gen.eval.judge import Judge
from unialign_gen.heads import Head, load_head, save_head
from unialign_gen.loading import find

THINGS = ("dog", "cat", "car", "piano")
WIDTH = len(THINGS) + len(FIVE) + 1  # an axis for each thing, for each colour, and one for all else


def meaning(text):
    """(WIDTH,): the things and colours that a text names, or else the last axis."""
    words = text.lower().replace("cats", "cat").replace("police car", "police").split()
    said = torch.tensor([float(word in words) for word in (*THINGS, *FIVE)])
    return torch.cat([said, torch.tensor([0.1 if said.any() else 1.0])])


class Encoder:
    """Texts by the words in them."""

    def prepare(self, texts):
        return torch.stack([meaning(text) for text in texts])


def identity():
    head = Head(WIDTH, WIDTH, 0)
    head.start_as_identity()
    return head.eval()


def picture(name, split, concept, kind="plain", said=None, colour="", parts=(), of=None, tier="A"):
    captions, style = [said or concept], "photo" if name.endswith("-0") else "emoji"
    if kind == "recoloured":
        captions = [f"a {said}", said]
    return Picture(
        name, split, tier, style, "s", captions, [concept] if concept else [], colour, kind, list(parts) or [name], of
    )


def drawn():
    """Pictures of four things in training, held out and of other makers; recoloured, in pairs and twice."""
    rows = []
    for thing in THINGS:
        for n in range(12):
            split = "train" if n < 8 else "test" if n < 11 else "cross"
            name = f"{thing}-{n}"
            rows.append(picture(name, split, thing, tier="C" if split == "cross" else "A"))
            if split == "test":
                rows[-1].captions.append(f"that {thing} there")  # no training picture is called so
            for colour in FIVE if split != "cross" else ():
                said = f"{colour} {thing}"
                rows.append(picture(f"{name}+{colour}", split, thing, "recoloured", said, colour, [name], name))
    held = [f"{thing}-9" for thing in THINGS]
    pair = picture("pair-unseen-0", "test", "", "composition", "a dog and a cat", parts=held[:2])
    twice = picture("composition-test-0", "test", "", "composition", "two cats", parts=[held[1]] * 2)
    return [*rows, pair, twice]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder as `space` and the training of heads leave it; what encoders say is known of every picture and sound."""
    generator = torch.Generator().manual_seed(0)
    rows = drawn()
    noise = 0.1 * torch.randn(len(rows), WIDTH, generator=generator)
    seen = torch.stack([meaning(row.captions[0]) for row in rows]) + noise
    pixels = np.random.default_rng(0).integers(0, 255, (len(rows), 128, 128, 3), np.uint8)
    np.save(tmp_path / "pictures128.npy", pixels)
    names = {"image": pixels, "judge": pixels[[n for n, r in enumerate(rows) if r.kind == "plain" and r.split == "train"]]}
    for kind, mine in names.items():
        found = seen if kind == "image" else seen[[n for n, r in enumerate(rows) if r.kind == "plain" and r.split == "train"]]
        features.save_array(tmp_path / "features" / kind / f"{hashlib.sha256(mine.data).hexdigest()[:24]}.npy", found.numpy())
    np.save(tmp_path / "embeddings.npy", F.normalize(seen, dim=1).numpy())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    shown = [row for row in rows if row.kind == "plain"]
    listed = [Row(r.id, "picture", "s", r.id, "MIT", r.tier, r.concepts, r.style, r.captions, r.split, "x") for r in shown]
    for n, (thing, style) in enumerate((t, s) for t in THINGS for s in ("rec", "fx", "font", "speech") * 3):
        split = ("train", "train", "test")[n // 4 % 3]
        listed.append(Row(f"sound-{n}", "sound", "s", str(n), "MIT", "A", [thing], style, [thing], split, "x"))
        heard = meaning(thing) + 0.05 * torch.randn(2, WIDTH, generator=generator)
        features.save_array(tmp_path / "features" / "audio" / f"sound-{n}.npy", heard.numpy())
    manifest.write(tmp_path, listed)
    for folder in ("space", "heads/heads/text", "heads/heads/audio"):
        save_head(identity(), tmp_path / folder)
    monkeypatch.setattr(features, "load_encoder", lambda folder: Encoder())
    monkeypatch.setattr(features, "fast", lambda encoder, example: lambda x: x.numpy())
    torch.manual_seed(0)
    classifier = nn.Linear(WIDTH, 1000), (nn.Linear(WIDTH, 3), ["dog", "piano", "rain"])
    monkeypatch.setattr(encoders, "image_classifier", lambda root: classifier[0])
    monkeypatch.setattr(stages, "sound_events", lambda: classifier[1])
    return tmp_path


def test_recall_counts_what_is_held_out(root):
    stages.recognise(stages.Data(root))
    assert load_head(root / "recognition" / "audio").config["recognises"] == [
        {"width": WIDTH, "classes": 3},
        {"width": WIDTH, "classes": len(known.CONCEPTS)},
    ]
    assert [one["classes"] for one in load_head(root / "recognition" / "image").config["recognises"]] == [700]
    said = CliRunner().invoke(app, ["recall", "--root", str(root), "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["picture"]["held_out"] | {"top1_ci95": 0, "top5_ci95": 0} == {
        "top1": 1.0, "top5": 1.0, "n": 12, "top1_ci95": 0, "top5_ci95": 0
    }  # fmt: skip
    assert found["picture"]["other_makers"]["n"] == len(THINGS)
    assert found["caption"]["together"]["n"] == 28
    assert found["text"]["together"]["n"] == 2 * len(THINGS)
    assert found["text_unseen"].keys() == {"held_out", "together"}
    assert found["text_unseen"]["held_out"]["n"] == len(THINGS)
    assert {name: found[name]["held_out"]["n"] for name in ("recording", "render", "speech")} == {
        "recording": 8, "render": 4, "speech": 4
    }  # fmt: skip
    assert found["recording"]["held_out"]["top5"] >= 0.5  # chance: 0.04; the classifier beside the head is random
    assert found["meaning"]["pairs"] == 1
    assert found["meaning"]["composition_both"] == found["meaning"]["sentence_both"] == 1.0
    assert found["meaning"]["colours"] == 3 * len(THINGS) * len(FIVE)
    assert found["meaning"]["colour"] == 1.0
    assert found["meaning"]["refused_nonsense"] == 1.0
    table = CliRunner().invoke(app, ["recall", "--root", str(root)]).stdout
    assert "held_out       100.0%" in table


def test_what_is_assembled_knows_its_limits(root):
    stages.recognise(stages.Data(root))
    prior, limits = stages.understanding(stages.Data(root), stages.prompt_heads(root))
    assert sorted(limits.limits) == ["audio", "image", "text", "video"]
    assert limits.names == list(THINGS)
    assert prior.points.shape == (len(THINGS), WIDTH)


def test_the_judge_is_fitted_and_can_be_loaded(root):
    (root / "encoders").mkdir()
    shutil.copytree(find("starter").parent / "judge", root / "encoders" / "judge")
    stages.judge(root, root / "out")
    judge = Judge.from_folder(root / "out")
    named = judge.named(torch.stack([meaning(thing) for thing in THINGS]), 1)
    assert named == [[thing] for thing in THINGS]
    assert "dog barking" in judge.vocabulary()
