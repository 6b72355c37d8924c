"""Stable UnCLIP's pipeline: small random models of the published classes, beside diffusers' own pipeline."""

import sys

import numpy as np
import processes
import pytest
import torch
from conftest import tone, write_wav
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

import unialign_gen
from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.pipelines import EmbedScale, UniAlignStableUnCLIPPipeline

D = 256
FEW = {"num_inference_steps": 3}


def words() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "oil", "painting", "photo"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=8)


def parts() -> dict:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=D,
    )
    normalizer = StableUnCLIPImageNormalizer(D)
    normalizer.mean.data.normal_()
    normalizer.std.data.uniform_(0.5, 2)
    return {
        "feature_extractor": CLIPImageProcessor(size=32, crop_size=32),
        "image_encoder": CLIPVisionModelWithProjection(vision).eval(),
        "image_normalizer": normalizer,
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "tokenizer": words(),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=7,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=2,
                max_position_embeddings=8,
                eos_token_id=3,
            )
        ).eval(),
        "unet": UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            attention_head_dim=(2, 4),
            cross_attention_dim=32,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * D,
            use_linear_projection=True,
        ).eval(),
        "scheduler": DDIMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear", clip_sample=False),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            latent_channels=4,
        ).eval(),
    }


@pytest.fixture(scope="module")
def pair() -> tuple:
    """Ours without a vision encoder, and diffusers' own with the same parts."""
    made = parts()
    theirs = StableUnCLIPImg2ImgPipeline(**made)
    aligner = Aligner.from_pretrained(shipped_folder() / "starter" / "aligner")
    own = {k: v for k, v in made.items() if k not in ("feature_extractor", "image_encoder")}
    ours = UniAlignStableUnCLIPPipeline(aligner=aligner, embed_scale=EmbedScale(D, 20.0, 1.0), **own)
    for pipeline in (ours, theirs):
        pipeline.set_progress_bar_config(disable=True)
    return ours, theirs


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("guidance", [1.0, 7.0])
@pytest.mark.parametrize("level", [0, 300])
def test_pictures_are_those_of_diffusers_own_pipeline(pair, guidance, level):
    ours, theirs = pair
    z = vectors(2)
    seeds = [torch.Generator().manual_seed(s) for s in (5, 6)]
    expected = theirs(
        prompt=["oil painting", "photo"],
        negative_prompt=["", ""] if guidance > 1 else None,
        image_embeds=z * 20,
        guidance_scale=guidance,
        noise_level=level,
        generator=seeds,
        output_type="np",
        **FEW,
    ).images
    got = ours(
        image_embeds=z * 20,
        seed=[5, 6],
        decoder_prompt=["oil painting", "photo"],
        guidance_scale=guidance,
        noise_level=level,
        output_type="np",
        **FEW,
    ).images
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_several_pictures_a_prompt_are_single_calls(pair, guidance):
    ours, _ = pair
    z = vectors(2)
    together = ours(embeds=z, seed=3, num_images_per_prompt=2, guidance_scale=guidance, output_type="np", **FEW).images
    assert len(together) == 4
    for i in range(4):
        alone = ours(embeds=z[i // 2], seed=3 + i, guidance_scale=guidance, output_type="np", **FEW).images[0]
        assert np.abs(alone - together[i]).max() < 1e-4


def test_the_decoders_own_words_matter_and_are_not_the_prompt(pair):
    ours, _ = pair
    options = {"embeds": vectors(1), "seed": 1, "output_type": "np", **FEW}
    plain, oil = (ours(decoder_prompt=p, **options).images for p in (None, "oil painting"))
    assert not np.array_equal(plain, oil)
    assert np.array_equal(plain, ours(decoder_prompt="", **options).images)
    assert not np.array_equal(oil, ours(decoder_prompt="oil painting", negative_decoder_prompt="photo", **options).images)
    with pytest.raises(InputError, match="decoder_prompt"):
        ours(decoder_prompt=["a", "b"], **options)


def test_every_modality_goes_in(pair):
    ours, _ = pair
    assert len(ours(text=["a dog", "a cat"], seed=0, **FEW).images) == 2


def test_frames_of_an_interpolation_share_all_noise(pair):
    ours, _ = pair
    a, b = vectors(2)
    frames = ours.interpolate(a, b, 5, seed=7, output_type="np", noise_level=200, eta=1.0, **FEW).images
    alone = ours(embeds=b, seed=7, output_type="np", noise_level=200, eta=1.0, **FEW).images[0]
    assert np.abs(frames[-1] - alone).max() < 1e-4
    same = ours.interpolate(a, a, 3, seed=7, output_type="np", noise_level=200, eta=1.0, **FEW).images
    assert np.abs(same - same[:1]).max() < 1e-4


def test_given_latents_are_scaled_as_drawn_ones(pair):
    ours, _ = pair
    z = vectors(1)
    before = ours.scheduler
    ours.scheduler = EulerDiscreteScheduler.from_config(before.config)
    try:
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
        level = [torch.Generator().manual_seed(9) for _ in range(2)]
        torch.randn(1, D, generator=level[1])  # the embedding's noise comes first out of the generator
        drawn = torch.randn(1, 4, 8, 8, generator=level[1])
        got = ours(embeds=z, latents=drawn, generator=torch.Generator().manual_seed(9), output_type="np", **FEW).images
        expected = ours(embeds=z, generator=level[0], output_type="np", **FEW).images
        other = ours(embeds=z, latents=noise, generator=torch.Generator().manual_seed(9), output_type="np", **FEW).images
    finally:
        ours.scheduler = before
    assert np.allclose(got, expected, atol=1e-5)
    assert not np.allclose(other, expected, atol=1e-3)


def test_callback_sees_and_changes_latents(pair):
    ours, _ = pair
    seen = []

    def watch(pipeline, step, timestep, tensors):
        seen.append((step, int(timestep)))
        return tensors

    def wipe(pipeline, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])}

    options = {"embeds": vectors(1), "seed": 1, "output_type": "latent", **FEW}
    plain = ours(callback_on_step_end=watch, **options).images
    assert [s for s, _ in seen] == [0, 1, 2]
    assert torch.equal(plain, ours(**options).images)
    assert float(ours(callback_on_step_end=wipe, **options).images.abs().max()) == 0
    with pytest.raises(InputError, match="latents"):
        ours(callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["prompt_embeds"], **options)


def test_lora_weights_load_and_unload(pair, tmp_path):
    peft = pytest.importorskip("peft")
    ours, _ = pair
    options = {"embeds": vectors(1), "seed": 1, "output_type": "np", **FEW}
    plain = ours(**options).images
    ours.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "style")
    styled = ours(**options).images
    state = peft.get_peft_model_state_dict(ours.unet, adapter_name="style")
    ours.unload_lora_weights()
    assert np.array_equal(ours(**options).images, plain)
    StableUnCLIPImg2ImgPipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    ours.load_lora_weights(tmp_path)
    assert np.allclose(ours(**options).images, styled, atol=1e-5)
    ours.unload_lora_weights()
    assert not np.array_equal(plain, styled)


def test_saved_and_loaded_by_diffusers_it_is_the_same_class_and_the_same_picture(pair, tmp_path):
    ours, _ = pair
    ours.save_pretrained(tmp_path)
    assert not (tmp_path / "image_encoder").exists()
    z = vectors(1)
    expected = ours(embeds=z, seed=1, output_type="np", **FEW).images
    for again in (UniAlignStableUnCLIPPipeline.from_pretrained(tmp_path), DiffusionPipeline.from_pretrained(tmp_path)):
        again.set_progress_bar_config(disable=True)
        assert type(again) is UniAlignStableUnCLIPPipeline
        assert np.array_equal(again(embeds=z, seed=1, output_type="np", **FEW).images, expected)
    loaded = unialign_gen.load(str(tmp_path))
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(loaded(embeds=z, seed=1, output_type="np", **FEW).images, expected)
    half = unialign_gen.load(str(tmp_path), torch_dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    assert half.unet.dtype == torch.bfloat16
    assert np.isfinite(half(text="a dog", seed=1, output_type="np", **FEW).images).all()


@pytest.mark.parametrize("family", ["unclip", "kandinsky"])
def test_model_offload_runs_with_accelerates_own_hooks(pair, starter, family, tmp_path):
    from accelerate import cpu_offload_with_hook
    from accelerate.hooks import remove_hook_from_module

    like = pair[0] if family == "unclip" else starter
    # the aligner as it is before its first prompt: no encoder is loaded
    fresh = Aligner.from_pretrained(shipped_folder() / "starter" / "aligner")
    parts = {k: v for k, v in like.components.items() if k != "aligner"}
    ours = type(like)(**parts, aligner=fresh, default_guidance=like.config["default_guidance"])
    ours.set_progress_bar_config(disable=True)
    expected = like(text="a dog", seed=0, output_type="np", **FEW).images
    names = ours.model_cpu_offload_seq.split("->")
    assert set(names) | set(ours._exclude_from_cpu_offload) >= {
        n for n, part in ours.components.items() if isinstance(part, torch.nn.Module)
    }
    hook = None
    try:
        for name in names:
            _, hook = cpu_offload_with_hook(getattr(ours, name), torch.device("cpu"), prev_module_hook=hook)
        assert np.array_equal(ours(text="a dog", seed=0, output_type="np", **FEW).images, expected)
        ours(audio=write_wav(tmp_path / "a.wav", tone(1, 44100), 44100), seed=0, **FEW)
        ours(embeds=vectors(1), seed=0, **FEW)
    finally:
        for name in names:
            remove_hook_from_module(getattr(ours, name))


def print_class(folder):
    sys.stdout.write(type(DiffusionPipeline.from_pretrained(folder)).__name__)


def test_a_fresh_process_opens_a_saved_pipeline_with_diffusers(pair, tmp_path):
    ours, _ = pair
    ours.save_pretrained(tmp_path / "saved")
    process = processes.start(print_class, tmp_path / "saved")
    processes.finish(process)
    assert process.stdout.splitlines()[-1] == "UniAlignStableUnCLIPPipeline"


def test_frames_drawn_in_batches_are_the_same_frames(pair):
    ours, _ = pair
    a, b = vectors(2)
    whole, parts = (ours.interpolate(a, b, 5, seed=7, output_type="np", batch=n, **FEW).images for n in (8, 2))
    assert whole.shape == parts.shape
    assert np.abs(whole - parts).max() < 1e-4
    assert len(ours.interpolate(a.numpy(), b.tolist(), np.int64(3), batch=np.int64(2), **FEW).images) == 3
    call = {"seed": 7, "decoder_prompt": ["pencil", "oil", "ink"], "output_type": "np", **FEW}
    whole, parts = (ours.interpolate(a, b, 3, batch=n, **call).images for n in (8, 2))
    assert np.abs(whole - parts).max() < 1e-4
    with pytest.raises(InputError, match="a whole number of at least 2 frames"):
        ours.interpolate(a, b, 3.5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"noise_level": 1000}, "noise_level"),
        ({"noise_level": -1}, "noise_level"),
        ({"output_type": "jpg"}, "output_type"),
        ({"num_inference_steps": 0}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, "seed"),
        ({"latents": torch.zeros(1, 4, 8, 8), "seed": None, "height": 32}, r"tensor \(1, 4, 16, 8\)"),
    ],
)
def test_what_cannot_be_used_is_one_line(pair, options, line):
    ours, _ = pair
    with pytest.raises(InputError, match=line):
        ours(**{"embeds": vectors(1), "seed": 0, **options})
