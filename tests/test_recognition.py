"""Heads that use what their encoder was trained to name."""

import json
import math
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unialign_gen.checkpoints.recipe import encoders
from unialign_gen.checkpoints.recipe import recognition as recipe
from unialign_gen.errors import InputError
from unialign_gen.heads import Head, load_head, save_head
from unialign_gen.heads.recognition import Recognition
from unialign_gen.loading import find
from unialign_gen.pipelines import EmbeddingPrior

DECAY = 1.0
NARROW, WIDE = {"width": 5, "classes": 2}, {"width": 8, "classes": 3}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def filled(module, generator):
    for value in module.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    return module.eval().requires_grad_(False)


def test_recognition_one_picture_and_one_class_at_a_time(generator):
    made = filled(Recognition(5, 4, 3), generator)
    features = torch.randn(6, 8, generator=generator)
    found = made(features)
    for row, got in zip(features.tolist(), found.tolist(), strict=True):
        seen = row[:5]
        logits = [
            sum(w * x for w, x in zip(weights, seen, strict=True)) + bias
            for weights, bias in zip(made.classify.weight.tolist(), made.classify.bias.tolist(), strict=True)
        ]
        total = sum(math.exp(v) for v in logits)
        gate = sum(w * x for w, x in zip(made.gate.weight[0].tolist(), seen, strict=True)) + float(made.gate.bias)
        for k in range(3):
            mean = sum(math.exp(v) / total * float(made.points[c, k]) for c, v in enumerate(logits))
            assert got[k] == pytest.approx(mean / (1 + math.exp(-gate)), abs=1e-5)


def test_a_shut_gate_leaves_the_direction_and_an_open_one_adds_the_class(generator):
    plain = filled(Head(8, 3, 4), generator)
    plain.std.abs_()
    head = Head(8, 3, 4, recognises=[NARROW]).eval()
    head.load_state_dict(plain.state_dict(), strict=False)
    features = torch.randn(6, 8, generator=generator)
    (recognition,) = head.recognitions
    nn.init.zeros_(recognition.gate.weight)
    nn.init.constant_(recognition.gate.bias, -40)
    recognition.points.copy_(torch.tensor([[9.0, 0, 0], [0, 9, 0]]))
    assert torch.allclose(F.normalize(head(features), dim=1), F.normalize(plain(features), dim=1), atol=1e-6)
    nn.init.constant_(recognition.gate.bias, 40)
    nn.init.zeros_(recognition.classify.weight)
    recognition.classify.bias.data = torch.tensor([0.0, 40.0])
    expected = F.normalize(plain(features), dim=1) + torch.tensor([0.0, 9, 0])
    assert torch.allclose(head(features), expected, atol=1e-5)


def test_a_recognising_head_is_kept_and_classes_in_quantised_that_fit_them(tmp_path, generator):
    head = filled(Head(8, 3, 4, recognises=[NARROW, WIDE]), generator)
    head.std.abs_()
    head.recognitions[1].classify.weight[0, 0] = 449.0  # eight bits end at 448
    features = torch.randn(6, 8, generator=generator)
    before = head(features)
    save_head(recipe.quantised(head), tmp_path)
    kept = load_head(tmp_path)
    assert kept.config == head.config
    assert {p.dtype for p in kept.state_dict().values()} == {torch.float32}
    assert torch.allclose(kept(features), before, atol=0.1)

    def in_eight(weight):
        return torch.equal(weight.to(torch.float8_e4m3fn).float(), weight)

    assert [in_eight(recognition.classify.weight) for recognition in kept.recognitions] == [True, False]
    config = json.loads((tmp_path / "head.json").read_text())
    for wrong in (
        [{**NARROW, "classes": 3}, WIDE],
        [NARROW],
        [NARROW, {"width": 8}],
        [{**NARROW, "gated": True}, WIDE],
        "nothing",
    ):
        (tmp_path / "head.json").write_text(json.dumps(config | {"recognises": wrong}))
        with pytest.raises(InputError, match="no head in"):
            load_head(tmp_path)


def test_the_gate_is_the_minimum_of_its_loss(generator):
    """Against the first-order condition, on plain features, computed from the definition."""
    features = torch.randn(80, 6, generator=generator) * torch.tensor([1.0, 5, 0.2, 1, 1, 1]) + 3
    photographs = (features[:, 0] + 0.5 * torch.randn(80, generator=generator)) > 3.8
    gate = recipe.fit_gate(features, photographs, DECAY)
    std = features.std(0)
    weight = (gate.weight[0] * std).detach().double().requires_grad_(True)
    bias = (gate.bias[0] + gate.weight[0] @ features.mean(0)).detach().double().requires_grad_(True)
    x = ((features - features.mean(0)) / std).double()
    chance = torch.sigmoid(x @ weight + bias)
    rare = float((~photographs).sum() / photographs.sum())
    loss = -torch.where(photographs, rare * chance.log(), (1 - chance).log()).mean() + DECAY * weight.square().sum()
    slopes = torch.autograd.grad(loss, [weight, bias])
    assert max(float(s.abs().max()) for s in slopes) < 1e-3
    assert float(weight[0].detach()) > 0.1


def test_classes_that_nothing_known_is_near_to_are_left_out(generator):
    choice = recipe.Choice(weight=2.0, classes=2, decay=1.0)
    known = EmbeddingPrior(3, 2, bandwidth=0.01, strength=0.5)
    known.points.copy_(torch.eye(3)[:2])
    texts = F.normalize(torch.tensor([[0.0, 0.1, 1], [1, 0.2, 0], [0.1, 1, 0]]), dim=1)
    named = filled(nn.Linear(5, 3), generator)
    gate = filled(nn.Linear(5, 1), generator)
    found = recipe.by_name(named, gate, texts, known, choice)
    assert torch.equal(found.classify.weight, named.weight[1:])
    assert torch.equal(found.classify.bias, named.bias[1:])
    assert found.gate is gate
    assert torch.allclose(found.points, choice.weight * torch.eye(3)[:2], atol=1e-3)


def test_a_plain_head_recognises_all_that_it_is_given(generator):
    head = filled(Head(8, 3, 4), generator)
    head.std.abs_()
    narrow = recipe.recognition(filled(nn.Linear(5, 2), generator), torch.eye(3)[:2], filled(nn.Linear(5, 1), generator))
    wide = recipe.recognition(filled(nn.Linear(8, 3), generator), 2 * torch.eye(3), filled(nn.Linear(8, 1), generator))
    made = recipe.recognising(head, narrow, wide)
    features = torch.randn(4, 8, generator=generator)
    expected = F.normalize(head(features), dim=1)
    for known, x in ((narrow, features[:, :5]), (wide, features)):
        expected = expected + known.gate(x).sigmoid() * (known.classify(x).softmax(1) @ known.points)
    assert torch.allclose(made(features), expected, atol=1e-6)


def test_the_probe_of_sounds_names_them_by_all_their_versions(generator):
    """Against a closed form: classes about one mean each, of equal spread, are told apart by the nearest mean."""
    from unialign_gen.checkpoints.recipe.concepts import CONCEPTS
    from unialign_gen.checkpoints.recipe.heads import concept_shares
    from unialign_gen.checkpoints.recipe.judge import fit_probe
    from unialign_gen.data.manifest import Row

    names = ["dog", "cat", "organ"]
    middles = 6 * torch.randn(3, 8, generator=generator)
    labels = [i % 3 for i in range(60)]
    heard = [
        Row(str(i), "sound", "s", "k", "MIT", "A", [names[label]], "rec", [], "train", "p") for i, label in enumerate(labels)
    ]
    versions = [middles[label] + torch.randn(1 + i % 4, 8, generator=generator) for i, label in enumerate(labels)]
    counts = torch.tensor([len(v) for v in versions])
    probe = fit_probe(torch.cat(versions), concept_shares(heard).repeat_interleave(counts, 0))
    fresh = torch.randn(90, 8, generator=generator) + middles.repeat_interleave(30, 0)
    order = [list(CONCEPTS).index(name) for name in names]
    nearest = torch.cdist(fresh, middles).argmin(1)
    assert probe.out_features == len(CONCEPTS)
    assert torch.equal(probe(fresh).argmax(1), torch.tensor(order)[nearest])


def test_the_starters_gate_is_shut_for_a_flat_drawing():
    from PIL import Image, ImageDraw

    from unialign_gen.encoders import load_encoder

    folder = find("starter") / "aligner" / "image"
    encoder, head = load_encoder(folder), load_head(folder)
    page = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(page).ellipse((20, 20, 108, 108), fill="orange", outline="black", width=4)
    features = encoder(encoder.prepare([page]))
    (recognition,) = head.recognitions
    assert float(recognition.gate(features[:, : recognition.width]).sigmoid()) < 0.1


def test_the_starters_gates_for_sounds_tell_a_cow_from_a_chord():
    from unialign_gen.encoders import load_encoder
    from unialign_gen.film import showcase
    from unialign_gen.media import load_sound

    folder = find("starter") / "aligner" / "audio"
    encoder, head = load_encoder(folder), load_head(folder)
    cow = load_sound(showcase.path("cow.flac"), encoder.rate)
    t = torch.arange(2 * encoder.rate) / encoder.rate
    chord = sum((2 * math.pi * f * t).sin() * torch.exp(-t) for f in (262, 330, 392))
    features = encoder(encoder.prepare([cow, chord]))
    events, concepts = ([float(g) for g in r.gate(features[:, : r.width]).sigmoid()] for r in head.recognitions)
    assert events[0] > 0.5 > events[1]
    assert concepts[0] < 0.5 < concepts[1]


def test_the_classifier_comes_out_of_the_encoders_own_package(tmp_path, generator, monkeypatch):
    weight, bias = torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator)
    raw = BytesIO()
    torch.save({"_conv_stem.weight": torch.zeros(1), "_fc.weight": weight.half(), "_fc.bias": bias}, raw)
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("model/efficientnet.pth", raw.getvalue())
    monkeypatch.setattr(encoders, "archive", lambda root, name: Path(wheel.filename))
    named = encoders.image_classifier(tmp_path)
    assert torch.equal(named.weight, weight.half().float())
    assert torch.equal(named.bias, bias)


def test_class_names_stand_in_imagenets_order_with_their_definitions():
    names, defined = recipe.class_names()
    assert len(names) == len(defined) == 1000
    assert [names[i] for i in (281, 340, 404)] == ["tabby, tabby cat", "zebra", "airliner"]
    assert all(long.startswith(short) and len(long) > len(short) for short, long in zip(names, defined, strict=True))
