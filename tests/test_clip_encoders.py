"""CLIP encoders against open_clip and transformers themselves, on random weights in the layouts of the hub."""

import functools
import json
import os
import pickle

import numpy as np
import open_clip
import pytest
import safetensors
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unialign_gen.encoders import clip_image, clip_layouts, clip_text, load_encoder, published, save_encoder
from unialign_gen.errors import InputError

TEXTS = [
    "a dog",
    "A photo of  a red-brick house, at night!!",
    "it's 1984",
    "caf\u00e9 \u4f60\u597d \U0001f600",
    "word " * 100,
    "",
]
VISION = {"image_size": 224, "layers": 2, "width": 64, "head_width": 16, "mlp_ratio": 3.5, "patch_size": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    out = []
    for width, height in ((300, 200), (224, 224), (97, 502), (640, 481), (641, 480)):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height), 3)
        grain = rng.integers(-30, 30, (height, width, 3))
        out.append(Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)))
    return out


def lively(model):
    """Random weights large enough that every one of them, biases too, moves the output."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15 if parameter.ndim > 1 else 0.5)
    return model.eval()


@functools.cache
def open_clip_model(quick_gelu):
    config = {"embed_dim": 24, "quick_gelu": quick_gelu, "vision_cfg": VISION, "text_cfg": TEXT}
    model = lively(open_clip.CLIP(**config))
    model.visual.image_mean, model.visual.image_std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return model, config


def save_open_clip(folder, quick_gelu=False, pickled=False):
    model, config = open_clip_model(quick_gelu)
    folder.mkdir()
    if pickled:
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    else:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    return model


def small_clip(eos=49407, act="gelu"):
    layers = {"num_hidden_layers": 2, "hidden_act": act}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "eos_token_id": eos}
    vision = {"hidden_size": 64, "intermediate_size": 224, "num_attention_heads": 4, "patch_size": 32}
    # the sides keep their default projection_dim of 512, as in published configurations
    return CLIPConfig(projection_dim=24, text_config=text | layers, vision_config=vision | layers)


@pytest.fixture(scope="module")
def tokenizer():
    simple = open_clip.tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(k, k): v for k, v in simple.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(simple.bpe_ranks))


def encoder_at(folder, kind, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"encoder": kind, **config}))
    return load_encoder(folder)


@pytest.mark.parametrize(("quick_gelu", "pickled"), [(False, False), (True, True)])
def test_open_clip_layout_is_open_clip(tmp_path, pictures, quick_gelu, pickled):
    source = tmp_path / "published"
    save_open_clip(source, quick_gelu, pickled)
    if not pickled:
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{source}")
    else:
        model, preprocess = open_clip_model(quick_gelu)[0], None
    see = encoder_at(tmp_path / "image", "clip_image", source=str(source))
    read = encoder_at(tmp_path / "text", "clip_text", source=str(source))
    pixels, tokens = see.prepare(pictures), read.prepare(TEXTS)
    assert torch.equal(tokens, open_clip.tokenize(TEXTS))
    with torch.no_grad():
        if preprocess is not None:
            theirs = torch.stack([preprocess(p) for p in pictures])
            assert torch.allclose(pixels, theirs, atol=1e-6)
        assert torch.allclose(see(pixels), model.eval().encode_image(pixels), atol=1e-4)
        assert torch.allclose(read(tokens), model.encode_text(tokens), atol=1e-4)
    assert see.dim == read.dim == 24
    assert float(see(pixels).norm(dim=1).min()) > 2  # raw, not of unit length


@pytest.mark.parametrize(("eos", "act"), [(49407, "gelu"), (2, "quick_gelu")])
def test_transformers_layout_is_transformers(tmp_path, pictures, tokenizer, eos, act):
    model = lively(CLIPModel(small_clip(eos, act)))
    source = tmp_path / "published"
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    see = encoder_at(tmp_path / "image", "clip_image", source=str(source), format="transformers")
    read = encoder_at(tmp_path / "text", "clip_text", source=str(source), format="transformers")
    theirs = CLIPImageProcessorPil()(pictures[:2] + pictures[3:4], return_tensors="pt").pixel_values
    ours = see.prepare(pictures[:2] + pictures[3:4])
    assert torch.allclose(ours, theirs, atol=1e-5)
    by_default = CLIPImageProcessor()(pictures[:2] + pictures[3:4], return_tensors="pt").pixel_values
    assert float((ours - by_default).abs().max()) < 1.1 / 255 / 0.261  # torchvision rounds some bytes the other way
    tall = CLIPImageProcessorPil()(pictures[2:3], return_tensors="pt").pixel_values  # a margin of 935 pixels
    assert torch.allclose(see.prepare(pictures[2:3])[:, :, :-1], tall[:, :, 1:], atol=1e-5)
    texts = [t for t in TEXTS if t]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(pixel_values=theirs).pooler_output
        words = model.get_text_features(**batch).pooler_output
    assert torch.allclose(see(theirs), images, atol=1e-4)
    assert torch.allclose(read(read.prepare(texts)), words, atol=1e-4)


def test_the_same_weights_in_both_layouts_give_the_same_numbers(tmp_path, pictures):
    model = save_open_clip(tmp_path / "open_clip")
    twin = CLIPModel(small_clip())
    state = {k: v for k, v in model.state_dict().items() if k != "attn_mask"}
    sides = [clip_layouts.rename({k: v for k, v in state.items() if clip_layouts.belongs(s)(k)}, s) for s in ("vision", "text")]
    twin.load_state_dict({**sides[0], **sides[1], "logit_scale": model.logit_scale})  # strict: every name of transformers'
    twin.save_pretrained(tmp_path / "transformers")
    for kind, inputs in (("clip_image", pictures), ("clip_text", TEXTS)):
        one, other = (
            encoder_at(tmp_path / f"{kind}_{f}", kind, source=str(tmp_path / f)) for f in ("open_clip", "transformers")
        )
        prepared = one.prepare(inputs)
        assert torch.equal(prepared, other.prepare(inputs))
        assert torch.allclose(one(prepared), other(prepared), atol=1e-4)


@pytest.mark.parametrize(("name", "vision"), [("ViT-H-14", 632_076_800), ("ViT-bigG-14", 1_844_907_264)])
def test_full_size_models_have_every_published_weight(name, vision):
    with torch.device("meta"):
        theirs = open_clip.create_model(name, device="meta").state_dict()
        image = clip_image.ClipImage(clip_layouts.by_name(name, "vision"))
        text = clip_text.ClipText(clip_layouts.by_name(name, "text"), clip_text.find_tokenizer(published.Path("nowhere")))
        sizes = {f"{s}_config": clip_layouts.by_name(name, s) for s in ("vision", "text")}
        twin = CLIPModel(CLIPConfig(projection_dim=image.dim, **sizes)).state_dict()
    assert sum(p.numel() for p in image.parameters()) == vision
    whole = sum(v.numel() for k, v in theirs.items() if k != "attn_mask") - 1  # the logit scale
    assert sum(p.numel() for p in text.parameters()) == whole - vision
    for encoder, side in ((image, "vision"), (text, "text")):
        ours = {k: v.shape for k, v in encoder.net.state_dict().items()}
        for state in (theirs, twin):
            mine = {k: v for k, v in state.items() if clip_layouts.belongs(side)(k)}
            assert {k: v.shape for k, v in clip_layouts.rename(mine, side).items()} == ours
    assert set(twin) - {k for t in (image, text) for k in t.net.state_dict()} == {"logit_scale"}


def test_text_is_read_without_the_pictures_weights(tmp_path, monkeypatch):
    source = tmp_path / "published"
    save_open_clip(source)
    read = []
    real = safetensors.safe_open

    class Watched:
        def __init__(self, *args, **kwargs):
            self.file = real(*args, **kwargs)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.opened.keys()

        def get_tensor(self, name):
            read.append(name)
            return self.opened.get_tensor(name)

    monkeypatch.setattr(safetensors, "safe_open", Watched)
    encoder_at(tmp_path / "text", "clip_text", source=str(source))
    assert "ln_final.weight" in read
    assert not [name for name in read if name.startswith("visual.")]
    read.clear()
    encoder_at(tmp_path / "image", "clip_image", source=str(source))
    assert read
    assert all(name.startswith("visual.") for name in read)


def test_shards_of_the_other_side_are_not_even_opened(tmp_path):
    source = tmp_path / "published"
    model = lively(CLIPModel(small_clip()))
    model.save_pretrained(source, max_shard_size="100KB")
    shards = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for name, file in shards.items() if name.startswith("text_")}
    spare = set(shards.values()) - needed
    assert len(needed) > 1
    assert spare
    for file in spare:
        os.remove(source / file)
    encoder = encoder_at(tmp_path / "text", "clip_text", source=str(source))
    assert torch.equal(encoder.net.text_projection.weight, model.text_projection.weight)
    with pytest.raises(InputError, match="cannot read"):
        encoder_at(tmp_path / "image", "clip_image", source=str(source))


@pytest.mark.parametrize("kind", ["clip_image", "clip_text"])
def test_a_saved_encoder_needs_its_source_no_more(tmp_path, pictures, kind):
    save_open_clip(tmp_path / "published")
    encoder = encoder_at(tmp_path / "encoder", kind, source=str(tmp_path / "published"))
    save_encoder(encoder, tmp_path / "saved")
    (tmp_path / "published").rename(tmp_path / "gone")
    again = load_encoder(tmp_path / "saved")
    prepared = encoder.prepare(pictures if kind == "clip_image" else TEXTS)
    assert torch.equal(again(again.prepare(pictures if kind == "clip_image" else TEXTS)), encoder(prepared))


def test_weights_in_a_single_file_need_only_the_models_name(tmp_path):
    file = tmp_path / "weights.pt"
    with torch.device("meta"):
        model = open_clip.create_model("ViT-B-32", device="meta").visual
    state = {f"module.visual.{k}": torch.zeros(1).expand(v.shape) for k, v in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, file)
    encoder = encoder_at(tmp_path / "image", "clip_image", source=str(file), model="ViT-B-32-quickgelu")
    assert encoder.dim == 512
    assert encoder.config["architecture"]["hidden_act"] == "quick_gelu"


def test_a_text_alone_is_the_text_in_a_batch(tmp_path):
    save_open_clip(tmp_path / "published")
    encoder = encoder_at(tmp_path / "text", "clip_text", source=str(tmp_path / "published"))
    together = encoder(encoder.prepare(TEXTS))
    alone = torch.cat([encoder(encoder.prepare([t])) for t in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)
    assert float(torch.cdist(together, together).fill_diagonal_(9).min()) > 1e-3


def test_tokens_are_open_clips_also_for_awkward_text():
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
    sizes |= {"max_position_embeddings": 77, "vocab_size": 49408, "projection_dim": 4}
    encoder = clip_text.ClipText(sizes, clip_text.find_tokenizer(published.Path("nowhere")))
    texts = [
        "don\u2019t \u201cquote\u201d me",
        "fish &amp; chips &lt;3",
        "\ufb01ne \uff21\uff22\uff23",
        "tab\tnew\nline",
        "e\u0301t\u00e9",
    ]
    texts += ["...!!'s 'S x's", "\u0130stanbul 12,345", "a_b-c@d.e", "\u2603\u2764\ufe0f"]
    assert torch.equal(encoder.prepare(texts), open_clip.tokenize(texts))


class Bomb:
    def __reduce__(self):
        return os.system, ("echo harm > harm.txt",)


def test_a_hostile_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_open_clip(tmp_path / "published")
    os.remove(tmp_path / "published" / "open_clip_model.safetensors")
    for write in (lambda path: torch.save(Bomb(), path), lambda path: path.write_bytes(pickle.dumps(Bomb(), protocol=2))):
        write(tmp_path / "published" / "open_clip_pytorch_model.bin")
        with pytest.raises(InputError, match="refused") as caught:
            encoder_at(tmp_path / "text", "clip_text", source=str(tmp_path / "published"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm.txt").exists()


def test_a_missing_source_is_one_line_that_names_it(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for source in ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", str(tmp_path / "nowhere"), "not a name!"):
        with pytest.raises(InputError, match="--source PART=FOLDER") as caught:
            encoder_at(tmp_path / "image", "clip_image", source=source)
        assert source in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_a_hub_source_is_asked_for(tmp_path, monkeypatch):
    import fnmatch

    import huggingface_hub

    save_open_clip(tmp_path / "repository")
    (tmp_path / "repository" / "model.safetensors").write_bytes(b"the same weights in the other layout")
    asked = set()

    def snapshot(name, revision, allow_patterns):
        assert (name, revision) == ("somebody/clip", "v1")
        files = os.listdir(tmp_path / "repository")
        asked.update(f for f in files if any(fnmatch.fnmatch(f, p) for p in allow_patterns))
        return str(tmp_path / "repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder_at(tmp_path / "image", "clip_image", source="somebody/clip", revision="v1", format="open_clip")
    assert asked == {"open_clip_config.json", "open_clip_model.safetensors"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_base_patch16_224", "image_size": 224}}, "timm_model_name"),
        ({"vision_cfg": {**VISION, "pool_type": "avg"}}, "pool_type"),
        ({"vision_cfg": {**VISION, "layers": [3, 4, 6, 3]}}, "no plain ViT"),
        ({"vision_cfg": {"layers": 2, "patch_size": 32}}, "width"),
        ({"embed_dim": None}, "no open_clip configuration"),
    ],
)
def test_other_clips_are_refused_in_one_line(tmp_path, change, says):
    source = tmp_path / "published"
    save_open_clip(source)
    path = source / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=says) as caught:
        encoder_at(tmp_path / "image", "clip_image", source=str(source))
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_clear_line(tmp_path):
    source = tmp_path / "published"
    save_open_clip(source)
    path = source / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="download it again"):
        encoder_at(tmp_path / "image", "clip_image", source=str(source))
