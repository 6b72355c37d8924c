"""The starter's second decoder, with the weights that ship: Stable UnCLIP's architecture on the first one's encoders."""

import numpy as np
import pytest
import torch
from conftest import tone, write_wav
from PIL import Image
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.pipelines import UniAlignStableUnCLIPPipeline

FEW = {"num_inference_steps": 2, "output_type": "np", "upscale": 1}


@pytest.fixture(scope="module")
def second():
    pipeline = unialign_gen.load("starter", decoder="stable-unclip")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_is_the_published_architecture_with_the_starters_encoders(second, starter):
    assert type(second) is UniAlignStableUnCLIPPipeline
    assert second.unet.config.class_embed_type == "projection"
    assert second.unet.config.projection_class_embeddings_input_dim == 2 * second.aligner.embed_dim
    assert second.scheduler.config.prediction_type == "v_prediction"
    assert torch.allclose(second.embed(text="a dog"), starter.embed(text="a dog"), atol=1e-6)


def test_its_autoencoder_is_the_first_decoders(second, starter):
    z = torch.randn(1, starter.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a = second.vae.decode(z / second.vae.config.scaling_factor).sample
        b = starter.movq.decode(z, force_not_quantize=True).sample
    assert torch.allclose(a, b, atol=1e-3)


def test_same_seed_same_bytes_and_a_batch_is_its_single_calls(second):
    texts = ["dog", "red car", "piano"]
    together = second(text=texts, seed=[4, 5, 6], **FEW).images
    again = second(text=texts, seed=[4, 5, 6], **FEW).images
    assert np.array_equal(together, again)
    for i, text in enumerate(texts):
        assert np.abs(second(text=text, seed=4 + i, **FEW).images[0] - together[i]).max() < 1e-3


def test_sound_and_words_move_the_picture(second, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1, 22050), 22050)
    plain, told = (second(audio=str(wav), seed=0, decoder_prompt=p, **FEW).images for p in (None, "a red car"))
    assert plain.ndim == 4
    assert plain.shape[0] == 1
    assert not np.array_equal(plain, told)
    noised = second(audio=str(wav), seed=0, noise_level=500, **FEW).images
    assert not np.array_equal(plain, noised)


def test_the_command_line_draws_with_it(tmp_path):
    out = tmp_path / "x.png"
    command = ["generate", "--text", "a dog", "--steps", "2", "--out", str(out), "--decoder"]
    assert CliRunner().invoke(app, [*command, "stable-unclip"]).exit_code == 0
    assert Image.open(out).size == unialign_gen.load("starter")("a dog", seed=0, num_inference_steps=1).images[0].size
    wrong = CliRunner().invoke(app, [*command, "dalle"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_loads_in_silence(capfd, dtype):
    pipeline = unialign_gen.load("starter", decoder="stable-unclip", dtype=dtype)
    assert pipeline.vae.dtype == dtype
    assert "should be kept" not in capfd.readouterr().err


def test_choosing_keeps_each_prompts_own_words(second):
    """A list of words goes with the prompts, as in a call; one of another length is refused."""
    few, prompts, words = {"num_inference_steps": 2, "upscale": 1}, ["dog", "red car"], ["a cat", "a ship"]
    chosen = second(text=prompts, seed=4, best_of=3, decoder_prompt=words, **few).images
    for i, picture in enumerate(chosen):
        one = second(text=prompts[i], seed=4 + i, best_of=3, decoder_prompt=words[i], **few).images[0]
        other = second(text=prompts[i], seed=4 + i, best_of=3, decoder_prompt=words[1 - i], **few).images[0]
        off = [np.abs(np.asarray(picture).astype(int) - np.asarray(p).astype(int)).max() for p in (one, other)]
        assert off[0] <= 1 < off[1]
    with pytest.raises(InputError, match="1 values of decoder_prompt for 2 prompts"):
        second(text=prompts, best_of=2, decoder_prompt=["a cat"], **few)
