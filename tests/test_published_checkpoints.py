"""Published checkpoints put together from local folders in hub layout: tiny random models of the published classes."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import tone, write_wav
from diffusers import KandinskyV22Pipeline, StableUnCLIPImg2ImgPipeline
from PIL import Image
from test_stable_unclip import parts as unclip_parts
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.checkpoints.recipe.pictures import tier
from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.heads.bridge import text_to_image_shift
from unialign_gen.loading import calibration_folder, describe, dtype_of, open_aligner, shipped_folder
from unialign_gen.loading.scale import measure, pictures_in, shipped_pictures
from unialign_gen.notes import collected

FEW = {"num_inference_steps": 2}


def tiny_clip(folder, dim):
    """A CLIPModel in transformers' layout, with the vocabulary of the published ones."""
    torch.manual_seed(1)
    side = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPModel(
        CLIPConfig(
            text_config=side | {"projection_dim": dim, "vocab_size": 49408},
            vision_config=side | {"projection_dim": dim, "image_size": 32, "patch_size": 8},
            projection_dim=dim,
        )
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Folders as a hub has them: two decoders, two CLIPs, pictures."""
    root = tmp_path_factory.mktemp("hub")
    made = unclip_parts()
    torch.manual_seed(2)
    config = dict(made["unet"].config) | {"projection_class_embeddings_input_dim": 2048}
    made["unet"] = type(made["unet"]).from_config(config)
    made["image_normalizer"] = type(made["image_normalizer"])(1024)
    made["image_encoder"] = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=1024,
        )
    )
    StableUnCLIPImg2ImgPipeline(**made).save_pretrained(root / "unclip")
    starter = unialign_gen.load("starter")
    config = dict(starter.unet.config) | {"encoder_hid_dim": 1280, "block_out_channels": (32, 32, 64)}
    unet = type(starter.unet).from_config(config)
    KandinskyV22Pipeline(unet=unet, scheduler=starter.scheduler, movq=starter.movq).save_pretrained(root / "kandinsky")
    tiny_clip(root / "clip-h", 1024)
    tiny_clip(root / "clip-g", 1280)
    (root / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(root / "pictures" / f"{i}.png")
    (root / "pictures" / "broken.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    return tmp_path


def sources(hub, kind):
    clip = str(hub / ("clip-h" if kind == "unclip" else "clip-g"))
    return {"decoder": str(hub / kind), "image": clip, "text": clip}


def calibrated(hub, kind, name):
    options = [f"--source={k}={v}" for k, v in sources(hub, kind).items()]
    done = CliRunner().invoke(app, ["calibrate", "--checkpoint", name, "--images", str(hub / "pictures"), "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(("kind", "name", "dim"), [("unclip", "stable-unclip", 1024), ("kandinsky", "kandinsky", 1280)])
def test_calibrate_then_generate(hub, home, kind, name, dim):
    found = calibrated(hub, kind, name)
    assert found["count"] == 5
    assert len(found["skipped"]) == 1
    theirs = CLIPModel.from_pretrained(sources(hub, kind)["image"])
    part = open_aligner(name, sources(hub, kind)).part("image")
    pixels = part.encoder.prepare([Image.open(f) for f in sorted((hub / "pictures").glob("*.png"))])
    with torch.no_grad():
        norms = theirs.visual_projection(theirs.vision_model(pixels).pooler_output).norm(dim=1)
        black = theirs.visual_projection(theirs.vision_model(torch.zeros(1, 3, 32, 32)).pooler_output)
    assert found["embed_norm"] == pytest.approx(norms.mean().item(), rel=1e-5)
    assert found["embed_norm_std"] == pytest.approx(norms.std().item(), rel=1e-3)

    pipeline = unialign_gen.load(name, sources=sources(hub, kind))
    pipeline.set_progress_bar_config(disable=True)
    expected = torch.zeros(1, dim) if kind == "unclip" else black
    assert torch.allclose(pipeline.embed_scale.negative_image_embeds, expected, atol=1e-5)
    assert pipeline.embed_scale.embed_norm == pytest.approx(found["embed_norm"])
    z = pipeline.embed(text="a dog")
    assert z.shape == (1, dim)
    assert torch.allclose(z.norm(dim=1), torch.ones(1), atol=1e-5)
    assert list(pipeline.aligner.parts) == ["text"]
    pictures = pipeline(text="a dog", seed=0, **FEW).images
    assert len(pictures) == 1
    assert list(pipeline.aligner.parts) == ["text"]  # the vision encoder stays on the disk
    assert text_to_image_shift(calibration_folder(name)).shape == (dim,)  # by the package's pictures and captions
    assert getattr(pipeline, "image_encoder", None) is None
    pipeline(text="a dog", image=hub / "pictures" / "0.png", seed=0, **FEW)
    assert set(pipeline.aligner.parts) == {"text", "image"}


def test_the_same_weights_give_the_picture_of_diffusers(hub, home):
    calibrated(hub, "unclip", "stable-unclip")
    ours = unialign_gen.load("stable-unclip", sources=sources(hub, "unclip"))
    theirs = StableUnCLIPImg2ImgPipeline.from_pretrained(hub / "unclip")
    for pipeline in (ours, theirs):
        pipeline.set_progress_bar_config(disable=True)
    z = ours.embed(text="a dog")
    expected = theirs(
        prompt=[""],
        image_embeds=z * ours.embed_scale.embed_norm,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(3)],
        output_type="np",
        **FEW,
    ).images
    options = {"seed": 3, "guidance_scale": 5.0, "output_type": "np", **FEW}
    assert np.array_equal(ours(image_embeds=z * ours.embed_scale.embed_norm, **options).images, expected)
    assert np.abs(ours(text="a dog", **options).images - expected).max() < 1e-3


def test_saving_writes_only_what_is_loaded_and_names_the_rest(hub, home, tmp_path):
    calibrated(hub, "unclip", "stable-unclip")
    ours = unialign_gen.load("stable-unclip", sources=sources(hub, "unclip"))
    ours.set_progress_bar_config(disable=True)
    ours.embed(text="a dog")
    with collected() as notes:
        ours.save_pretrained(tmp_path / "own")
    assert [n.kind for n in notes] == ["not saved"]
    assert str(hub / "clip-h") in notes[0].text
    assert list(ours.aligner.parts) == ["text", "audio"]  # the head by events is made, since nobody published one
    assert (tmp_path / "own" / "aligner" / "text" / "model.safetensors").is_file()
    assert sorted(p.name for p in (tmp_path / "own" / "aligner" / "image").iterdir()) == ["config.json"]
    again = unialign_gen.load(str(tmp_path / "own"))
    again.set_progress_bar_config(disable=True)
    assert torch.allclose(ours.embed(text="a dog"), again.embed(text="a dog"), atol=1e-6)
    assert again.embed_scale.embed_norm == ours.embed_scale.embed_norm
    a, b = (p(text="a dog", seed=0, output_type="np", **FEW).images for p in (ours, again))
    assert np.abs(a - b).max() < 1e-4
    picture = hub / "pictures" / "0.png"
    assert torch.allclose(ours.embed(image=picture), again.embed(image=picture), atol=1e-6)  # from its source


def test_half_precision_files(hub, home, tmp_path):
    """`variant="fp16"` opens again, by name and by itself; a variant that is not there and pickles are one line."""
    calibrated(hub, "kandinsky", "kandinsky")
    given = sources(hub, "kandinsky")
    half = KandinskyV22Pipeline.from_pretrained(hub / "kandinsky", dtype=torch.float16)
    half.save_pretrained(tmp_path / "half", variant="fp16")
    assert (tmp_path / "half" / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    found = [
        unialign_gen.load("kandinsky", sources=given | {"decoder": str(tmp_path / "half")}, variant=v) for v in (None, "fp16")
    ]
    for pipeline in found:
        assert pipeline.unet.dtype == torch.float32
        for mine, theirs in zip(pipeline.unet.parameters(), half.unet.parameters(), strict=True):
            assert torch.equal(mine, theirs.float())
    with pytest.raises(InputError, match="no weights of the variant fp16"):
        unialign_gen.load("kandinsky", sources=given, variant="fp16")

    own = unialign_gen.load("starter", dtype="float16")
    assert own.unet.dtype == torch.float16
    own.save_pretrained(tmp_path / "own", variant="fp16")
    assert (tmp_path / "own" / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    again = unialign_gen.load(str(tmp_path / "own"), dtype="fp16")
    assert all(torch.equal(a, b) for a, b in zip(own.unet.parameters(), again.unet.parameters(), strict=True))
    assert torch.equal(again.embed(text="a car key"), own.embed(text="a car key"))

    pickled = tmp_path / "pickled"
    shutil.copytree(hub / "kandinsky", pickled)
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickles \(.bin\) only, which are not read") as caught:
        unialign_gen.load("kandinsky", sources=given | {"decoder": str(pickled)})
    assert "\n" not in str(caught.value)


def test_what_a_call_says_in_words_is_understood_or_one_line(starter):
    for dtype, kind in (("bfloat16", torch.bfloat16), (np.float16, torch.float16), (torch.float32, torch.float32)):
        assert dtype_of(dtype) == kind
    for wrong, says in (({"dtype": "int8"}, "dtype 'int8'"), ({"device": "gpu"}, "'gpu' is not"), ({"dtype": 3}, "dtype '3'")):
        with pytest.raises(InputError, match=says):
            unialign_gen.load("starter", **wrong)


@pytest.mark.parametrize(("kind", "name", "dim"), [("unclip", "stable-unclip", 1024), ("kandinsky", "kandinsky", 1280)])
def test_a_missing_scale_is_measured_and_said(hub, home, kind, name, dim):
    with collected() as notes:
        pipeline = unialign_gen.load(name, sources=sources(hub, kind))
    assert [n.kind for n in notes] == ["measured scale"]
    assert "64 pictures" in notes[0].text
    theirs = CLIPModel.from_pretrained(sources(hub, kind)["image"])
    aligner = open_aligner(name, sources(hub, kind))
    pictures = shipped_pictures()
    pixels = aligner.part("image").encoder.prepare([Image.open(p) for p in pictures])
    tokens = aligner.part("text").encoder.prepare(list(pictures.values()))
    with torch.no_grad():
        seen = theirs.get_image_features(pixel_values=pixels).pooler_output
        read = theirs.get_text_features(input_ids=tokens, attention_mask=torch.ones_like(tokens)).pooler_output
    assert pipeline.embed_scale.embed_norm == pytest.approx(seen.norm(dim=1).mean().item(), rel=1e-4)
    unit = [torch.nn.functional.normalize(x, dim=1).mean(0) for x in (seen, read)]
    shift = text_to_image_shift(calibration_folder(name))
    assert shift.shape == (dim,)
    assert torch.allclose(shift, unit[0] - unit[1], atol=1e-4)
    assert bool(pipeline.embed_scale.negative_image_embeds.any()) == (kind == "kandinsky")
    assert {r["name"]: r for r in describe()}[name]["needs"]["embed_scale"]["on_disk"]
    with collected() as notes:
        unialign_gen.load(name, sources=sources(hub, kind))
    assert not notes  # measured once


def test_the_pictures_that_ship_are_small_permissive_and_described():
    folder = shipped_folder() / "samples" / "pictures"
    rows = [line.split("\t") for line in (folder / "ATTRIBUTION.tsv").read_text("utf-8").splitlines()[1:]]
    assert len(rows) == len({row[0] for row in rows}) == len({row[1] for row in rows}) == 64
    assert {row[0] for row in rows} == {p.name for p in folder.glob("*.webp")}
    assert {tier(row[3]) for row in rows} == {"A"}
    assert sum(p.stat().st_size for p in folder.iterdir()) < 600_000


@pytest.mark.parametrize("name", ["stable-unclip", "kandinsky"])
def test_a_description_says_licence_size_and_revision_in_fields(name):
    described = json.loads((shipped_folder() / name / "checkpoint.json").read_text())
    for entry in (described["decoder"], *described["encoders"].values()):
        assert entry["licence"]
        assert entry["citation"]
        assert "revision" in entry or entry.get("checkpoint", 0) is None
    parts = json.loads((shipped_folder() / name / "architecture.json").read_text())["components"]
    whole = sum(4 * part.get("parameters", 0) for part in parts.values())
    assert described["decoder"]["bytes"]["fp32"] == pytest.approx(whole, rel=0.01)


def test_a_model_by_name_as_a_source(hub, home):
    calibrated(hub, "unclip", "stable-unclip")
    expected = unialign_gen.load("stable-unclip", sources=sources(hub, "unclip")).embed(text="a dog")
    given = sources(hub, "unclip") | {"text": f"hf:{hub / 'clip-h'}"}
    assert torch.allclose(unialign_gen.load("stable-unclip", sources=given).embed(text="a dog"), expected, atol=1e-6)


def test_sound_through_beats_and_a_trained_head(hub, home, tmp_path):
    from unialign_gen.encoders.beats import BEATs
    from unialign_gen.heads import Head, save_head

    calibrated(hub, "kandinsky", "kandinsky")
    sizes = {"encoder_layers": 1, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
    sizes |= {"embed_dim": 16, "conv_pos": 16, "conv_pos_groups": 4}
    encoder = BEATs(sizes)
    torch.save({"cfg": sizes, "model": encoder.state_dict()}, tmp_path / "beats.pt")
    save_head(Head(32, 1280, 16), tmp_path / "head")
    given = sources(hub, "kandinsky") | {"audio": str(tmp_path / "beats.pt"), "audio_head": str(tmp_path / "head")}
    with pytest.raises(InputError, match="no sound encoder"):
        unialign_gen.load("kandinsky", sources=given | {"audio_encoder": "ears"})
    pipeline = unialign_gen.load("kandinsky", sources=given | {"audio_encoder": "beats"})
    pipeline.set_progress_bar_config(disable=True)
    wav = write_wav(tmp_path / "a.wav", tone(1, 16000), 16000)
    assert len(pipeline(audio=str(wav), seed=0, **FEW).images) == 1
    assert list(pipeline.aligner.parts) == ["audio"]


def test_imagebind_is_opt_in(hub, home, tmp_path):
    calibrated(hub, "unclip", "stable-unclip")
    (tmp_path / "imagebind_huge.pth").write_bytes(b"")
    given = sources(hub, "unclip") | {"audio": str(tmp_path / "imagebind_huge.pth")}
    pipeline = unialign_gen.load("stable-unclip", sources=given)
    wav = write_wav(tmp_path / "a.wav", tone(1, 16000), 16000)
    with pytest.raises(InputError, match="CC-BY-NC-SA"):
        pipeline.embed(audio=str(wav))
    accepted = unialign_gen.load("stable-unclip", sources=given, accept_license=True)
    with pytest.raises(InputError, match="imagebind_huge"):
        accepted.embed(audio=str(wav))


def test_what_is_missing_is_one_line_with_a_way_out(hub, home, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    no_image = {k: v for k, v in sources(hub, "unclip").items() if k != "image"}
    with pytest.raises(InputError, match="calibrate --checkpoint stable-unclip"):
        unialign_gen.load("stable-unclip", sources=no_image)
    calibrated(hub, "unclip", "stable-unclip")
    with pytest.raises(InputError, match=r"sd2-community.*local folder.*--source decoder=FOLDER"):
        unialign_gen.load("stable-unclip")
    with pytest.raises(InputError, match="no part 'vae'"):
        unialign_gen.load("stable-unclip", sources={"vae": "x"})
    with pytest.raises(InputError, match="cannot be loaded"):
        unialign_gen.load("stable-unclip", sources=sources(hub, "unclip") | {"decoder": str(hub / "pictures")})
    with pytest.raises(InputError, match="sources are for"):
        unialign_gen.load("starter", sources={"decoder": "x"})
    with pytest.raises(InputError, match="unknown decoder"):
        unialign_gen.load("starter", decoder="dalle")


def test_only_what_is_needed_is_downloaded():
    from fnmatch import fnmatch

    from unialign_gen.loading.description import wanted_files

    files = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "tokenizer/merges.txt",
        "image_encoder/model.safetensors",
    ]

    def taken(variant):
        return [f for f in files if any(fnmatch(f, p) for p in wanted_files(["unet", "tokenizer"], variant))]

    assert taken(None) == [files[i] for i in (0, 1, 2, 5)]
    assert taken("fp16") == [files[i] for i in (0, 1, 3, 5)]


def test_calibration_is_for_raw_embeddings(hub, home, tmp_path):
    with pytest.raises(InputError, match="nothing to calibrate"):
        measure(open_aligner("starter").part("image"), pictures_in(hub / "pictures"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        pictures_in(tmp_path / "empty")
    with pytest.raises(InputError, match="at least 2"):
        measure(open_aligner("stable-unclip", sources(hub, "unclip")).part("image"), [hub / "pictures" / "broken.jpg"])


def test_models_says_what_is_here(hub, home):
    def rows():
        return {r["name"]: r for r in json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"]}

    before = rows()
    assert before["starter"]["on_disk"]
    assert not before["stable-unclip"]["needs"]["embed_scale"]["on_disk"]
    assert before["kandinsky"]["needs"]["decoder"]["licence"] == "Apache-2.0"
    calibrated(hub, "unclip", "stable-unclip")
    assert rows()["stable-unclip"]["needs"]["embed_scale"]["on_disk"]


def test_the_command_line_takes_sources(hub, home, tmp_path):
    calibrated(hub, "unclip", "stable-unclip")
    options = [f"--source={k}={v}" for k, v in sources(hub, "unclip").items()]
    out = tmp_path / "x.png"
    command = ["generate", "--text", "a dog", "--checkpoint", "stable-unclip", "--steps", "2", "--out", str(out), *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert Image.open(out).size == (16, 16)
    wrong = CliRunner().invoke(app, [*command, "--source", "decoder"])
    assert wrong.exit_code == 2


def test_files_of_the_current_folder_do_not_stand_in_for_a_source(hub, home, tmp_path, monkeypatch):
    calibrated(hub, "unclip", "stable-unclip")
    expected = unialign_gen.load("stable-unclip", sources=sources(hub, "unclip")).embed(text="a dog")
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(unialign_gen.load("stable-unclip", sources=sources(hub, "unclip")).embed(text="a dog"), expected)


def test_a_part_that_does_not_fit_the_space_is_one_line(hub, home, tmp_path):
    calibrated(hub, "unclip", "stable-unclip")
    given = sources(hub, "unclip")
    with pytest.raises(InputError, match="1280 dimensions"):
        unialign_gen.load("stable-unclip", sources=given | {"text": str(hub / "clip-g")}).embed(text="a dog")
    with pytest.raises(InputError, match=r"cannot be loaded|takes embeddings"):
        unialign_gen.load("stable-unclip", sources=given | {"decoder": str(hub / "kandinsky")})
    for encoder in ("beats", "pe_av"):
        with pytest.raises(InputError, match="audio_head"):
            unialign_gen.load("stable-unclip", sources=given | {"audio": str(tmp_path), "audio_encoder": encoder})


def test_pe_av_is_named_by_its_source():
    from unialign_gen.loading import shipped_folder
    from unialign_gen.loading.description import read, replace_sources

    given = {"audio": "someone/pe-av@abc", "audio_encoder": "pe_av"}
    entry = replace_sources(read(shipped_folder() / "kandinsky"), given, False)["encoders"]["audio"]
    assert entry == {"encoder": "pe_av", "licence": "Apache-2.0", "source": "someone/pe-av", "revision": "abc"}


def test_damaged_weights_are_one_line(hub, home, tmp_path):
    import shutil

    from unialign_gen.loading import find

    shutil.copytree(find("starter") / "aligner" / "audio", tmp_path / "audio")
    from unialign_gen.aligner import load_part

    for name in ("model.safetensors", "head.safetensors"):
        whole = (tmp_path / "audio" / name).read_bytes()
        (tmp_path / "audio" / name).write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(InputError):
            load_part(tmp_path / "audio")
        (tmp_path / "audio" / name).write_bytes(whole)
    load_part(tmp_path / "audio")


def test_a_part_that_was_added_is_saved_and_found_again(tmp_path):
    from unialign_gen.aligner import Aligner, Part
    from unialign_gen.loading import find

    aligner = Aligner.from_pretrained(find("starter") / "aligner")
    own = aligner.part("audio")
    silent = Part(own.encoder, type(own.head)(own.encoder.dim, 256, 8))
    aligner.add_part("audio", silent)
    aligner.save_pretrained(tmp_path)
    assert Aligner.from_pretrained(tmp_path).part("audio").head.config["hidden"] == 8
    with pytest.raises(InputError, match="128 dimensions"):
        aligner.add_part("audio", Part(own.encoder, type(own.head)(own.encoder.dim, 128, 8)))
    empty = Aligner(256, ("text",))
    empty.add_part("audio", silent)
    assert empty.part("audio") is silent


def test_calibrate_refuses_what_it_cannot_use(hub, home, tmp_path):
    (tmp_path / "file").write_text("")
    base = ["calibrate", "--images", str(hub / "pictures")]
    for options in (
        ["--out", str(tmp_path / "file")],
        ["--device", "cuda"],
        ["--checkpoint", "starter", "--source", "image=x"],
    ):
        done = CliRunner().invoke(app, base + options)
        assert done.exit_code == 2, done.output
