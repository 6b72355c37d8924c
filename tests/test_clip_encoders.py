"""Encoders by name against open_clip, transformers and timm themselves, on random weights in the layouts of the hub."""

import functools
import json
import os
import pickle

import numpy as np
import open_clip
import pytest
import safetensors
import timm
import torch
from accelerate import init_empty_weights
from open_clip.push_to_hf_hub import save_config_for_hf
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unialign_gen.data.extract_config import locate
from unialign_gen.encoders import load_encoder, save_encoder
from unialign_gen.encoders import open_clip as by_open_clip
from unialign_gen.encoders.open_clip import description
from unialign_gen.encoders.registry import NOWHERE, current
from unialign_gen.errors import InputError
from unialign_gen.notes import collected

TEXTS = [
    "a dog",
    "A photo of  a red-brick house, at night!!",
    "it's 1984",
    "caf\u00e9 \u4f60\u597d \U0001f600",
    "word " * 100,
    "",
    "a red car!/blue bus",
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
    tall = CLIPImageProcessorPil()(pictures[2:3], return_tensors="pt").pixel_values  # a margin of 935 pixels
    assert torch.allclose(see.prepare(pictures[2:3])[:, :, :-1], tall[:, :, 1:], atol=1e-5)
    texts = [t for t in TEXTS if t]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(pixel_values=theirs).pooler_output
        words = model.get_text_features(**batch).pooler_output
    assert torch.allclose(see(theirs), images, atol=1e-4)
    assert torch.allclose(read(read.prepare(texts)), words, atol=1e-4)
    alone = torch.cat([read(read.prepare([text])) for text in texts])  # CLIP's word 0 is "!", which is no padding
    assert torch.allclose(alone, words, atol=1e-4)


def in_transformers_names(model):
    """A CLIP of open_clip as transformers' of the same sizes: written out, since neither library converts the other's."""
    state = model.state_dict()
    plain = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    plain |= {f"visual.ln_pre.{n}": f"vision_model.pre_layrnorm.{n}" for n in ("weight", "bias")}
    plain |= {f"visual.ln_post.{n}": f"vision_model.post_layernorm.{n}" for n in ("weight", "bias")}
    plain |= {f"ln_final.{n}": f"text_model.final_layer_norm.{n}" for n in ("weight", "bias")}
    made = {theirs: state[ours] for ours, theirs in plain.items()}
    made["visual_projection.weight"], made["text_projection.weight"] = state["visual.proj"].T, state["text_projection"].T
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    inner |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for here, there in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for i in range(2):
            old, new = f"{here}.resblocks.{i}", f"{there}.encoder.layers.{i}"
            for n in ("weight", "bias"):
                made |= {f"{new}.{b}.{n}": state[f"{old}.{a}.{n}"] for a, b in inner.items()}
                for q, value in zip("qkv", state[f"{old}.attn.in_proj_{n}"].chunk(3), strict=True):
                    made[f"{new}.self_attn.{q}_proj.{n}"] = value
    return made


def test_the_same_weights_in_both_layouts_give_the_same_numbers(tmp_path, pictures):
    model = save_open_clip(tmp_path / "open_clip")
    twin = CLIPModel(small_clip())
    twin.load_state_dict(in_transformers_names(model))  # strict: every name of transformers'
    twin.save_pretrained(tmp_path / "transformers")
    for kind, inputs in (("clip_image", pictures), ("clip_text", TEXTS)):
        one, other = (
            encoder_at(tmp_path / f"{kind}_{f}", kind, source=str(tmp_path / f)) for f in ("open_clip", "transformers")
        )
        assert (one.config["encoder"], other.config["encoder"]) == ("open_clip", "hf")
        prepared = one.prepare(inputs)
        assert torch.equal(prepared, other.prepare(inputs))
        assert torch.allclose(one(prepared), other(prepared), atol=1e-4)


def test_a_folder_of_the_first_edition_still_loads(tmp_path, pictures):
    """Its network was transformers', its sizes those of one side, its preparation open_clip's."""
    twin = lively(CLIPModel(small_clip()))
    common = {"num_hidden_layers": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "projection_dim": 24}
    image = {"hidden_size": 64, "intermediate_size": 224, "num_attention_heads": 4, "image_size": 224, "patch_size": 32}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2}
    text |= {"vocab_size": 49408, "max_position_embeddings": 77}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    state = {f"net.{k}": v for k, v in twin.state_dict().items() if "position_ids" not in k}
    for kind, sizes, sides in (
        ("clip_image", image, ("net.vision_model.", "net.visual_projection.")),
        ("clip_text", text, ("net.text_model.", "net.text_projection.")),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        more = {"preprocess": preprocess} if kind == "clip_image" else {}
        config = {"source": "gone/repository", "encoder": kind, "architecture": common | sizes, **more}
        (folder / "config.json").write_text(json.dumps(config))
        save_file({k: v.contiguous() for k, v in state.items() if k.startswith(sides)}, folder / "model.safetensors")
        encoder = load_encoder(folder)
        assert encoder.dim == 24
        if kind == "clip_text":
            tokens = encoder.prepare(TEXTS)
            with torch.no_grad():
                expected = twin.get_text_features(input_ids=tokens, attention_mask=torch.ones_like(tokens)).pooler_output
            assert torch.allclose(encoder(tokens), expected, atol=1e-4)
        else:
            pixels = encoder.prepare(pictures)
            squashed = np.asarray(pictures[0].resize((224, 224), Image.Resampling.BILINEAR)) / 255
            assert np.allclose(pixels[0].permute(1, 2, 0), (squashed - 0.5) / 0.25, atol=1e-5)
            with torch.no_grad():
                expected = twin.get_image_features(pixel_values=pixels).pooler_output
            assert torch.allclose(encoder(pixels), expected, atol=1e-4)


@pytest.mark.parametrize(("name", "vision"), [("ViT-H-14", 632_076_800), ("ViT-bigG-14", 1_844_907_264)])
def test_full_size_models_have_every_published_weight(name, vision):
    with init_empty_weights():
        whole = open_clip.create_model(name, device="meta", load_weights=False).state_dict()
    with torch.device("meta"):
        image, text = (by_open_clip.build(NOWHERE, {"model": name, "modality": m}) for m in ("image", "text"))
    assert sum(p.numel() for p in image.parameters()) == vision
    assert sum(p.numel() for p in (*image.parameters(), *text.parameters())) + 1 == sum(v.numel() for v in whole.values())
    for encoder, modality, prefix in ((image, "image", "visual."), (text, "text", "")):
        mine = {f"net.{k.removeprefix(prefix)}": v.shape for k, v in whole.items() if by_open_clip.belongs(k, modality)}
        assert {k: v.shape for k, v in encoder.state_dict().items()} == mine


def test_a_model_by_its_name_and_tag(tmp_path, monkeypatch, pictures):
    """As open_clip gives it, the download replaced by a file."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", load_weights=False)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    seen = []

    def download(cfg, **_):
        seen.append(cfg)
        return str(tmp_path / "weights.safetensors")

    monkeypatch.setattr(open_clip, "download_pretrained", download)
    see = load_encoder(NOWHERE, config={"encoder": "open_clip:ViT-B-32/laion2b_s34b_b79k", "modality": "image"})
    read = load_encoder(NOWHERE, config={"encoder": "open_clip:ViT-B-32/laion2b_s34b_b79k", "modality": "text"})
    assert seen[0] == open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    pixels = see.prepare(pictures)
    model.eval()
    with torch.no_grad():
        assert torch.equal(see(pixels), model.encode_image(pixels))
        assert torch.equal(read(read.prepare(TEXTS)), model.encode_text(open_clip.tokenize(TEXTS)))
    for wrong, says in (
        ("ViT-B-32/nothing", "has no weights 'nothing'.*laion2b"),
        ("ViT-Q", "knows no model"),
        ("ViT-B-32", "a tag"),
    ):
        with pytest.raises(InputError, match=says):
            load_encoder(NOWHERE, config={"encoder": f"open_clip:{wrong}", "modality": "image"})
    with pytest.raises(InputError, match="modality"):
        load_encoder(NOWHERE, config={"encoder": "open_clip:ViT-B-32/openai"})


def test_a_configuration_names_a_model_in_one_word():
    assert locate("video", "timm:resnet10t") == {"encoder": "timm:resnet10t", "modality": "image"}
    named = {"encoder": "hf:FOLDER", "revision": "v1"}
    assert locate("audio", named) == named | {"modality": "audio"}
    assert locate("audio", {"encoder": "beats", "checkpoint": "/x"}) == {"encoder": "beats", "checkpoint": "/x"}
    kept = {"encoder": "hf", "source": "owner/name", "revision": "abc", "modality": "text"}
    assert current(NOWHERE, {"encoder": "hf:owner/name@abc", "modality": "text"}) == kept


def test_buffers_that_no_file_holds_are_filled(tmp_path):
    """EVA-02's rotary positions and the causal mask, in a model that open_clip keeps in two custom parts."""
    model, described = (lambda c: (open_clip.CustomTextCLIP(**c), c))(
        {
            "embed_dim": 16,
            "vision_cfg": {
                "timm_model_name": "eva02_tiny_patch14_224",
                "timm_pool": "token",
                "timm_proj": None,
                "image_size": 224,
            },
            "text_cfg": TEXT,
        }
    )
    lively(model)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": described | {"custom_text": True}}))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    pixels, tokens = torch.randn(2, 3, 224, 224), open_clip.tokenize(TEXTS)
    for modality, given, name in (("image", pixels, "encode_image"), ("text", tokens, "encode_text")):
        encoder = load_encoder(NOWHERE, config={"encoder": "open_clip", "source": str(tmp_path), "modality": modality})
        with torch.no_grad():
            assert torch.allclose(encoder(given), getattr(model, name)(given), atol=1e-4)
        save_encoder(encoder, tmp_path / modality)
        assert torch.equal(load_encoder(tmp_path / modality)(given), encoder(given))


SIDE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def saved(model, folder, *processors):
    model.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return str(folder)


def round_trip(encoder, folder, inputs):
    """A saved encoder gives the same without its source."""
    save_encoder(encoder, folder)
    again = load_encoder(folder)
    prepared = encoder.prepare(inputs)
    assert torch.equal(again.prepare(inputs), prepared)
    assert torch.equal(again(prepared), encoder(prepared))
    return prepared


def test_siglip_by_folder_is_transformers(tmp_path, pictures, tokenizer):
    vision = SIDE | {"image_size": 32, "patch_size": 8}
    model = lively(SiglipModel(SiglipConfig(text_config=SIDE | {"vocab_size": 49408}, vision_config=vision)))
    tokenizer.model_max_length = 64
    source = saved(model, tmp_path / "siglip", SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    see, read = (load_encoder(NOWHERE, config={"encoder": f"hf:{source}", "modality": m}) for m in ("image", "text"))
    pixels, tokens = round_trip(see, tmp_path / "a", pictures), round_trip(read, tmp_path / "b", TEXTS[:3])
    theirs = SiglipImageProcessor(size={"height": 32, "width": 32})(pictures, return_tensors="pt").pixel_values
    assert torch.equal(pixels, theirs)
    with torch.no_grad():
        assert torch.allclose(see(pixels), model.get_image_features(pixel_values=pixels).pooler_output, atol=1e-5)
        words = model.get_text_features(input_ids=tokens[:, 0], attention_mask=tokens[:, 1]).pooler_output
    assert torch.allclose(read(tokens), words, atol=1e-5)


def test_clap_by_folder_reads_the_middle_of_a_long_sound(tmp_path):
    audio = {"num_mel_bins": 16, "spec_size": 32, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 8}
    audio |= {"depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16, "window_size": 4, "num_classes": 4}
    text = SIDE | {"vocab_size": 64, "projection_dim": 12}
    model = lively(ClapModel(ClapConfig(text_config=text, audio_config=audio | {"projection_dim": 12}, projection_dim=12)))
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=8000, max_length_s=1, truncation="rand_trunc")
    source = saved(model, tmp_path / "clap", extractor)
    encoder = load_encoder(NOWHERE, config={"encoder": f"hf:{source}", "modality": "audio"})
    assert (encoder.rate, encoder.dim) == (8000, 12)
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(0))
    with collected() as notes:
        prepared = round_trip(encoder, tmp_path / "saved", [noise, noise[:5000]])
    assert [n.kind for n in notes] == ["cut"]
    theirs = extractor([noise[6000:14000].numpy()], sampling_rate=8000, return_tensors="pt").input_features
    assert torch.allclose(prepared[:1], theirs, atol=1e-5)
    with torch.no_grad():
        unit = model.get_audio_features(input_features=theirs).pooler_output
    assert torch.allclose(torch.nn.functional.normalize(encoder(prepared[:1])), unit, atol=1e-5)
    with pytest.raises(InputError, match="image"):
        load_encoder(NOWHERE, config={"encoder": f"hf:{source}", "modality": "image"})


def test_any_image_model_of_transformers_and_timm(tmp_path, pictures):
    dino = lively(Dinov2Model(Dinov2Config(**SIDE, image_size=32, patch_size=8)))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    source = saved(dino, tmp_path / "dino", processor)
    encoder = load_encoder(NOWHERE, config={"encoder": f"hf:{source}", "modality": "image"})
    pixels = round_trip(encoder, tmp_path / "a", pictures)
    with torch.no_grad():
        assert torch.allclose(encoder(pixels), AutoModel.from_pretrained(source)(pixels).pooler_output, atol=1e-5)
    torch.manual_seed(0)
    net = lively(timm.create_model("resnet10t", num_classes=3))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    config = {"encoder": "timm:resnet10t", "source": str(tmp_path / "net.safetensors"), "modality": "image"}
    encoder = load_encoder(NOWHERE, config=config)
    pixels = round_trip(encoder, tmp_path / "b", pictures)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    assert torch.equal(pixels[0], transform(pictures[0]))
    with torch.no_grad():
        assert torch.allclose(encoder(pixels), net.forward_head(net.forward_features(pixels), pre_logits=True), atol=1e-4)
    with pytest.raises(InputError, match="timm has no model"):
        load_encoder(NOWHERE, config={"encoder": "timm:resnet_of_nobody", "source": str(tmp_path / "net.safetensors")})


@pytest.mark.parametrize("layout", ["transformers", "open_clip"])
def test_half_precision_files_are_taken_where_there_are_no_others(tmp_path, layout):
    if layout == "transformers":
        model = lively(CLIPModel(small_clip())).half()
        model.save_pretrained(tmp_path / "source", variant="fp16")
        assert (tmp_path / "source" / "model.fp16.safetensors").is_file()
    else:
        model = save_open_clip(tmp_path / "source")
        half = {k: v.half() for k, v in model.state_dict().items()}
        os.remove(tmp_path / "source" / "open_clip_model.safetensors")
        save_file(half, tmp_path / "source" / "open_clip_model.fp16.safetensors")
    encoder = encoder_at(tmp_path / "text", "clip_text", source=str(tmp_path / "source"))
    weight = encoder.net.text_projection if layout == "open_clip" else encoder.net.text_projection.weight
    wanted = model.text_projection if layout == "open_clip" else model.text_projection.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, wanted.half().float())


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
    assert encoder.described["model_cfg"]["quick_gelu"] is True


def test_a_text_alone_is_the_text_in_a_batch(tmp_path):
    save_open_clip(tmp_path / "published")
    encoder = encoder_at(tmp_path / "text", "clip_text", source=str(tmp_path / "published"))
    together = encoder(encoder.prepare(TEXTS))
    alone = torch.cat([encoder(encoder.prepare([t])) for t in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)
    assert float(torch.cdist(together, together).fill_diagonal_(9).min()) > 1e-3


def test_tokens_are_open_clips_also_for_awkward_text(tmp_path):
    CLIPModel(small_clip()).save_pretrained(tmp_path / "published")
    encoder = encoder_at(tmp_path / "text", "clip_text", source=str(tmp_path / "published"))
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
        ({"vision_cfg": {"timm_model_name": "nothing_of_timm", "image_size": 224}}, "cannot build"),
        ({"vision_cfg": {"layers": 3, "surprise": 1}}, "surprise"),
        ({"vision_cfg": {**VISION, "layers": 3}}, "do not fit"),
        ({"embed_dim": None}, "cannot build"),
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


@pytest.mark.parametrize("name", ["PE-Core-T-16-384/meta", "ViT-B-16-SigLIP2-256/webli"])
def test_pe_core_and_siglip_2_are_open_clips_own(tmp_path, pictures, tokenizer, name):
    """Their published configurations, made small, from a folder; by name the same with open_clip's weights."""
    described, _ = description(NOWHERE, dict(zip(("model", "pretrained"), name.split("/"), strict=True)))
    described = json.loads(json.dumps(described))
    sizes, words = described["model_cfg"]["vision_cfg"], described["model_cfg"]["text_cfg"]
    sizes |= {"image_size": 384, "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_model_pretrained": False}
    words |= {"width": 32, "heads": 2, "layers": 1, "vocab_size": 49408}
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    theirs = lively(open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False, pretrained_text=False))
    save_file(theirs.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"encoder": "open_clip", "source": str(tmp_path)}
    see, read = (load_encoder(NOWHERE, config=config | {"modality": m}) for m in ("image", "text"))
    pixels, tokens = see.prepare(pictures[:2]), read.prepare(TEXTS)
    assert pixels.shape[2:] == (384, 384)
    with torch.no_grad():
        assert torch.allclose(see(pixels), theirs.encode_image(pixels), rtol=1e-4, atol=1e-3)
        assert torch.allclose(read(tokens), theirs.encode_text(tokens), rtol=1e-4, atol=1e-3)
