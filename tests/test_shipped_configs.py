"""Every configuration that comes with the package, from files to pictures and tables: tiny models in published layouts."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from conftest import write_video
from PIL import Image
from safetensors.torch import save_file
from test_clip_encoders import tokenizer  # noqa: F401  fixture
from test_pe_av import save_pe_av
from test_published_checkpoints import calibrated, home, hub, sources  # noqa: F401  fixtures
from test_training import write_cache
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.cli import app
from unialign_gen.config import load, parse
from unialign_gen.configs import configs_folder, find_config
from unialign_gen.data.cache import FORMAT, FeatureCache, Ragged, Shard, counted, create, write_shard
from unialign_gen.encoders.beats import BEATs
from unialign_gen.encoders.eva_clip import EvaClip
from unialign_gen.encoders.imagebind_audio import ImageBindAudio, published_keys
from unialign_gen.heads import encoder_beside, load_head
from unialign_gen.loading import shipped_folder
from unialign_gen.training.config import HeadConfig, StreamConfig, TrainConfig
from unialign_gen.training.train import train

COW = shipped_folder() / "samples" / "cow.flac"
LABELS = ["dog barking", "cat meowing", "rain"]
TRAINS = sorted(p.stem for p in configs_folder().glob("*.yaml") if not p.stem.endswith(("-extract", "-bench")))
ON_THIS_MACHINE = ["--set", "device=cpu", "--set", "dtype=float32", "--set", "workers=1", "--set", "frames=2"]
SHORT = ["--set", "trackers=[]", "--set", "streams.0.batch=4", "--set", "evaluation.held_out=0.2"]
BEATS = {"encoder_layers": 1, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
BEATS |= {"embed_dim": 16, "conv_pos": 16, "conv_pos_groups": 4}
IMAGEBIND = {"depth": 1, "width": 16, "heads": 2, "dim": 1024}
EVA = {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 1, "num_heads": 3, "mlp_ratio": 2.5}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 12,
    "max_position_embeddings": 64,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "rain", "barks", "falls", "video"]


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Ten clips in VGGSound's layout, two of them test clips, with captions; the same as a manifest."""
    root = tmp_path_factory.mktemp("media")
    listed, captions, rows = [], [], []
    for i in range(10):
        name = f"{'-' if i == 0 else 'v'}ideo{i:06d}"
        write_video(root / f"{name}_000030.mp4", seconds=1.0 + 0.1 * i)
        label = LABELS[i % 3]
        listed.append(f'{name},30,"{label}",{"test" if i > 7 else "train"}')
        captions.append({"id": f"{name}_000030", "captions": [f"a {label}", f"video {i}"]})
        rows.append({"id": name, "video": f"{name}_000030.mp4", "text": f"a {label} {i}", "label": label})
    (root / "vggsound.csv").write_text("\n".join(listed))
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    (root / "vast.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Weights as their authors lay them out: `imagebind_huge.pth`, BEATs' `.pt`, EVA-CLIP's vision side, a BERT folder."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    beats = BEATs(BEATS)
    torch.save({"cfg": BEATS, "model": beats.state_dict()}, root / "beats.pt")
    sound = ImageBindAudio(**IMAGEBIND)
    torch.nn.init.normal_(sound.project.weight)
    state = sound.state_dict()
    state["log_logit_scale"] = state["log_logit_scale"].reshape(1)
    torch.save({theirs: state[ours] for theirs, ours in published_keys(1).items()}, root / "imagebind_huge.pth")
    eva = EvaClip(EVA).state_dict()
    save_file({f"visual.trunk.{k.removeprefix('net.')}": v.contiguous() for k, v in eva.items()}, root / "eva.safetensors")
    BertModel(BertConfig(**BERT)).save_pretrained(root / "bert")
    (root / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    return root


@pytest.fixture
def places(tmp_path, media, published, monkeypatch):
    """The variables that the configurations name."""
    variables = {
        "CLIPS": media,
        "VGGSOUND": media,
        "CAPTIONS": media / "captions.jsonl",
        "VAST150K": media / "vast.jsonl",
        "BEATS": published / "beats.pt",
        "IMAGEBIND": published / "imagebind_huge.pth",
        "EVA_CLIP": published / "eva.safetensors",
        "FEATURES": tmp_path / "features",
        "RUN": tmp_path / "run",
        "UNIALIGN_DATA": tmp_path,
        "SPACE": "stable-unclip",
        "PE_AV": tmp_path,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def check_results(place, prompt, checkpoint, *options):
    """Draws with the run's heads and measures them."""
    out = place / "picture.png"
    common = ["--checkpoint", checkpoint, *options]
    run("generate", "--heads", place / "run", *prompt, *common, "--steps", 1, "--out", out, "--json")
    assert Image.open(out).size[0] >= 8
    found = measured(place, checkpoint, options=options)
    assert {row["method"] for row in found["rows"]} == {"ours"}


def measured(place, checkpoint, features="features", options=()):
    table = ["--features", place / features, "--method", f"ours={place / 'run'}", "--out", place / "results"]
    return run("eval", "retrieval", *table, "--checkpoint", checkpoint, *options, "--json")


def test_clips(places):
    found = run("extract", "clips", *ON_THIS_MACHINE, "--json")
    assert (found["samples"], found["texts"], found["label_sentences"]) == (8, 8, 8)
    trained = run("train", "clips", *SHORT, "--set", "steps=4", "--set", "evaluation.metric=label1", "--json")
    assert trained["step"] == 4
    check_results(places, ["--text", "a dog"], "starter")
    new = unialign_gen.load("starter", heads=places / "run").embed(text="a dog", prior_strength=0)
    head = load_head(places / "run" / "heads" / "text")
    encoder = encoder_beside(places / "run" / "heads" / "text")  # the starter's
    assert torch.allclose(new, F.normalize(head(encoder(encoder.prepare(["a dog"]))), dim=1), atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("unclip", "stable-unclip"), ("kandinsky", "kandinsky")])
def test_the_generation_recipes(hub, home, places, published, kind, name):  # noqa: F811
    calibrated(hub, kind, name)
    clip = sources(hub, kind)
    clip_sources = [f"--source={part}={clip[part]}" for part in ("image", "text")]
    sizes = [f"--set=encoders.audio.{k}={v}" for k, v in IMAGEBIND.items()] if kind == "unclip" else []
    found = run("extract", f"vggsound-{name}", *ON_THIS_MACHINE, *clip_sources, "--accept-license", *sizes, "--json")
    assert (found["samples"], found["texts"], found["label_sentences"]) == (8, 16, 0)  # the test clips are left out
    assert FeatureCache.open(places / "features").features("video").counts.tolist() == [2] * 8
    trained = run("train", f"vggsound-{name}", *SHORT, "--set", "epochs=1.5", "--json")
    assert trained["step"] == trained["steps"] > 1
    sound = {"audio_encoder": "beats", "audio": published / "beats.pt", "audio_head": places / "run" / "heads" / "audio"}
    sound = {"audio": published / "imagebind_huge.pth"} if kind == "unclip" else sound
    audio = [f"--source={part}={place}" for part, place in sound.items()]
    options = [f"--source={part}={place}" for part, place in clip.items()]
    check_results(places, ["--text", "a dog"], name, *options, *audio, "--accept-license")


def test_the_permissive_recipe(hub, home, places, tokenizer, tmp_path, monkeypatch):  # noqa: F811
    calibrated(hub, "kandinsky", "kandinsky")
    save_pe_av(tmp_path / "pe-av", tokenizer, ratios=(8, 16))
    monkeypatch.setenv("SPACE", "kandinsky")
    monkeypatch.setenv("PE_AV", str(tmp_path / "pe-av"))
    given = [f"--source={part}={place}" for part, place in sources(hub, "kandinsky").items()]
    encoders = [option for option in given if "decoder" not in option]
    found = run("extract", "vggsound-permissive", *ON_THIS_MACHINE, *encoders, "--json")
    assert (found["samples"], found["label_sentences"]) == (8, 8)
    assert FeatureCache.open(places / "features").modalities["audio"] == 20
    start = ["bridge", "pairs", "--features", places / "features", "--checkpoint", "kandinsky", "--out", places / "bridge"]
    assert run(*start, "--json")["recall"]["n"] == 8
    head = f"heads.audio={{start: {places / 'bridge' / 'heads' / 'audio'}}}"
    assert run("train", "vggsound-permissive", *SHORT, "--set", "epochs=1.5", "--set", head, "--json")["step"] > 1
    check_results(places, ["--audio", COW], "kandinsky", *given)


def test_the_retrieval_recipe(places, published):
    local = [f"--set=encoders.text.source={published / 'bert'}"]
    sizes = {"text": BERT, "video": EVA}
    sizes = [f"--set=encoders.{m}.architecture={json.dumps(s)}" for m, s in sizes.items()]
    found = run("extract", "vast150k-retrieval", *ON_THIS_MACHINE, *local, *sizes, "--json")
    assert (found["samples"], found["texts"]) == (10, 10)
    short = [*SHORT, "--set", "frames=2", "--set", "workers=1", "--set", "precision=no", "--set", "micro_batch=2"]
    trained = run("train", "vast150k-retrieval", *short, *local, *sizes, "--set", "epochs=1", "--json")
    assert trained["step"] == 2
    heads = {kind: places / "run" / "heads" / kind for kind in ("text", "video", "audio")}
    assert all((head / "model.safetensors").is_file() for head in heads.values())  # encoders are trained too
    own = [f"--set=encoders.{kind}={head}" for kind, head in heads.items()]
    run("extract", "vast150k-retrieval", *ON_THIS_MACHINE, *own, "--set", f"out={places / 'own'}", "--json")
    measured(places, "none", "own")


def test_the_starters_own(places):
    """Its caches are the recipe's: here pictures, texts and sounds as wide as the starter's encoders make them."""
    g = torch.Generator().manual_seed(0)
    names = [f"concept {i}" for i in range(8)]

    def write(name, *modalities):
        widths = {"image": 1664, "text": 384, "audio": 2304}
        features = {m: [torch.randn(1, widths[m], generator=g) for _ in range(40)] for m in modalities}
        write_cache(places / "caches" / name, features, [names[i % 8] for i in range(40)])

    for name in ("concepts", "others", "coloured", "compositions", "nonsense", "words"):
        write(name, "image", "text")
    for name in ("recordings", "effects", "renders", "speech"):
        write(name, "audio")
    short = ["--set", "trackers=[]", "--set", "streams.0.batch=32", "--set", "streams.1.batch=24", "--set", "steps=3"]
    assert run("train", "starter", *short, "--json")["step"] == 3
    out = places / "dog.png"
    found = run("generate", "--heads", places / "heads", "--text", "a dog", "--steps", 1, "--out", out, "--json")
    assert "settings not kept" in [note["kind"] for note in found["notes"]]  # the checkpoint's own heads would draw another
    assert Image.open(out).size == (512, 512)


def test_every_shipped_configuration_is_run_above():
    recipes = {f"vggsound-{name}" for name in ("kandinsky", "permissive", "stable-unclip")}
    assert recipes | {"clips", "starter", "vast150k-retrieval"} == set(TRAINS)
    extracts = {p.stem.removesuffix("-extract") for p in configs_folder().glob("*-extract.yaml")}
    assert extracts == set(TRAINS) - {"starter"}


def test_shipped_names_and_paths(tmp_path, monkeypatch):
    assert find_config("clips", "extract").name == find_config("clips-extract", "extract").name == "clips-extract.yaml"
    assert find_config("clips", "train").name == "clips.yaml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").write_text("mine")
    assert find_config("clips", "train").read_text() == "mine"
    for arguments in (["train", "clops"], ["extract", "starter"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert re.search(rf"no configuration {arguments[1]}: name a YAML file, or one .*: clips, ", result.stderr)
    assert [p.name for p in tmp_path.iterdir()] == ["clips"]  # a wrong name leaves nothing


# the shipped objectives learn


def view(factors, width, generator):
    return factors @ torch.randn(factors.shape[1], width, generator=generator) / factors.shape[1] ** 0.5


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """6,000 triplets: three random linear views of 32 common factors, a little noise on each."""
    folder = tmp_path_factory.mktemp("triplets") / "cache"
    g = torch.Generator().manual_seed(0)
    factors = torch.randn(6000, 32, generator=g)
    widths = {"image": 256, "text": 48, "audio": 40}
    features = {m: view(factors, w, g) + 0.1 * torch.randn(6000, w, generator=g) for m, w in widths.items()}
    create(folder, {"format": FORMAT, "encoders": {m: {"dim": w} for m, w in widths.items()}, "shards": 1})
    rows = {m: Ragged(f, counted(torch.ones(6000))) for m, f in features.items()}
    write_shard(folder, 0, Shard([str(i) for i in range(6000)], [None] * 6000, rows))
    return folder


SHIPPED = {name: parse(find_config(name, "train").read_text(), name)["objective"] for name in TRAINS}
OBJECTIVES = {json.dumps(objective): name for name, objective in SHIPPED.items()}


def recall(triplets, out, objective):
    """R@1 of unseen triplets: lr 1e-3, hidden 256, 6 epochs of 6,000 at batch 256, the anchor frozen."""
    config = TrainConfig(
        out=out,
        caches={"c": triplets},
        heads={m: HeadConfig(hidden=256, dropout=0.0) for m in ("text", "audio")},
        streams=[StreamConfig({"c": 1.0}, ["image", "text", "audio"], batch=256)],
        objective=objective,
        checkpoint="stable-unclip",  # whose image head is the identity
        epochs=6,
        lr=1e-3,
        trackers=[],
        save_every=10**6,
    )
    config.evaluation.every, config.evaluation.held_out, config.evaluation.limit = 0, 0.1, 500
    return train(config).metrics["r1"]


@pytest.mark.parametrize("name", OBJECTIVES.values())  # two recipes share one
def test_a_shipped_objective_aligns_fresh_heads(triplets, tmp_path, places, name):
    assert recall(triplets, tmp_path / "run", load(TrainConfig, find_config(name, "train")).objective) > 0.9


def test_as_printed_nothing_aligns(triplets, tmp_path):
    printed = SHIPPED["vggsound-kandinsky"] | {"anchor": "image", "tau_alignment": None}
    assert recall(triplets, tmp_path / "run", printed) < 0.1


def test_every_shipped_objective_says_its_temperature_of_alignment():
    assert all("tau_alignment" in objective for objective in SHIPPED.values() if objective["name"] == "unialign")
