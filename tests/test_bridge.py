"""Sound heads in closed form: against refits row by row, on planted truth, and from an empty cache to a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_clip_encoders import tokenizer  # noqa: F401  fixture
from test_published_checkpoints import home, hub  # noqa: F401  fixtures
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ClapConfig, ClapFeatureExtractor, ClapModel
from typer.testing import CliRunner

from unialign_gen.aligner import Part
from unialign_gen.cli import app
from unialign_gen.data.cache import FORMAT, Ragged, Shard, create, write_descriptions, write_shard
from unialign_gen.encoders import load_encoder, yamnet
from unialign_gen.encoders.registry import NOWHERE
from unialign_gen.errors import InputError
from unialign_gen.heads import encoder_beside, heads_in, load_head
from unialign_gen.heads.bridge import (
    captions,
    default_head,
    from_captions,
    from_events,
    ranks,
    read_bridge,
    recall,
    ridge,
    text_to_image_shift,
)
from unialign_gen.loading import calibration_folder, shipped_folder
from unialign_gen.media import load_sound
from unialign_gen.notes import collected

COW = shipped_folder() / "samples" / "cow.flac"
REPOSITORIES = {
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": "clip-g",
}


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(("rows", "width"), [(40, 7), (12, 30)])
def test_leaving_out_is_fitting_without_the_row(rows, width):
    """Against scikit-learn's ridge, fitted anew without each row, on the same standardised features."""
    from sklearn.linear_model import Ridge as Reference

    x = draws(rows, width) * (1 + torch.arange(width))
    y = x[:, :3] / 5 + draws(rows, 3, seed=1)
    found = ridge("pairs", x, y)
    z = ((x - x.mean(0)) / x.std(0)).double().numpy()
    k = min(rows, width)
    decay = found.decay * float((torch.linalg.svdvals(torch.from_numpy(z))[:k] ** 2).mean())
    for i in (0, rows // 2, rows - 1):
        rest = [j for j in range(rows) if j != i]
        theirs = Reference(decay).fit(z[rest], y[rest].numpy()).predict(z[[i]])
        assert torch.allclose(found.left_out[i], torch.from_numpy(theirs)[0].float(), atol=1e-4)
    whole = torch.from_numpy(Reference(decay).fit(z, y.numpy()).predict(z)).float()
    assert torch.allclose(found.head(x), whole, atol=1e-4)


def test_left_out_rows_of_noise_are_at_chance_and_of_a_map_are_found():
    x, weight = draws(200, 16), draws(16, 24, seed=1)
    labels = [str(i) for i in range(200)]
    real = ridge("pairs", x, F.normalize(x @ weight, dim=1))
    noise = ridge("pairs", x, F.normalize(draws(200, 24, seed=2), dim=1))
    good = recall(ranks(real.left_out, x @ weight, labels, labels), 200)
    bad = recall(ranks(noise.left_out, draws(200, 24, seed=2), labels, labels), 200)
    assert good["top1_ci95"][0] > 0.9
    assert bad["top1_ci95"][0] <= bad["chance1"] == 1 / 200
    assert noise.bridge.uncertainty(noise.left_out).median() > real.bridge.uncertainty(real.left_out).median() + 0.3


def test_a_label_shared_by_rows_is_right_for_all_of_them():
    near = torch.eye(4)
    assert ranks(near, near[[1, 0, 2, 3]], ["a", "a", "b", "c"], ["a", "a", "b", "c"]).tolist() == [0, 0, 0, 0]
    assert ranks(near[:1], near, ["d"], ["a", "b", "c", "d"]).tolist() == [3]  # ties count against it


def test_events_are_the_weighted_names_beside_the_shift():
    layer, points, shift = nn.Linear(6, 5), F.normalize(draws(5, 8), dim=1), draws(8, seed=3)
    head, bridge = from_events(layer, list("abcde"), points, shift)
    features = draws(3, 6, seed=4)
    with torch.no_grad():
        p = layer(features).sigmoid()
        expected = F.normalize(p / p.sum(1, keepdim=True) @ points + shift, dim=1)
        assert torch.allclose(F.normalize(head(features), dim=1), expected, atol=1e-5)
    raw = torch.stack([F.normalize(shift, dim=0) + p / shift.norm() for p in (points[2], points.mean(0))])
    unsure = bridge.uncertainty(raw)
    assert unsure[0] < 0.3 < 0.9 < unsure[1]


def test_such_a_head_trains():
    """No gradient explodes where the linear path starts as the shift alone, or as nothing measured."""
    for shift in (draws(8) * 0.02, None):
        head, _ = from_events(nn.Linear(6, 5), list("abcde"), F.normalize(draws(5, 8), dim=1), shift)
        F.normalize(head.train()(draws(3, 6)), dim=1)[:, 0].sum().backward()
        assert max(p.grad.abs().max() for p in head.parameters() if p.grad is not None) < 1e3


def test_captions_carry_a_sound_across_two_spaces():
    """Both spaces see one meaning; sounds and pictures lie apart from texts, and the map brings one to the other."""
    meaning = F.normalize(draws(400, 12), dim=1)
    one, two = draws(12, 20, seed=1), draws(12, 30, seed=2)
    theirs, ours = meaning @ one, F.normalize(meaning @ two, dim=1)
    gap, shift = draws(20, seed=3), draws(30, seed=4) / 8
    sounds = F.normalize(draws(50, 12, seed=5), dim=1)
    found = from_captions(theirs, ours, sounds @ one + gap, shift)
    near = found.head(sounds @ one + gap) @ F.normalize(F.normalize(sounds @ two, dim=1) + shift, dim=1).T
    assert (near.argmax(1) == torch.arange(50)).float().mean() > 0.95
    plain = from_captions(theirs, ours, theirs, None).head(sounds @ one + gap) @ F.normalize(sounds @ two, dim=1).T
    assert (plain.argmax(1) == torch.arange(50)).float().mean() < 0.9


def test_the_tagger_hears_what_the_samples_are():
    encoder = load_encoder(NOWHERE, None, {"encoder": "yamnet"})
    layer, names = yamnet.events()
    heard = encoder(encoder.prepare([load_sound(COW, encoder.rate)]))
    assert encoder.dim == heard.shape[1] == 1024 == layer.in_features
    assert [names[i] for i in layer(heard)[0].topk(2).indices] == ["cattle, bovinae", "moo"]
    assert len(set(captions())) == 3000


def test_from_an_empty_cache_to_a_picture(hub, home, monkeypatch):  # noqa: F811
    """The command with nothing but the hub's files: no head, no scale; both are made, kept, and said."""
    for name, folder in REPOSITORIES.items():
        place = home / "hub" / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0" * 40)
        (place / "snapshots").mkdir()
        (place / "snapshots" / ("0" * 40)).symlink_to(hub / folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    words = ("generate", "--checkpoint", "kandinsky", "--audio", COW, "--steps", "2")
    found = run(*words, "--out", home / "one.png", "--json")
    notes = {n["kind"]: n["text"] for n in found["notes"]}
    assert "cattle, bovinae" in notes["no sound head"]
    run(*words, "--out", home / "two.png", "--json")
    assert np.array_equal(*(np.asarray(Image.open(home / name)) for name in ("one.png", "two.png")))
    kept = calibration_folder("kandinsky") / "events"
    assert text_to_image_shift(kept.parent).shape == (1280,)  # measured on the way, with the scale
    bridge = read_bridge(kept)
    assert bridge.report["recall"]["n"] == len(bridge.report["prompts"]) == 6
    assert load_head(kept).config["embed_dim"] == 1280


def test_the_kept_head_is_made_anew_for_another_text_encoder(tmp_path):
    asked = []

    def embed(texts):
        asked.append(len(texts))
        return F.normalize(draws(len(texts), 16), dim=1)

    for source in ("one", "one", "two"):
        default_head(tmp_path / "events", embed, {"source": source})
    assert asked == [521, 138, 521, 138]
    (tmp_path / "events" / "bridge.json").write_text("{")
    with pytest.raises(InputError, match="bridge"):
        read_bridge(tmp_path / "events")


def test_by_pairs_from_a_cache_and_on_to_training(tmp_path):
    audio, image = draws(40, 24), draws(40, 1664, seed=1)
    index = {
        "format": FORMAT,
        "corpus": {"name": "pairs", "samples": 40},
        "encoders": {"audio": {"dim": 24, "checkpoint": "x"}, "image": {"dim": 1664, "checkpoint": "starter"}},
        "shards": 1,
    }
    create(tmp_path / "features", index)
    rows = {k: Ragged(v, torch.arange(41)) for k, v in (("audio", audio), ("image", image))}
    write_shard(tmp_path / "features", 0, Shard([f"c{i}" for i in range(40)], [None] * 40, rows))
    write_descriptions(tmp_path / "features", {"audio": {"encoder": "yamnet"}})
    result = run(
        "bridge", "pairs", "--features", tmp_path / "features", "--checkpoint", "starter", "--out", tmp_path / "run", "--json"
    )
    assert result["recall"]["n"] == len(result["prompts"]) == 40
    assert heads_in(tmp_path / "run") == {"audio": tmp_path / "run" / "heads" / "audio"}
    config = f"""
out: {tmp_path / "trained"}
caches: {{pairs: {tmp_path / "features"}}}
heads: {{audio: {{start: {tmp_path / "run" / "heads" / "audio"}}}}}
streams: [{{draw: {{pairs: 1}}, modalities: [image, audio], batch: 16}}]
steps: 2
trackers: []
"""
    (tmp_path / "config.yaml").write_text(config)
    assert run("train", tmp_path / "config.yaml", "--json")["step"] == 2
    assert read_bridge(heads_in(tmp_path / "trained")["audio"]) is None


def test_by_an_ast_in_a_folder(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    labels = {0: "Dog", 1: "Rain", 2: "Music"}
    model = ASTForAudioClassification(
        ASTConfig(**sizes, max_length=64, id2label=labels, label2id={v: k for k, v in labels.items()})
    )
    model.save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(max_length=64).save_pretrained(tmp_path / "ast")
    run("bridge", "events", "--checkpoint", "starter", "--tagger", tmp_path / "ast", "--out", tmp_path / "run", "--json")
    place = tmp_path / "run" / "heads" / "audio"
    encoder, head = encoder_beside(place), load_head(place)
    sound = encoder.prepare([load_sound(COW, encoder.rate)])
    with torch.no_grad():
        assert torch.allclose(head.recognitions[0].classify(encoder(sound)), model.eval()(sound).logits, atol=1e-5)
    with collected() as notes:
        Part(encoder, head, read_bridge(place))(sound)
    assert [n.kind for n in notes] == ["no sound head"]
    assert "dog" in notes[0].text


def test_by_the_captions_of_a_clap(tmp_path, tokenizer):  # noqa: F811
    audio = {"num_mel_bins": 16, "spec_size": 32, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 8}
    audio |= {"depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16, "window_size": 4, "projection_dim": 12}
    words = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ClapConfig(text_config=words | {"vocab_size": 49408, "projection_dim": 12}, audio_config=audio, projection_dim=12)
    tokenizer.model_max_length = 64
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=8000, max_length_s=1, truncation="rand_trunc")
    for part in (ClapModel(config), extractor, tokenizer):
        part.save_pretrained(tmp_path / "clap")
    (tmp_path / "captions.txt").write_text("\n".join(captions()[:40]))
    options = ("--space", f"hf:{tmp_path / 'clap'}", "--captions", tmp_path / "captions.txt", "--checkpoint", "starter")
    result = run("bridge", "text", *options, "--out", tmp_path / "run", "--json")
    assert result["recall"]["n"] == 40
    place = tmp_path / "run" / "heads" / "audio"
    assert load_head(place).config["features"] == encoder_beside(place).dim == 12


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pairs", "--features", "nowhere"], "no feature cache"),
        (["text", "--space", "hf:nowhere/at/all"], "no model at"),
        (["events", "--checkpoint", "nothing"], "unknown checkpoint"),
    ],
)
def test_what_is_wrong_is_one_line(words, says, tmp_path):
    done = CliRunner().invoke(app, ["bridge", *words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert says in done.output
    assert not Path(tmp_path / "out").exists()
