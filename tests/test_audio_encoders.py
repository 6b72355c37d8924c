"""Sound encoders against computations written out here, one number at a time where that is affordable."""

import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unialign_gen.encoders import imagebind_audio as imagebind
from unialign_gen.encoders import load_encoder, save_encoder
from unialign_gen.encoders.beats import BEATs, position_buckets
from unialign_gen.encoders.imagebind_audio import LICENCE, VARIABLE, ImageBindAudio, clips_of, published_keys
from unialign_gen.encoders.kaldi import FLOOR, fbank, mel_filters
from unialign_gen.errors import InputError

RATE = 16000
SMALL = {
    "embed_dim": 24,
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "num_buckets": 16,
    "max_distance": 20,
    "mels": 32,
}


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def shaken(encoder: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, none at the value it starts with, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval().requires_grad_(False)


# ---- filter banks


def naive_fbank(sound, mels, window):
    """Kaldi's definition in float64: frames and triangles by loops, the spectrum by the formula of the transform."""
    size, hop, points = 400, 160, 512
    x = sound.double().numpy()
    rows = [x[i * hop : i * hop + size] for i in range(1 + (len(x) - size) // hop)]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))
    taper = {"hanning": hann, "povey": hann**0.85}[window]
    wave = np.exp(-2j * np.pi * np.outer(np.arange(points // 2), np.arange(size)) / points)

    def mel(f):
        return 1127 * math.log(1 + f / 700)

    edges = [mel(20) + i * (mel(8000) - mel(20)) / (mels + 1) for i in range(mels + 2)]
    filters = np.zeros((points // 2, mels))
    for b in range(mels):
        for k in range(points // 2):
            m = mel(k * RATE / points)
            up, down = (m - edges[b]) / (edges[b + 1] - edges[b]), (edges[b + 2] - m) / (edges[b + 2] - edges[b + 1])
            filters[k, b] = max(0.0, min(up, down))
    out = []
    for row in rows:
        row = row - row.mean()
        row = np.concatenate([[row[0] * (1 - 0.97)], row[1:] - 0.97 * row[:-1]]) * taper
        out.append(np.log(np.maximum(np.abs(wave @ row) ** 2 @ filters, FLOOR)))
    return torch.tensor(np.array(out))


@pytest.mark.parametrize(("mels", "window"), [(128, "povey"), (64, "povey"), (128, "hanning"), (40, "hanning")])
def test_fbank_is_kaldis_definition(mels, window):
    sound = 2**15 * noise(2000) + 300
    got = fbank(sound, RATE, mels, window=window)
    expected = naive_fbank(sound, mels, window)
    assert got.shape == expected.shape == ((2000 - 400) // 160 + 1, mels)
    assert torch.allclose(got.double(), expected, atol=2e-3)


def test_bands_narrower_than_a_bin_of_the_spectrum_stay_at_the_floor():
    bands = fbank(2**15 * noise(8000), RATE, 128)
    empty = bands.amax(0) == math.log(FLOOR)
    assert 0 < int(empty.sum()) < 10
    assert int(empty.nonzero().max()) < 30
    assert torch.equal(fbank(torch.zeros(400), RATE, 8), torch.full((1, 8), math.log(FLOOR)))


def test_fbank_is_that_of_the_cpp_port_where_the_port_can():
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type, options.mel_opts.num_bins = 0, "hanning", 80
    sound = 2**15 * noise(RATE)
    port = knf.OnlineFbank(options)
    port.accept_waveform(RATE, sound.numpy())
    port.input_finished()
    expected = torch.tensor(np.stack([port.get_frame(i) for i in range(port.num_frames_ready)]))
    assert torch.allclose(fbank(sound, RATE, 80, window="hanning"), expected, atol=1e-3)


def test_fbank_at_the_edges():
    assert fbank(torch.zeros(399), RATE, 128).shape == (0, 128)
    for sound, more, message in [
        (torch.zeros(2, 800), {}, "one vector of mono samples"),
        (torch.full((800,), float("nan")), {}, "NaN or infinite"),
        (torch.zeros(800), {"window": "kaiser"}, "unknown window 'kaiser'"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            fbank(sound, RATE, **more)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="do not fit a rate"):
        mel_filters(RATE, 512, 8, 20.0, 9000.0)


# ---- BEATs


@pytest.mark.parametrize(("buckets", "farthest"), [(320, 800), (32, 128)])
def test_position_buckets_one_distance_at_a_time(buckets, farthest):
    side, exact = buckets // 2, buckets // 4
    distances = range(-2 * farthest, 2 * farthest + 1)
    expected = []
    for d in distances:
        if abs(d) < exact:
            bucket = abs(d)
        else:  # the epsilon is for distances that lie on a border, where rounding decides
            bucket = exact + int(math.log(abs(d) / exact) / math.log(farthest / exact) * (side - exact) + 1e-6)
        expected.append(min(bucket, side - 1) + (side if d > 0 else 0))
    got = position_buckets(torch.tensor(list(distances)), buckets, farthest)
    wrong = [(d, g, e) for d, g, e in zip(distances, got.tolist(), expected, strict=True) if g != e]
    assert all(abs(g - e) == 1 and abs(d) in (farthest,) for d, g, e in wrong), wrong
    assert (got[0], got.max(), got[2 * farthest]) == (side - 1, buckets - 1, 0)


def test_convolutional_positions_are_torchs_weight_norm():
    conv = shaken(BEATs(SMALL)).encoder.pos_conv[0]
    plain = torch.nn.Conv1d(32, 32, 8, padding=4, groups=4)
    reference = torch.nn.utils.parametrizations.weight_norm(plain, dim=2)
    reference.parametrizations.weight.original0.data = conv.weight_g
    reference.parametrizations.weight.original1.data = conv.weight_v
    reference.bias.data = conv.bias
    x = torch.randn(2, 32, 11, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(conv(x), torch.nn.functional.gelu(reference(x)[..., :11]), atol=1e-5)


def test_a_layer_one_head_and_one_query_at_a_time():
    """Gate, position bias, padding, deep norm and the order of the norms, in float64 numpy."""
    encoder = shaken(BEATs(SMALL))
    layer, tokens, heads, width = encoder.encoder.layers[1], 5, 4, 32
    x = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(3))
    positions = torch.randn(heads, tokens, tokens, generator=torch.Generator().manual_seed(4))
    valid = torch.tensor([[True, True, True, True, False]])
    p = {k: v.double().numpy() for k, v in layer.state_dict().items()}

    def linear(name, v):
        return v @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(name, v):
        spread = np.sqrt(v.var(-1, keepdims=True) + 1e-5)
        return (v - v.mean(-1, keepdims=True)) / spread * p[f"{name}.weight"] + p[f"{name}.bias"]

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    rows = x[0].double().numpy()
    q, k, v = (linear(f"self_attn.{n}_proj", rows) for n in "qkv")
    mixed = np.zeros_like(rows)
    for h in range(heads):
        part = slice(h * 8, h * 8 + 8)
        for i in range(tokens):
            eight = linear("self_attn.grep_linear", q[i, part])
            first, second = sigmoid(eight[:4].sum()), sigmoid(eight[4:].sum())
            gate = first * (second * p["self_attn.grep_a"][0, h, 0, 0] - 1) + 2
            logits = [q[i, part] @ k[j, part] / math.sqrt(8) + gate * float(positions[h, i, j]) for j in range(4)]
            share = np.exp(np.array(logits) - max(logits))
            mixed[i, part] = (share / share.sum()) @ v[:4, part]
    alpha = (2 * 2) ** 0.25
    rows = norm("self_attn_layer_norm", alpha * rows + linear("self_attn.out_proj", mixed))
    hidden = linear("fc1", rows)
    hidden = hidden * np.vectorize(lambda u: 0.5 * (1 + math.erf(u / math.sqrt(2))))(hidden)
    expected = norm("final_layer_norm", alpha * rows + linear("fc2", hidden))
    assert torch.allclose(layer(x, positions, valid)[0].double(), torch.tensor(expected), atol=1e-5)


def test_the_position_bias_reaches_the_right_pair_of_tokens():
    encoder = shaken(BEATs(SMALL))
    seen = {}
    encoder.encoder.layers[0].register_forward_pre_hook(lambda module, inputs: seen.update(bias=inputs[1]))
    encoder.encoder(torch.randn(1, 9, 32), torch.ones(1, 9, dtype=torch.bool))
    table = encoder.encoder.layers[1].self_attn.relative_attention_bias.weight
    for query, key in [(0, 0), (0, 8), (8, 0), (3, 5)]:
        bucket = position_buckets(torch.tensor(key - query), 16, 20)
        assert torch.equal(seen["bias"][:, query, key], table[bucket])


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_batch_is_its_sounds_one_by_one(pooling):
    encoder = shaken(BEATs(SMALL | {"pooling": pooling, "window": 64}))
    sounds = [noise(n, seed=n) for n in (24000, 100, 9000, 10300, 15000)]  # up to 148 frames: three windows, and less than one
    mels = encoder.prepare(sounds)
    assert mels.shape == (5, 148, 32)
    together = encoder(mels)
    assert together.shape == (5, 32)
    alone = torch.cat([encoder(encoder.prepare([s])) for s in sounds])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], together[4], atol=1e-2)


def test_windows_are_encoded_one_by_one_and_pooled_by_their_lengths():
    encoder = shaken(BEATs(SMALL | {"window": 64}))
    mels = encoder.prepare([noise(24000)])
    parts = [encoder.tokens(m)[0][0] for m in (mels[:, :64], mels[:, 64:128], mels[:, 128:])]
    assert [len(p) for p in parts] == [8, 8, 2]  # 148 frames: 4 + 4 + 1 columns of 2 patches
    tokens, valid = encoder.tokens(mels)
    assert torch.allclose(tokens[valid], torch.cat(parts), atol=1e-5)
    assert torch.allclose(encoder(mels)[0], torch.cat(parts).mean(0), atol=1e-5)


def test_attention_pooling_weighs_tokens_by_the_query():
    encoder = shaken(BEATs(SMALL | {"pooling": "attention"}))
    mels = encoder.prepare([noise(9000)])
    tokens = encoder.tokens(mels)[0][0].double().numpy()
    share = np.exp(tokens @ encoder.pool.query.double().numpy() / math.sqrt(32))
    expected = (share[:, None] / share.sum() * tokens).sum(0)
    assert torch.allclose(encoder(mels)[0].double(), torch.tensor(expected), atol=1e-5)
    encoder.pool.query.zero_()
    assert torch.allclose(encoder(mels)[0].double(), torch.tensor(tokens.mean(0)), atol=1e-5)


def test_beats_prepares_mels_at_the_scale_of_16_bit_integers():
    mels = BEATs(SMALL).prepare([noise(8000), torch.zeros(8000)[:4000]])
    expected = (fbank(noise(8000) * 32768, RATE, 32) - 15.41663) / (2 * 6.55582)
    assert torch.allclose(mels[0], expected, atol=1e-5)
    assert float(mels[1, 0, 0]) == pytest.approx((math.log(FLOOR) - 15.41663) / 13.11164)
    assert mels[1].isnan().any(1).tolist() == [False] * 23 + [True] * 25
    with pytest.raises(InputError, match="a sound is empty"):
        BEATs(SMALL).prepare([torch.zeros(0)])


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_slices_are_read_as_vast_gram_and_pmrl_read_them(slices):
    """Their preprocessing and pooling written out: one window at a time, zeros for what is missing, all tokens alike."""
    window = 1024
    encoder = shaken(BEATs(SMALL | {"window": window, "slices": slices}))
    for seconds in (0.01, 0.7, 2.8, 6, 10, 10.255, 15, 25):
        sound = noise(int(seconds * RATE))
        mels = (fbank(sound * 32768, RATE, 32) - 15.41663) / (2 * 6.55582)
        missing = max(window * slices - len(mels), window - len(mels) % window)
        padded = np.concatenate([mels.numpy(), np.zeros((missing, 32), np.float32)])
        numbers = list(range(len(padded) // window))
        size, more = divmod(len(numbers), slices)
        read, at = [], 0
        for i in range(slices):
            stretch = numbers[at : at + size + (i < more)]
            at += len(stretch)
            read.append(padded[stretch[(len(stretch) + 1) // 2 - 1] * window :][:window])
        every = torch.ones(1, window // 16 * 2, dtype=torch.bool)
        pooled = torch.stack([encoder.encode(torch.from_numpy(r)[None], every)[0].mean(0) for r in read]).mean(0)
        prepared = encoder.prepare([sound])
        assert prepared.shape == (1, slices * window, 32)
        assert torch.cosine_similarity(encoder(prepared)[0], pooled, dim=0) > 0.99999
        assert torch.allclose(encoder(prepared)[0], pooled, atol=1e-4)
    assert (encoder.downmix, BEATs(SMALL).downmix) == ("left", "mean")
    with pytest.raises(InputError, match="slices must be"):
        BEATs(SMALL | {"slices": -1})


def beats_keys(layers=12):
    linear, one = ("weight", "bias"), ("weight",)
    names = [f"post_extract_proj.{n}" for n in linear] + [f"{p}layer_norm.{n}" for p in ("", "encoder.") for n in linear]
    names += ["patch_embedding.weight", *(f"encoder.pos_conv.0.{n}" for n in ("weight_g", "weight_v", "bias"))]
    inside = {f"self_attn.{n}": linear for n in ("q_proj", "k_proj", "v_proj", "out_proj", "grep_linear")}
    inside |= {"self_attn.relative_attention_bias": one} | dict.fromkeys(("fc1", "fc2"), linear)
    inside |= dict.fromkeys(("self_attn_layer_norm", "final_layer_norm"), linear)
    for i in range(layers):
        names += [f"encoder.layers.{i}.{name}.{n}" for name, kinds in inside.items() for n in kinds]
        names.append(f"encoder.layers.{i}.self_attn.grep_a")
    return sorted(names)


def test_full_size_beats_has_the_published_keys_shapes_and_size():
    with torch.device("meta"):
        encoder = BEATs()
    state = encoder.state_dict()
    assert sorted(state) == beats_keys()
    assert len(state) == 250
    assert sum(p.numel() for p in encoder.parameters()) == 90_311_792  # what the published code has, its classifier aside
    assert state["encoder.pos_conv.0.weight_v"].shape == (768, 48, 128)
    assert state["encoder.pos_conv.0.weight_g"].shape == (1, 1, 128)
    assert state["encoder.layers.7.self_attn.relative_attention_bias.weight"].shape == (320, 12)
    assert (encoder.dim, encoder.rate) == (768, 16000)


def published_beats(path: Path, **more: torch.Tensor) -> BEATs:
    """A small encoder whose weights lie at `path` as the authors publish theirs."""
    encoder = shaken(BEATs(SMALL))
    cfg = {k: v for k, v in SMALL.items() if k != "mels"} | {"dropout": 0.0, "encoder_layerdrop": 0.05, "finetuned_model": True}
    torch.save({"cfg": cfg, "model": {**encoder.state_dict(), **more}}, path)
    return encoder


def configure(folder: Path, **config: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("absolute", [False, True])
def test_a_published_checkpoint_loads_and_then_lives_on_as_safetensors(tmp_path, absolute):
    folder = tmp_path / "encoder"
    where = tmp_path / "tuned.pt" if absolute else folder / "tuned.pt"
    folder.mkdir()
    original = published_beats(where, **{"predictor.weight": torch.zeros(5, 32), "predictor.bias": torch.zeros(5)})
    configure(folder, encoder="beats", checkpoint=str(where) if absolute else "tuned.pt", mels=32)
    encoder = load_encoder(folder)
    mels = original.prepare([noise(9000)])
    assert torch.equal(encoder(mels), original(mels))
    save_encoder(encoder, tmp_path / "again")
    assert "checkpoint" not in json.loads((tmp_path / "again" / "config.json").read_text())
    assert torch.equal(load_encoder(tmp_path / "again")(mels), original(mels))


def test_a_published_checkpoint_with_attention_pooling_starts_at_the_mean(tmp_path):
    original = published_beats(tmp_path / "beats.pt")
    configure(tmp_path, encoder="beats", checkpoint="beats.pt", mels=32, pooling="attention")
    mels = original.prepare([noise(9000)])
    assert torch.allclose(load_encoder(tmp_path)(mels), original(mels), atol=1e-5)


def test_a_encoder_in_half_precision(tmp_path):
    original = shaken(BEATs(SMALL))
    save_encoder(original, tmp_path)
    encoder = load_encoder(tmp_path, torch.bfloat16)
    mels = original.prepare([noise(9000), noise(4000)])
    half = encoder(mels.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert torch.cosine_similarity(half.float(), original(mels)).min() > 0.99


class Trap:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.filterwarnings("ignore:ImageBind's sound weights")
@pytest.mark.parametrize("kind", ["beats", "imagebind_audio"])
def test_checkpoints_that_cannot_be_used_are_one_clear_line(tmp_path, kind):
    config = {"encoder": kind, "checkpoint": "file.pt", "accept_license": LICENCE}
    sprung = tmp_path / "sprung"
    cases = [
        (None, "cannot read"),
        (lambda path: path.write_bytes(b"not a checkpoint at all"), "file.pt"),
        (lambda path: torch.save({"cfg": {}, "model": Trap(str(sprung))}, path), "would run code"),
        (lambda path: torch.save({"weights": torch.zeros(1)}, path), "is no (BEATs|ImageBind) checkpoint"),
    ]
    for number, (write, message) in enumerate(cases):
        folder = tmp_path / str(number)
        configure(folder, **config)
        if write:
            write(folder / "file.pt")
        with pytest.raises(InputError, match=message) as caught:
            load_encoder(folder)
        assert "\n" not in str(caught.value)
    assert not sprung.exists()
    configure(tmp_path / "bare", encoder=kind, accept_license=LICENCE)
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_encoder(tmp_path / "bare")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"encoder.extra": torch.zeros(1)}, r"unknown \['encoder.extra'\]"), ({"predictions.weight": torch.zeros(1)}, "unknown")],
)
def test_only_the_classifier_may_be_left_over(tmp_path, change, message):
    published_beats(tmp_path / "beats.pt", **change)
    configure(tmp_path, encoder="beats", checkpoint="beats.pt", mels=32)
    with pytest.raises(InputError, match=message):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layer_norm_first": True}, "layer_norm_first = True is not implemented"),
        ({"activation_fn": "glu"}, "activation_fn = 'glu' is not implemented"),
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"mels": 8}, "mels = 8 is less than one patch"),
    ],
)
def test_settings_that_are_not_implemented_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        BEATs(SMALL | config)


# ---- ImageBind


TINY = {"depth": 2, "width": 48, "heads": 4, "dim": 10}


def test_attention_with_learned_key_and_value_is_torchs():
    attention = shaken(imagebind.Attention(48, 4))
    reference = torch.nn.MultiheadAttention(48, 4, add_bias_kv=True, batch_first=True).eval()
    reference.load_state_dict(
        {
            "in_proj_weight": attention.inward.weight,
            "in_proj_bias": attention.inward.bias,
            "bias_k": attention.extra_key,
            "bias_v": attention.extra_value,
            "out_proj.weight": attention.outward.weight,
            "out_proj.bias": attention.outward.bias,
        }
    )
    x = torch.randn(3, 7, 48, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(attention(x), reference(x, x, x)[0], atol=1e-5)


def test_the_trunk_is_a_pre_norm_vit_on_overlapping_patches():
    """The same network out of torch's own layers, patches cut out one by one."""
    encoder = shaken(ImageBindAudio(**TINY))
    mels = encoder.prepare([noise(40000), noise(3000)])
    assert mels.shape == (2, 3, 128, 204)
    rows = []
    for mel in mels.flatten(0, 1):
        patches = [mel[10 * b : 10 * b + 16, 10 * t : 10 * t + 16].flatten() for b in range(12) for t in range(19)]
        x = encoder.patch_norm(torch.stack(patches) @ encoder.patches.weight.flatten(1).T)
        x = torch.cat([encoder.summary[0], x]) + encoder.positions[0]
        assert x.shape == (229, 48)
        for block in encoder.blocks:
            x = (
                x
                + block.attention(torch.nn.functional.layer_norm(x, (48,), block.norm1.weight, block.norm1.bias, 1e-6)[None])[0]
            )
            h = torch.nn.functional.layer_norm(x, (48,), block.norm2.weight, block.norm2.bias, 1e-6)
            x = x + block.narrow(torch.nn.functional.gelu(block.widen(h)))
        x = encoder.project(torch.nn.functional.layer_norm(x[0], (48,), encoder.last_norm.weight, encoder.last_norm.bias, 1e-6))
        rows.append(x / x.norm())
    expected = torch.stack([torch.stack(rows[:3]).mean(0), torch.stack(rows[3:]).mean(0)])
    assert torch.allclose(encoder(mels), expected, atol=1e-5)


def test_features_are_unit_vectors_averaged_without_the_logit_scale():
    encoder = shaken(ImageBindAudio(**TINY))
    short = encoder(encoder.prepare([noise(16000)]))  # three clips that are the same
    assert float(short.norm()) == pytest.approx(1, abs=1e-5)
    assert float(encoder(encoder.prepare([noise(96000)])).norm()) < 1
    assert float(encoder.log_logit_scale.exp()) == pytest.approx(20)
    mels = encoder.prepare([noise(50000), noise(7)])
    assert torch.allclose(encoder(mels), torch.cat([encoder(m[None]) for m in mels]), atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(160000, [0, 64000, 128000]), (80000, [0, 24000, 48000]), (32000, [0, 0, 0]), (5000, [0, 0, 0]), (1, [0, 0, 0])],
)
def test_three_clips_are_evenly_spaced_from_start_to_end(samples, starts):
    clips = clips_of(torch.arange(samples).float())
    assert [int(c[0]) for c in clips] == starts
    assert [len(c) for c in clips] == [min(samples, 32000)] * 3


def test_imagebind_mels_are_centred_cut_or_padded_and_normalised():
    encoder = ImageBindAudio(**TINY)
    mels = encoder.prepare([noise(32000)])[0]
    sound = noise(32000) - noise(32000).mean()
    expected = (fbank(sound, RATE, 128, window="hanning") + 4.268) / 9.138
    assert torch.allclose(mels[1, :, :198], expected.T, atol=1e-5)
    assert torch.allclose(mels[:, :, 198:], torch.tensor(4.268 / 9.138))
    tiny = encoder.prepare([noise(9)])
    assert tiny.isfinite().all()
    assert torch.allclose(tiny[0, :, :, 1:], torch.tensor(4.268 / 9.138))  # one frame, mostly silence, then zeros
    assert encoder.prepare([torch.zeros(32000)]).isfinite().all()
    for bad in (torch.zeros(0), torch.zeros(2, 100)):
        with pytest.raises(InputError, match="non-empty vector of mono samples"):
            encoder.prepare([bad])


def test_overlapping_clips_are_centred_one_after_the_other():
    encoder = ImageBindAudio(**TINY)
    sound = noise(48000) + torch.linspace(-0.5, 1.5, 48000)
    given = sound.clone()
    mels = encoder.prepare([sound])[0]
    assert torch.equal(sound, given)
    shared = sound.clone()
    for start, mel in zip((0, 8000, 16000), mels, strict=True):
        shared[start : start + 32000] -= shared[start : start + 32000].mean()
        expected = (fbank(shared[start : start + 32000], RATE, 128, window="hanning") + 4.268) / 9.138
        assert torch.allclose(mel[:, :198], expected.T, atol=1e-4)


def test_full_size_imagebind_has_the_published_sizes():
    with torch.device("meta"):
        encoder = ImageBindAudio()
    assert sorted(published_keys().values()) == sorted(encoder.state_dict())
    assert len(published_keys()) == 177
    assert sum(p.numel() for p in encoder.parameters()) == 86_235_648
    assert encoder.positions.shape == (1, 229, 768)
    assert (encoder.dim, encoder.rate) == (1024, 16000)
    shapes = {
        "patches.weight": (768, 1, 16, 16),
        "blocks.11.attention.inward.weight": (2304, 768),
        "blocks.0.attention.extra_key": (1, 1, 768),
        "blocks.0.widen.weight": (3072, 768),
        "project.weight": (1024, 768),
    }
    assert {k: tuple(encoder.state_dict()[k].shape) for k in shapes} == shapes
    known = (
        r"modality_(preprocessors|heads|postprocessors)\.audio\.|modality_trunks\.audio\.blocks\.(\d|1[01])\.(attn|norm_|mlp)"
    )
    assert all(re.match(known, key) for key in published_keys())


@pytest.fixture
def published_imagebind(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    imagebind.show_licence.cache_clear()
    encoder = shaken(ImageBindAudio(**TINY))
    encoder.log_logit_scale.fill_(1.5)
    state = {theirs: encoder.state_dict()[ours] for theirs, ours in published_keys(2).items()}
    torch.save(state | {"modality_trunks.vision.blocks.0.norm_1.weight": torch.zeros(3)}, tmp_path / "huge.pth")
    return encoder


def test_sounds_share_of_the_published_checkpoint_loads_and_lives_on(tmp_path, published_imagebind):
    configure(tmp_path, encoder="imagebind_audio", checkpoint="huge.pth", accept_license=LICENCE, **TINY)
    with pytest.warns(UserWarning, match="CC-BY-NC-SA 4.0: non-commercial"):
        encoder = load_encoder(tmp_path)
    assert {k: v.tolist() for k, v in encoder.state_dict().items()} == {
        k: v.tolist() for k, v in published_imagebind.state_dict().items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the licence is shown once
        save_encoder(encoder, tmp_path / "again")
        again = load_encoder(tmp_path / "again")
    mels = encoder.prepare([noise(5000)])
    assert torch.equal(again(mels), published_imagebind(mels))


def test_imagebind_is_opt_in(tmp_path, published_imagebind, monkeypatch):
    for word in (None, "yes", "MIT"):
        accept = {"accept_license": word} if word else {}
        configure(tmp_path, encoder="imagebind_audio", checkpoint="huge.pth", **TINY, **accept)
        with pytest.raises(InputError, match=f'{LICENCE} .*"accept_license": "{LICENCE}".*{VARIABLE}={LICENCE}') as caught:
            load_encoder(tmp_path)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="non-commercial"):
            imagebind.build(tmp_path, TINY | accept)
    configure(tmp_path, encoder="imagebind_audio", checkpoint="huge.pth", **TINY)
    monkeypatch.setenv(VARIABLE, LICENCE)
    with pytest.warns(UserWarning, match="non-commercial"):
        encoder = load_encoder(tmp_path)
    assert "accept_license" not in encoder.config  # a copy does not accept for whoever loads it next


def test_an_incomplete_imagebind_names_what_is_missing(tmp_path, published_imagebind):
    state = torch.load(tmp_path / "huge.pth", weights_only=True)
    del state["modality_trunks.audio.blocks.1.attn.bias_k"]
    torch.save(state, tmp_path / "huge.pth")
    configure(tmp_path, encoder="imagebind_audio", checkpoint="huge.pth", accept_license=LICENCE, **TINY)
    with (
        pytest.warns(UserWarning, match="non-commercial"),
        pytest.raises(InputError, match=r"1 of its sound weights are missing, .*blocks\.1\.attn\.bias_k"),
    ):
        load_encoder(tmp_path)


def test_safetensors_with_foreign_names_do_not_load(tmp_path):
    configure(tmp_path, encoder="beats", **SMALL)
    save_file({"net.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="do not fit: missing"):
        load_encoder(tmp_path)
