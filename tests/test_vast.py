"""Encoders of VAST, GRAM and PMRL, and PE-AV, against open_clip, timm, transformers, torchvision and formulas written out."""

import json
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer, PeAudioConfig, PeAudioFeatureExtractor
from transformers.models.pe_audio.modeling_pe_audio import PeAudioModel
from typer.testing import CliRunner

from unialign_gen.aligner import Aligner, Part, save_part
from unialign_gen.cli import app
from unialign_gen.encoders import bert, eva_clip, load_encoder, save_encoder
from unialign_gen.encoders.beats import BEATs
from unialign_gen.encoders.vast import CONFIGS, READ_AS, contrastive_head, split_checkpoint, write_split
from unialign_gen.errors import InputError
from unialign_gen.heads import heads_in, load_head
from unialign_gen.loading import find
from unialign_gen.training.config import HeadConfig
from unialign_gen.training.features import Moments
from unialign_gen.training.state import new_head

EVA = {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.5}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BERT |= {"vocab_size": 30522, "max_position_embeddings": 96}
TEXTS = ["a dog barks", "Two caf\u00e9s, un-believably LOUD!", "rain " * 90]


@timm.models.register_model
def eva_small_for_these_tests(pretrained=False, num_classes=0, global_pool="avg", **kwargs):
    return timm.models.eva.Eva(**EVA, num_classes=num_classes, global_pool=global_pool)


def lively(model, std=0.3):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std)
    return model.eval()


def encoder_at(folder, kind, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"encoder": kind, **config}))
    return load_encoder(folder)


@pytest.fixture(scope="module")
def vocabulary():
    words = json.loads((find("starter") / "aligner" / "text" / "tokenizer.json").read_text())["model"]["vocab"]
    return "\n".join(sorted(words, key=words.get))


@pytest.fixture(scope="module")
def eva_model():
    vision = {"timm_model_name": "eva_small_for_these_tests", "timm_pool": "token", "timm_proj": None, "image_size": 28}
    text = {"context_length": 77, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
    return lively(open_clip.CustomTextCLIP(embed_dim=8, vision_cfg=vision, text_cfg=text))


def eva_written_out(state, pixels):
    """EVA-01 in its own names: pre-norm layers, biases on queries and values only, class token behind the last norm."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    x = F.conv2d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    for i in range(EVA["depth"]):
        b = f"blocks.{i}"
        q, k, v = (norm(x, f"{b}.norm1") @ state[f"{b}.attn.qkv.weight"].T).chunk(3, -1)
        q, v = q + state[f"{b}.attn.q_bias"], v + state[f"{b}.attn.v_bias"]
        q, k, v = (y.unflatten(-1, (EVA["num_heads"], -1)).transpose(1, 2) for y in (q, k, v))
        weight = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + F.linear((weight @ v).transpose(1, 2).flatten(2), state[f"{b}.attn.proj.weight"], state[f"{b}.attn.proj.bias"])
        y = F.gelu(F.linear(norm(x, f"{b}.norm2"), state[f"{b}.mlp.fc1.weight"], state[f"{b}.mlp.fc1.bias"]))
        x = x + F.linear(y, state[f"{b}.mlp.fc2.weight"], state[f"{b}.mlp.fc2.bias"])
    return norm(x, "norm")[:, 0]


@pytest.mark.parametrize("layout", ["open_clip", "original", "trunk"])
def test_eva_is_open_clips_and_the_formula(tmp_path, eva_model, layout):
    trunk = {k.removeprefix("visual.trunk."): v for k, v in eva_model.state_dict().items() if k.startswith("visual.")}
    if layout == "open_clip":
        save_file(eva_model.state_dict(), tmp_path / "open_clip_model.safetensors")
    elif layout == "original":
        others = {f"text.{k}": v for k, v in eva_model.text.state_dict().items()}
        state = {f"visual.{k}": v for k, v in trunk.items()} | others | {"logit_scale": torch.ones(())}
        torch.save(state, tmp_path / "EVA01_CLIP_g_14_psz14_s11B.pt")
    else:
        save_file(trunk, tmp_path / "model.safetensors")
    encoder = encoder_at(tmp_path / "encoder", "eva_clip", source=str(tmp_path), architecture=EVA)
    clips = torch.randn(2, 3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    each = encoder.frames(clips)
    assert torch.allclose(each.flatten(0, 1), eva_written_out(trunk, clips.flatten(0, 1)), atol=1e-4)
    with torch.no_grad():
        theirs = eva_model.encode_image(clips.flatten(0, 1))
    assert torch.allclose(eva_model.visual.trunk.head(each.flatten(0, 1)), theirs, atol=1e-4)
    assert torch.allclose(encoder(clips), each.mean(1), atol=1e-6)
    assert encoder(clips).shape == (2, encoder.dim) == (2, 24)
    save_encoder(encoder, tmp_path / "saved")
    assert torch.equal(load_encoder(tmp_path / "saved")(clips), encoder(clips))


def test_full_size_eva_has_every_published_weight():
    with torch.device("meta"):
        theirs = open_clip.create_model("EVA01-g-14", device="meta")
        encoder = eva_clip.EvaClip()
    ours = {k: v.shape for k, v in encoder.state_dict().items()}
    assert {k: v.shape for k, v in eva_clip.rename(theirs.state_dict()).items()} == ours
    head = sum(p.numel() for p in theirs.visual.trunk.head.parameters())
    assert sum(p.numel() for p in theirs.visual.parameters()) == 1_012_588_928
    assert sum(p.numel() for p in encoder.parameters()) == 1_012_588_928 - head == 1_011_146_112
    left = {k for k in theirs.state_dict() if not eva_clip.is_vision(k)}
    assert all(k.startswith(("text.", "visual.trunk.head.", "logit_scale")) for k in left)


def test_frames_are_prepared_as_torchvision_does_without_antialias():
    with torch.device("meta"):
        encoder = eva_clip.EvaClip({**EVA, "img_size": 224})
    rng = np.random.default_rng(0)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    theirs = Compose([Resize(224, antialias=False), CenterCrop(224), Normalize(mean, std)])
    for width, height in ((640, 361), (120, 200), (224, 224), (501, 499)):
        frames = [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(2)]
        stack = torch.from_numpy(np.stack([np.asarray(f) for f in frames]).transpose(0, 3, 1, 2) / 255.0)
        pixels = encoder.prepare([frames])
        assert pixels.shape == (1, 2, 3, 224, 224)
        assert torch.allclose(pixels[0], theirs(stack).float(), atol=1e-6)
    with pytest.raises(InputError, match="as many frames"):
        encoder.prepare([frames, frames[:1]])


@pytest.mark.parametrize("old", [False, True])
def test_bert_is_transformers_class_token(tmp_path, vocabulary, old):
    model = lively(BertForMaskedLM(BertConfig(**BERT)))
    (tmp_path / "vocab.txt").write_text(vocabulary)
    state = model.state_dict()
    del state["cls.predictions.decoder.weight"], state["cls.predictions.decoder.bias"]  # the same memory as other names
    if old:
        state = {k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v for k, v in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    encoder = encoder_at(tmp_path / "encoder", "bert", source=str(tmp_path), architecture=BERT)
    tokenizer = BertTokenizer(vocab=str(tmp_path / "vocab.txt"), do_lower_case=True)
    batch = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=40, return_tensors="pt")  # as GRAM does
    tokens = encoder.prepare(TEXTS)
    assert torch.equal(tokens[:, 0], batch["input_ids"])
    assert torch.equal(tokens[:, 1], batch["attention_mask"])
    with torch.no_grad():
        expected = model.bert(**batch).last_hidden_state[:, 0]
    assert torch.allclose(encoder(tokens), expected, atol=1e-4)
    assert torch.allclose(encoder(encoder.prepare(TEXTS[:1])), expected[:1], atol=1e-4)
    save_encoder(encoder, tmp_path / "saved")
    assert torch.equal(load_encoder(tmp_path / "saved")(tokens), encoder(tokens))


BEATS = {"embed_dim": 8, "encoder_layers": 1, "encoder_embed_dim": 12, "encoder_ffn_embed_dim": 16}
BEATS |= {"encoder_attention_heads": 2, "conv_pos": 8, "conv_pos_groups": 2, "num_buckets": 8, "max_distance": 10}
TINY = {
    "video": CONFIGS["video"] | {"architecture": EVA},
    "text": CONFIGS["text"] | {"architecture": BERT},
    "audio": CONFIGS["audio"] | BEATS,
}


def released(eva_model):
    """A checkpoint with the names of the public model: every module of it, small."""
    torch.manual_seed(0)
    trunk = {k.removeprefix("visual.trunk."): v for k, v in eva_model.state_dict().items() if k.startswith("visual.")}
    text = lively(BertForMaskedLM(BertConfig(**BERT, is_decoder=True, add_cross_attention=True)))
    sound = lively(BEATs(CONFIGS["audio"] | BEATS)).state_dict() | {"predictor.weight": torch.ones(3, 12)}
    state = {f"vision_encoder.visual.{k}": v for k, v in trunk.items()}
    state |= {f"vision_encoder.text.{k}": v for k, v in eva_model.text.state_dict().items()}
    state |= {f"multimodal_encoder.{k}": v for k, v in text.state_dict().items()}
    state |= {f"audio_encoder.{k}": v for k, v in sound.items()}
    widths = {"t": 32, "s": 32, "v": 24, "a": 12, "d": 24}
    state |= {f"contra_head_{k}.linear.weight": torch.randn(16, w) for k, w in widths.items()}
    for name in ("contra_head_va", "contra_head_vs", "contra_head_vas", "itm_head.linear1", "itm_head.layernorm"):
        state |= {f"{name}.weight": torch.randn(2, 2), f"{name}.bias": torch.randn(2)}
    for name in ("vision", "audio", "subtitle"):
        state |= {f"hidden_trans_{name}_multimodal.{i}.{k}": torch.randn(2) for i in "01" for k in ("weight", "bias")}
        state |= {f"{name}_type_embeddings": torch.randn(1, 1, 32)}
    state |= {f"{name}_frame_embedding": torch.randn(1, 8, 32) for name in ("vision", "audio")}
    return state | {"contra_temp": torch.tensor(0.07), "vision_encoder.logit_scale": torch.ones(())}


@pytest.mark.parametrize("age", ["new", "old", "parallel"])
def test_a_released_checkpoint_comes_apart(tmp_path, vocabulary, eva_model, age):
    state = released(eva_model)
    if age == "old":
        names = {"vision_encoder.": "evaclip_model.", "vision_": "video_", "hidden_trans_vision": "hidden_trans_video"}
        state = {next((k.replace(a, b) for a, b in names.items() if a in k), k): v for k, v in state.items()}
    elif age == "parallel":
        state = {f"module.{k}": v for k, v in state.items()}
    split = split_checkpoint(state)
    assert split.unknown == []
    kept = sum(len(weights) + len(head) for weights, head in split.parts.values())
    assert kept + len(split.unused) == len(state)
    assert set(split.unused.values()) >= {"cross-attention of the matching and the decoder", "the decoder's word prediction"}

    (tmp_path / "vocab.txt").write_text(vocabulary)
    torch.save({"model": state}, tmp_path / "released.pt")
    write_split(tmp_path / "released.pt", tmp_path / "out", tmp_path, "didemo", configs=TINY)
    heads = {kind: tmp_path / "out" / "heads" / kind for kind in ("video", "text", "audio")}
    assert heads_in(tmp_path / "out") == heads
    parts = {kind: Part(load_encoder(tmp_path / "out" / "encoders" / kind), load_head(heads[kind])) for kind in heads}
    assert (parts["video"].encoder.resize, parts["audio"].encoder.slices) == ("squash", 2)
    plain = {k.removeprefix("module."): v for k, v in released(eva_model).items()}

    clips = torch.randn(2, 3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    trunk = {k.removeprefix("vision_encoder.visual."): v for k, v in plain.items() if k.startswith("vision_encoder.visual.")}
    seen = eva_written_out(trunk, clips.flatten(0, 1)).unflatten(0, (2, 3)).mean(1)
    assert torch.allclose(parts["video"](clips), F.normalize(seen @ plain["contra_head_v.linear.weight"].T), atol=1e-5)

    reader = BertModel(BertConfig(**BERT), add_pooling_layer=False).eval()
    prefix = "multimodal_encoder.bert."
    reader.load_state_dict({k.removeprefix(prefix): v for k, v in plain.items() if k.startswith(prefix)}, strict=False)
    tokens = parts["text"].encoder.prepare(TEXTS)
    assert tokens.shape == (3, 2, 70)
    with torch.no_grad():
        read = reader(input_ids=tokens[:, 0], attention_mask=tokens[:, 1]).last_hidden_state[:, 0]
    unit = parts["text"](tokens)
    assert torch.allclose(unit, F.normalize(read @ plain["contra_head_t.linear.weight"].T), atol=1e-5)
    assert torch.allclose(unit.norm(dim=1), torch.ones(3), atol=1e-5)
    assert float(torch.cdist(unit, unit)[0, 1]) > 1e-3  # [CLS] sees what follows: nothing is causal
    sound = parts["audio"].encoder
    mels = sound.prepare([torch.randn(16000, generator=torch.Generator().manual_seed(2))])
    assert torch.allclose(parts["audio"](mels), F.normalize(sound(mels) @ plain["contra_head_a.linear.weight"].T), atol=1e-5)

    start = SimpleNamespace(heads={"text": HeadConfig(start=heads["text"], dropout=0.0)})
    trained = new_head(start, "text", Moments(4, torch.zeros(32), torch.ones(32)), 16)  # what a training run goes on from
    assert torch.equal(trained.linear.weight, plain["contra_head_t.linear.weight"])

    # a contrastive head is saved with its aligner, and found again
    aligner = Aligner(16, ())
    for kind, part in parts.items():
        aligner.add_part(kind, part)
    aligner.save_pretrained(tmp_path / "saved")
    again = Aligner.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.part("text")(tokens), unit)
    assert torch.equal(again.part("audio")(mels), parts["audio"](mels))
    with pytest.raises(InputError, match="cannot be saved"):
        save_part(Part(parts["text"].encoder, torch.nn.Linear(32, 16)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_is_not_known_is_listed_and_what_is_torn_refused(eva_model):
    state = released(eva_model)
    odd = {
        "vision_encoder.visual.rope.freqs": torch.ones(1),
        "memory_bank": torch.ones(1),
        "contra_head_x.linear.weight": torch.ones(1),
    }
    assert split_checkpoint(state | odd).unknown == list(odd)
    no_sound = {k: v for k, v in state.items() if not k.startswith(("audio_encoder", "contra_head_a."))}
    assert set(split_checkpoint(no_sound).parts) == {"video", "text"}
    with pytest.raises(InputError, match=r"contra_head_a\.linear"):
        split_checkpoint({k: v for k, v in state.items() if not k.startswith("contra_head_a.")})
    with pytest.raises(InputError, match="no checkpoint of VAST"):
        split_checkpoint({"model": torch.ones(1)})


@pytest.fixture(scope="module")
def pe_model():
    text = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    codec = {"encoder_hidden_size": 4, "downsampling_ratios": [2, 4], "codebook_dim": 6}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return lively(PeAudioModel(PeAudioConfig(text_config=text, audio_config={**sizes, "dac_config": codec})), 0.2)


@pytest.mark.parametrize("whole", [False, True])
def test_pe_av_is_transformers_sound_embedding(tmp_path, pe_model, whole):
    pe_model.save_pretrained(tmp_path / "published")
    if whole:  # as in a file of the whole audio-visual model
        names = {"audio_encoder.": "audio_video_encoder.embedder.audio_encoder.", "audio_head.": "audio_model.audio_head."}
        state = {
            next((b + k.removeprefix(a) for a, b in names.items() if k.startswith(a)), k): v.clone()
            for k, v in pe_model.state_dict().items()
        }
        save_file(state | {"audio_video_head.proj.weight": torch.ones(2)}, tmp_path / "published" / "model.safetensors")
    encoder = encoder_at(tmp_path / "encoder", "pe_av", source=str(tmp_path / "published"))
    noise = torch.randn(401, generator=torch.Generator().manual_seed(0))
    sounds = [noise, noise[:97] * 3, noise[200:360]]
    batch = PeAudioFeatureExtractor(hop_length=8)([s.numpy() for s in sounds], sampling_rate=48000, return_tensors="pt")
    prepared = encoder.prepare(sounds)
    assert torch.equal(prepared.nan_to_num(), batch["input_values"][:, 0])
    assert torch.equal(~prepared.isnan(), batch["padding_mask"].bool())
    with torch.no_grad():
        expected = pe_model.get_audio_embeds(batch["input_values"], batch["padding_mask"])
    features = encoder(prepared)
    assert features.shape == (3, encoder.dim) == (3, 20)
    assert torch.allclose(features, expected, atol=1e-4)
    assert encoder.rate == 48000
    save_encoder(encoder, tmp_path / "saved")
    assert torch.equal(load_encoder(tmp_path / "saved")(prepared), features)
    with pytest.raises(InputError, match="empty"):
        encoder.prepare([noise[:0]])
    turns = pe_model.audio_encoder.rotary_emb.inv_freq
    assert torch.equal(encoder.to(torch.bfloat16).net.rotary_emb.inv_freq, turns)
    assert float((encoder(prepared.bfloat16()) - expected).norm() / expected.norm()) < 0.1


def test_another_model_is_no_pe_av(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap"}))
    save_file({"audio_encoder.x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no PE-AV"):
        encoder_at(tmp_path / "encoder", "pe_av", source=str(tmp_path))


def test_the_split_command_names_what_it_leaves_out_and_what_does_not_fit(tmp_path, vocabulary, eva_model, monkeypatch):
    monkeypatch.setattr(write_split, "__defaults__", ("vast", None, TINY))
    (tmp_path / "vocab.txt").write_text(vocabulary)
    torch.save(released(eva_model) | {"surprise.weight": torch.zeros(1)}, tmp_path / "released.pt")
    command = ["split", str(tmp_path / "released.pt"), "--out", str(tmp_path / "out"), "--tokenizer", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--tokens", "30", "--json"])
    assert done.exit_code == 0, done.output
    assert "surprise.weight" in done.stderr
    found = json.loads(done.stdout)
    assert set(found["encoders"]) == {"video", "text", "audio"}
    assert json.loads((tmp_path / "out" / "encoders" / "text" / "config.json").read_text())["length"] == 30
    for more, says in (([], "not empty"), (["--out", str(tmp_path / "b"), "--dataset", "imagenet"], "unknown data set")):
        again = CliRunner().invoke(app, command + more)
        assert again.exit_code == 2
        assert says in again.stderr
    with pytest.raises(InputError, match="do not fit"):
        write_split(
            tmp_path / "released.pt",
            tmp_path / "c",
            tmp_path,
            configs=TINY | {"video": CONFIGS["video"] | {"architecture": {**EVA, "depth": 1}}},
        )


def test_full_size_encoders_of_the_released_checkpoints(tmp_path, vocabulary):
    (tmp_path / "vocab.txt").write_text(vocabulary)
    with torch.device("meta"):
        encoders = [eva_clip.build(tmp_path, CONFIGS["video"]), bert.build(tmp_path, CONFIGS["text"]), BEATs(CONFIGS["audio"])]
    assert [encoder.dim for encoder in encoders] == [1408, 768, 768]
    assert sum(p.numel() for encoder in encoders for p in encoder.parameters()) > 1.2e9
    assert {kind for reading in READ_AS.values() for kind in reading} == set(CONFIGS)
    assert contrastive_head(torch.randn(512, 768)).config["hidden"] == 0


def test_squashed_frames_are_torchvisions():
    with torch.device("meta"):
        encoder = eva_clip.EvaClip({**EVA, "img_size": 224}, resize="squash")
    rng = np.random.default_rng(1)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    theirs = Compose([Resize((224, 224), antialias=False), Normalize(mean, std)])
    for width, height in ((640, 361), (120, 200)):
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = theirs(torch.from_numpy(frame.transpose(2, 0, 1)[None] / 255.0)).float()
        assert torch.allclose(encoder.prepare([Image.fromarray(frame)])[0], expected, atol=1e-6)
    with pytest.raises(InputError, match="unknown resize"):
        eva_clip.EvaClip(EVA, resize="pad")
