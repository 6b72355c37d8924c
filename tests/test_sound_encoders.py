"""The starter's second ear, how two are put side by side, and weights in eight bits."""

import math

import pytest
import scipy.signal
import torch
from safetensors.torch import load_file, save_file

from unialign_gen.checkpoints.recipe import encoders as recipe
from unialign_gen.encoders import load_encoder, save_encoder
from unialign_gen.encoders.aisfx import AiSFX
from unialign_gen.encoders.base import Encoder
from unialign_gen.encoders.blocks import block_starts, mean_over_blocks
from unialign_gen.encoders.concatenated import Concatenated, resample
from unialign_gen.encoders.quantised import pack, unpack
from unialign_gen.encoders.yamnet import FRAMES, LEVEL, MELS, RATE, YAMNet, mel_filters, same
from unialign_gen.errors import InputError
from unialign_gen.loading import find

AUDIO = find("starter") / "aligner" / "audio"


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def chirp() -> torch.Tensor:
    t = torch.arange(15600, dtype=torch.float64) / RATE
    x = torch.sin(2 * math.pi * 300 * t * (1 + t / 2)).sign() * torch.exp(-3 * t)
    return (LEVEL * x / x.square().mean().sqrt()).float()


def test_mel_filters_one_weight_at_a_time():
    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    low, high = mel(125), mel(7500)
    edges = [low + (high - low) * i / (MELS + 1) for i in range(MELS + 2)]
    for band in (0, 1, 30, 63):
        below, mid, above = edges[band : band + 3]
        for k in range(257):
            m = mel(k * RATE / 512)
            weight = max(0.0, min((m - below) / (mid - below), (above - m) / (above - mid)))
            assert float(mel_filters()[k, band]) == pytest.approx(weight, abs=1e-5)


def test_the_log_mel_spectrogram_is_that_of_tensorflow_lite():
    """Numbers that YAMNet's own TensorFlow Lite file gives for this sound."""
    found = YAMNet().log_mel(chirp())
    assert found.shape == (96, MELS)
    assert found[0, :4].tolist() == pytest.approx([-1.0706425, -1.135457, -0.6274093, 2.2863173], abs=2e-3)
    assert found[50, 30:34].tolist() == pytest.approx([-1.4799334, -1.2498821, -0.82137614, -1.6112965], abs=2e-3)


def test_the_shipped_weights_give_the_features_that_tensorflow_lite_gives():
    """Its activations are rounded to steps of 0.022 in every layer, ours are not."""
    yamnet = load_encoder(AUDIO).parts["yamnet"]
    found = yamnet(yamnet.prepare([chirp()]))[0, :1024]
    expected = {715: 2.37, 234: 1.54, 130: 1.36, 31: 1.12, 898: 1.0, 838: 0.76}
    assert found.topk(3).indices.tolist() == [715, 234, 130]
    assert [float(found[i]) for i in expected] == pytest.approx(list(expected.values()), abs=0.2)
    assert float(found.sum()) == pytest.approx(21.93, rel=0.1)


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_tensorflows_same(stride):
    """Where total padding is odd, the zero more stands at the end."""
    size, kernel = 6, 3
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    x = torch.ones(1, 1, size, size)
    found = same(x, stride)
    assert found.shape[-1] == size + total
    assert float(found[..., total // 2, total // 2]) == 1
    assert float(found[..., : total // 2].abs().sum()) == 0


def test_silence_is_no_sound_and_loudness_does_not_matter():
    encoder = YAMNet().eval()
    silence = encoder.log_mel(torch.zeros(RATE))
    assert torch.allclose(silence, torch.full_like(silence, math.log(1e-3)))
    assert torch.allclose(encoder.log_mel(noise(RATE) * 7), encoder.log_mel(noise(RATE)), atol=1e-3)
    assert len(encoder.log_mel(noise(100))) == FRAMES


def test_the_middle_layers_features_stand_behind_the_last_ones():
    torch.manual_seed(0)
    both, last = YAMNet(middle=True).eval(), YAMNet().eval()
    last.load_state_dict(both.state_dict())
    blocks = torch.randn(2, FRAMES, MELS)
    with torch.no_grad():
        found = both.embed(blocks)
        assert torch.allclose(found[:, :1024], last.embed(blocks))
        x = torch.relu(both.first(same(blocks[:, None], 2))).clamp(max=6)
        for layer in both.layers[:6]:
            x = layer(x)
    assert found.shape == (2, both.dim)
    loudest = max(float(x[1, 9, t].mean()) for t in range(x.shape[2]))
    assert float(found[1, 1024 + 9]) == pytest.approx(loudest, abs=1e-6)


@pytest.mark.parametrize(("frames", "expected"), [(100, [0]), (101, [0, 1]), (150, [0, 50]), (260, [0, 50, 100, 150, 160])])
def test_blocks_cover_every_frame(frames, expected):
    starts = block_starts(frames, 100)
    assert starts == expected
    assert {f for s in starts for f in range(s, min(frames, s + 100))} == set(range(frames))


def test_a_sounds_blocks_are_averaged_and_no_other_sounds_are():
    long, short = torch.randn(25, 3), torch.randn(10, 3)
    found = mean_over_blocks(Encoder().collate([long[None], short[None]]), 10, lambda blocks: blocks.sum(1))
    expected = torch.stack([long[s : s + 10].sum(0) for s in (0, 5, 10, 15)]).mean(0)
    assert torch.allclose(found, torch.stack([expected, short.sum(0)]), atol=1e-5)


@pytest.mark.parametrize(("rate", "lower"), [(44100, 16000), (44100, 44100), (48000, 16000)])
def test_resampling_is_scipys(rate, lower):
    sound = noise(rate // 3)
    expected = scipy.signal.resample(sound.double().numpy(), round(len(sound) * lower / rate))
    assert resample(sound, rate, lower).tolist() == pytest.approx(expected.tolist(), abs=2e-3)


def test_side_by_side_each_encoder_hears_what_it_hears_alone():
    torch.manual_seed(0)
    parts = {"yamnet": YAMNet(), "aisfx": AiSFX()}
    encoder = Concatenated(parts).eval()
    assert (encoder.rate, encoder.dim) == (44100, 1024 + 512)
    long, short = noise(3 * 44100), noise(4410, 1)
    with torch.no_grad():
        together = encoder(encoder.prepare([long, short]))
        collated = encoder(encoder.collate([encoder.prepare([long]), encoder.prepare([short])]))
        for row, sound in enumerate((long, short)):
            first = parts["yamnet"](parts["yamnet"].prepare([resample(sound, 44100, 16000)]))[0]
            second = parts["aisfx"](parts["aisfx"].prepare([sound]))[0]
            assert torch.allclose(together[row], torch.cat([first, second]), atol=1e-5)
    assert torch.allclose(together, collated, atol=1e-5)


def test_encoders_side_by_side_are_read_back_as_they_were(tmp_path):
    encoder = Concatenated({"a": YAMNet(middle=True), "b": AiSFX(top=8000)}).eval()
    save_encoder(encoder, tmp_path)
    again = load_encoder(tmp_path)
    assert again.config == encoder.config
    with torch.no_grad():
        prepared = encoder.prepare([noise(44100)])
        assert torch.equal(again(prepared), encoder(prepared))


def test_what_cannot_stand_beside_other_encoders_is_refused(tmp_path):
    from unialign_gen.encoders.minilm import MiniLM

    with pytest.raises(InputError, match="text cannot stand beside"):
        Concatenated({"yamnet": YAMNet(), "text": MiniLM(find("starter") / "aligner" / "text" / "tokenizer.json")})
    with pytest.raises(InputError, match="nothing cannot stand beside"):
        Concatenated({})
    save_encoder(Concatenated({"a": YAMNet()}), tmp_path)
    (tmp_path / "config.json").write_text('{"encoder": "concatenated", "parts": {"a": "yamnet"}}')
    with pytest.raises(InputError, match="configurations by name"):
        load_encoder(tmp_path)


def test_the_starter_keeps_word_embeddings_and_yamnet_in_quantised():
    words = load_file(find("starter") / "aligner" / "text" / "model.safetensors")
    assert words["net.embeddings.word_embeddings.weight"].dtype == torch.int8
    heard = load_file(AUDIO / "model.safetensors")
    kernels = [v for k, v in heard.items() if k.startswith("parts.yamnet.") and v.ndim > 1]
    assert len(kernels) == 27
    assert {v.dtype for v in kernels} == {torch.int8}
    assert all(int(v.flatten(1).abs().amax(1).min()) == 127 for v in kernels)


def test_half_leaves_what_quantised_are_made_of_as_it_is():
    encoder = Concatenated({"yamnet": YAMNet(), "aisfx": AiSFX()})
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    packed = recipe.quantised(encoder)
    assert len(packed) == 27
    for name, value in recipe.half(encoder, packed).state_dict().items():
        if name in packed:
            assert torch.equal(value, before[name])
        elif ".bn" not in name:
            assert value.dtype == torch.float16


def test_quantised_are_half_a_step_off_at_most_and_no_more_the_second_time():
    state = {"w": torch.randn(5, 4, 3), "b": torch.randn(5)}
    packed = pack(state, ["w"])
    assert packed["w"].dtype == torch.int8
    read = unpack(packed)
    assert set(read) == {"w", "b"}
    step = state["w"].flatten(1).abs().amax(1) / 127
    assert bool(((read["w"] - state["w"]).abs().flatten(1).amax(1) <= step / 2 + 1e-6).all())
    assert torch.equal(read["b"], state["b"])
    assert torch.equal(pack(read, ["w"])["w"], packed["w"])
    assert float(unpack(pack({"w": torch.zeros(2, 2)}, ["w"]))["w"].abs().max()) == 0


def test_a_encoder_in_quantised_is_a_encoder(tmp_path):
    encoder = YAMNet().eval()
    save_encoder(encoder, tmp_path, ["layers.3.pointwise.weight"])
    again = load_encoder(tmp_path)
    assert torch.equal(again.first.weight, encoder.first.weight)
    assert torch.allclose(again.layers[3].pointwise.weight, encoder.layers[3].pointwise.weight, atol=2e-3)
    state = load_file(tmp_path / "model.safetensors")
    del state["layers.3.pointwise.weight_scale"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="pointwise"):
        load_encoder(tmp_path)
