import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from unialign_gen.encoders import load_encoder, save_encoder
from unialign_gen.encoders.aisfx import FRAMES, HOP, MELS, RATE, WINDOW, AiSFX, low_pass, mel_filters
from unialign_gen.errors import InputError
from unialign_gen.loading import find

ALIGNER = find("starter") / "aligner"


def test_mel_filters_one_weight_at_a_time():
    def hertz(mel):
        return 700 * (10 ** (mel / 2595) - 1)

    top = 2595 * math.log10(1 + 22050 / 700)
    edges = [hertz(top * i / (MELS + 1)) for i in range(MELS + 2)]
    filters = mel_filters()
    for band in (0, 20, 60, 95):
        low, mid, high = edges[band : band + 3]
        weights = []
        for k in range(WINDOW // 2 + 1):
            f = k * RATE / WINDOW
            up, down = (f - low) / (mid - low), (high - f) / (high - mid)
            weights.append(max(0.0, min(up, down)))
        total = sum(weights)
        expected = torch.tensor([w / total for w in weights])
        assert torch.allclose(filters[:, band], expected, atol=1e-3 * float(expected.max()))


def test_a_tone_lights_up_its_mel_band():
    encoder = AiSFX()
    t = torch.arange(3 * RATE) / RATE
    mel = encoder.mel(torch.sin(2 * math.pi * 1000 * t))
    band = int(mel[50:90].mean(0).argmax())
    assert band == pytest.approx(
        2595 * math.log10(1 + 1000 / 700) / (2595 * math.log10(1 + 22050 / 700)) * (MELS + 1) - 1, abs=1
    )
    assert float(mel.max()) <= 1.0
    assert len(mel) == 3 * RATE // HOP + 1


def test_sound_features_do_not_depend_on_the_batch_or_on_gain():
    encoder = load_encoder(ALIGNER / "audio")
    noise = torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
    short = noise[:RATE]
    together = encoder(encoder.prepare([noise, short]))
    alone = torch.cat([encoder(encoder.prepare([noise * 0.1])), encoder(encoder.prepare([short * 3]))])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_middle_layers_features_stand_before_the_last_ones():
    torch.manual_seed(0)
    both, last = AiSFX(middle=True).eval(), AiSFX().eval()
    last.load_state_dict(both.state_dict())
    blocks = torch.rand(2, FRAMES, MELS)
    with torch.no_grad():
        found = both.embed(blocks)
        x = blocks[:, None]
        for block in both.blocks[:3]:
            x = block(x)
        assert torch.allclose(found[:, 256:], last.embed(blocks))
    assert found.shape == (2, both.dim)
    assert last.dim == 512
    loudest = max(float(x[0, 7, t].mean()) for t in range(x.shape[2]))
    assert float(found[0, 7]) == pytest.approx(loudest, abs=1e-6)


def test_what_lies_above_the_top_is_cut_off():
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    low, high = torch.sin(2 * math.pi * 440 * t).float(), torch.sin(2 * math.pi * 12000 * t).float()
    assert torch.allclose(low_pass(low + high, 8000), low, atol=1e-4)
    assert torch.allclose(low_pass(low + high, 13000), low + high, atol=1e-4)
    limited, free = AiSFX(top=8000), AiSFX()
    assert torch.allclose(limited.mel(low + 3 * high), limited.mel(low), atol=1e-3)
    assert not torch.allclose(free.mel(low + 3 * high), free.mel(low), atol=1e-1)


def test_image_features_end_in_timms_own_pooled_features():
    encoder = load_encoder(ALIGNER / "image")
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    features = encoder(pixels)
    assert features.shape == (2, encoder.dim)
    assert torch.allclose(features[:, :1280], encoder.net(pixels), atol=1e-4)


def test_pictures_are_padded_with_white_not_cropped():
    encoder = load_encoder(ALIGNER / "image")
    pixels = encoder.prepare([Image.new("RGB", (50, 200), "black")])
    assert pixels.shape == (1, 3, 224, 224)
    assert float(pixels[0, :, 112, 10].min()) == pytest.approx(1, abs=1e-3)
    assert float(pixels[0, :, 5, 112].max()) == pytest.approx(-1, abs=1e-3)


def test_sentence_features_are_transformers_mean_pooled(tmp_path):
    from transformers import BertModel, PreTrainedTokenizerFast

    encoder = load_encoder(ALIGNER / "text")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(ALIGNER / "text" / "tokenizer.json"), pad_token="[PAD]")
    reference = BertModel(encoder.net.config, add_pooling_layer=False).eval()
    reference.load_state_dict(encoder.net.state_dict())
    texts = ["a dog", "the sound of heavy rain on a tin roof"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    expected = torch.stack([h[m.bool()].mean(0) for h, m in zip(hidden, batch["attention_mask"], strict=True)])
    assert torch.allclose(encoder(encoder.prepare(texts)), expected, atol=1e-5)


def test_a_encoder_survives_saving(tmp_path):
    encoder = load_encoder(ALIGNER / "audio")
    save_encoder(encoder, tmp_path)
    again = load_encoder(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_folder_without_a_encoder_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no encoder in"):
        load_encoder(tmp_path)


def test_threads_load_one_after_the_other():
    """A library that builds a model without weights does so for every thread's modules: ours wait."""
    from accelerate import init_empty_weights

    from unialign_gen.encoders.registry import LOADING

    with ThreadPoolExecutor() as pool:
        with LOADING, init_empty_weights():
            waiting = pool.submit(load_encoder, ALIGNER / "text")
            time.sleep(0.3)
            assert not waiting.done()
        assert all(p.device.type == "cpu" for p in waiting.result().parameters())
