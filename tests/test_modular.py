"""The modular blocks: beside our own pipelines, and in front of decoders that are diffusers' alone."""

import numpy as np
import pytest
import torch
from conftest import tone
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    KandinskyV22Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.modular_pipelines import (
    InputParam,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from diffusers.modular_pipelines.stable_diffusion_xl.encoders import StableDiffusionXLIPAdapterStep
from diffusers.modular_pipelines.stable_diffusion_xl.modular_blocks_stable_diffusion_xl import StableDiffusionXLCoreDenoiseStep
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.media import Sound
from unialign_gen.mixing import mix
from unialign_gen.notes import collected
from unialign_gen.pipelines import EmbedScale
from unialign_gen.pipelines.modular import UniAlignEmbedStep, UniAlignMixStep

FEW = {"num_inference_steps": 2}
D = 24
WORDS = 16  # width of the words that the small decoders attend to


class ShiftStep(ModularPipelineBlocks):
    """Somebody else's step: reads the state's embeddings and adds one number of its own."""

    @property
    def inputs(self):
        return [InputParam("image_embeds", required=True), InputParam("shift", default=0.0)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("shifted")]

    def __call__(self, components, state):
        block = self.get_block_state(state)
        block.shifted = block.image_embeds + block.shift
        self.set_block_state(state, block)
        return components, state


@pytest.fixture(scope="module")
def embed(starter):
    pipeline = UniAlignEmbedStep().init_pipeline()
    pipeline.update_components(aligner=starter.aligner, embed_scale=starter.embed_scale, prior=starter.prior)
    return pipeline


@pytest.fixture
def mixer():
    return UniAlignMixStep().init_pipeline()


def vectors(n: int, d: int = D, norm: float = 9.0, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1) * norm


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Greatest difference, as a share of the greatest value: an untrained decoder's latents grow large."""
    return float((a - b).abs().max() / b.abs().max())


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def test_the_embedding_step_is_the_pipelines_embedding_at_decoder_scale(starter, embed):
    sound = Sound(torch.from_numpy(tone(1, 16000)[:, 0]).float(), 16000)
    call = {"text": ["a dog", "a cat"], "audio": sound, "weights": {"audio": -0.3}, "mix": "lerp"}
    state = embed(num_images_per_prompt=2, **call)
    rows = starter.embed_scale(starter.embed(**call))
    assert torch.equal(state.image_embeds, rows[[0, 0, 1, 1]])
    negative = starter.embed_scale.negative_image_embeds
    assert torch.equal(state.negative_image_embeds, negative.expand(4, -1))
    assert torch.equal(state.ip_adapter_embeds[0], rows[:, None])  # one a prompt
    assert not close(embed(text="a dog", output="image_embeds"), rows[:1])


@pytest.mark.parametrize("text", ["a car key", "a cat and a car", "a red wagon"])
def test_the_embedding_step_knows_by_name_what_the_pipeline_does(starter, embed, text):
    with collected() as notes:
        rows = embed(text=text, output="image_embeds")
    expected = starter.embed(text=text)
    assert close(rows, starter.embed_scale(expected))
    assert notes == expected.notes


def test_the_prior_is_optional_and_its_strength_an_input(starter, embed):
    own = starter.embed_scale(starter.aligner.embed("text", ["a dog"]))
    assert close(embed(text="a dog", prior_strength=0, output="image_embeds"), own)
    expected = starter.embed_scale(starter.embed(text="a dog", prior_strength=0.2))
    assert close(embed(text="a dog", prior_strength=0.2, output="image_embeds"), expected)
    without = UniAlignEmbedStep().init_pipeline()
    without.update_components(aligner=starter.aligner, embed_scale=starter.embed_scale)
    assert close(without(text="a dog", output="image_embeds"), own)
    with pytest.raises(InputError, match="no prior"):
        without(text="a dog", prior_strength=0.5)


def test_dtype_is_the_callers(embed, mixer):
    for state in (embed(text="a dog", dtype=torch.bfloat16), mixer(embeds=vectors(1), dtype=torch.bfloat16)):
        tensors = [state.image_embeds, *state.ip_adapter_image_embeds, *state.negative_ip_adapter_embeds]
        assert {t.dtype for t in tensors} == {torch.bfloat16}
    assert embed(text="a dog", dtype=torch.bfloat16, output="negative_image_embeds").dtype == torch.bfloat16


def test_diffusers_own_decoder_draws_our_picture_bit_for_bit(starter, embed):
    theirs = KandinskyV22Pipeline(unet=starter.unet, scheduler=starter.scheduler, movq=starter.movq)
    theirs.set_progress_bar_config(disable=True)
    state = embed(text=("a blue fish", "the sea"), weights={"text": (0.7, 0.3)}, mix="slerp")
    got = theirs(
        **state.get(["image_embeds", "negative_image_embeds"]),
        height=starter.sample_side,
        width=starter.sample_side,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **FEW,
    ).images
    options = {"weights": {"text": (0.7, 0.3)}, "mix": "slerp", "guidance_scale": 3.0, "seed": 5, **FEW}
    options |= {"upscale": 1, "output_type": "np", "prior_temperature": 0}  # the step gives the mean
    assert np.array_equal(got, starter(text=("a blue fish", "the sea"), **options).images)
    assert not np.array_equal(got, starter(text=("the sea", "a blue fish"), **options).images)


@pytest.mark.parametrize("method", ["lerp", "slerp", "spherical_mean"])
def test_the_mixing_step_mixes_a_tuple_and_keeps_the_scale(mixer, method):
    a, b = vectors(2)
    state = mixer(embeds=[(a, 3 * b), (b, b)], weights=[1, 3], mix=method)
    expected = mix([a, b], [1, 3], method) * (9 + 3 * 27) / 4
    assert close(state.image_embeds, torch.stack([expected, b]))


def test_scale_raw_unit_or_the_consumers_own(mixer):
    raw = vectors(3)
    assert close(mixer(embeds=raw, output="image_embeds"), raw)
    assert close(mixer(embeds=raw[0], output="image_embeds"), raw[:1])
    assert close(mixer(embeds=raw / 9, output="image_embeds"), raw / 9)
    assert close(mixer(embeds=raw.half(), output="image_embeds"), raw.half().float())
    mixer.update_components(embed_norm=20.0)
    assert close(mixer(embeds=raw, output="image_embeds").norm(dim=1), torch.full((3,), 20.0))


def test_weights_as_a_number_a_list_or_our_mapping(mixer):
    a, b = vectors(2)
    expected = mixer(embeds=(a, b), weights=[1, -0.4], output="image_embeds")
    assert close(expected[0], mix([a, b], [1, -0.4]) * 9)
    assert torch.equal(expected, mixer(embeds=(a, b), weights={"embeds": (1, -0.4)}, output="image_embeds"))
    assert close(mixer(embeds=(a, b), weights=2, output="image_embeds"), mixer(embeds=(a, b), output="image_embeds"))


def test_in_a_sequence_with_a_step_that_is_not_ours(starter):
    blocks = SequentialPipelineBlocks.from_blocks_dict({"embed": UniAlignEmbedStep, "shift": ShiftStep})
    assert blocks.required_inputs == ["image_embeds"]
    assert "image_embeds" not in blocks.input_names  # it comes from our step
    pipeline = blocks.init_pipeline()
    pipeline.update_components(aligner=starter.aligner, embed_scale=starter.embed_scale, prior=starter.prior)
    shifted = pipeline(text="a dog", shift=0.5, output="shifted")
    assert torch.equal(shifted, starter.embed_scale(starter.embed(text="a dog")) + 0.5)

    alone = SequentialPipelineBlocks.from_blocks_dict({"mix": UniAlignMixStep(), "shift": ShiftStep()}).init_pipeline()
    assert not alone.components
    assert close(alone(embeds=vectors(2), shift=1.0, output="shifted"), vectors(2) + 1)


def test_a_checkpoint_of_ours_opens_as_blocks_and_a_saved_one_again(starter, tmp_path):
    expected = starter.embed_scale(starter.embed(text="a dog"))
    first = UniAlignEmbedStep().init_pipeline(str(shipped_folder() / "starter"))
    first.load_components()
    assert torch.equal(first(text="a dog", output="image_embeds"), expected)
    folder = str(tmp_path / "saved")
    first.save_pretrained(folder, overwrite_modular_index=True)
    for options in ({}, {"pretrained_model_name_or_path": str(tmp_path / "moved")}):
        if options:
            folder = str((tmp_path / "saved").rename(tmp_path / "moved"))
        again = UniAlignEmbedStep().init_pipeline(folder)
        again.load_components(**options)
        assert str(again.aligner.folder).startswith(folder)
        state = again(text="a dog")
        assert torch.equal(state.image_embeds, expected)
        assert torch.equal(state.negative_image_embeds, starter.embed_scale.negative_image_embeds)


def test_a_saved_norm_comes_back(mixer, tmp_path):
    mixer.update_components(embed_norm=20.0)
    mixer.save_pretrained(str(tmp_path), overwrite_modular_index=True)
    again = UniAlignMixStep().init_pipeline(str(tmp_path))
    assert float(again(embeds=vectors(1), output="image_embeds").norm()) == pytest.approx(20)


def adapter(unet: UNet2DConditionModel) -> dict:
    """Random weights of an IP-Adapter for a UNet, named as the published ones are."""
    make = torch.Generator().manual_seed(3)
    layers = {}
    widths = unet.config.block_out_channels
    for i, name in enumerate(n for n in unet.attn_processors if n.endswith("attn2.processor")):
        at = name.split(".")
        width = {"mid_block": widths[-1]}.get(at[0]) or (widths if at[0] == "down_blocks" else widths[::-1])[int(at[1])]
        for part in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * i + 1}.{part}.weight"] = torch.randn(width, WORDS, generator=make)
    projection = {
        "proj.weight": torch.randn(4 * WORDS, D, generator=make) / D,
        "proj.bias": torch.randn(4 * WORDS, generator=make),
        "norm.weight": torch.ones(WORDS),
        "norm.bias": torch.zeros(WORDS),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def small_unet(**options) -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=WORDS,
        **options,
    )
    return unet.eval()


def small_encoder() -> dict:
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
        projection_dim=D,
    )
    return {
        "image_encoder": CLIPVisionModelWithProjection(config).eval(),
        "feature_extractor": CLIPImageProcessor(),
    }


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


def raw_embedding(encoder: dict, image: Image.Image) -> torch.Tensor:
    pixels = encoder["feature_extractor"](image, return_tensors="pt").pixel_values
    with torch.no_grad():
        return encoder["image_encoder"](pixels).image_embeds


@pytest.fixture(scope="module")
def foreign() -> StableDiffusionPipeline:
    """A small random Stable Diffusion with an IP-Adapter and its vision encoder."""
    torch.manual_seed(2)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4).eval()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=small_unet(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        requires_safety_checker=False,
        **small_encoder(),
    )
    pipeline.load_ip_adapter(adapter(pipeline.unet), subfolder="", weight_name="")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, **options) -> np.ndarray:
    words = torch.randn(1, 5, WORDS, generator=torch.Generator().manual_seed(4))
    seed = torch.Generator().manual_seed(6)
    options = {
        "prompt_embeds": words,
        "negative_prompt_embeds": -words,
        "generator": seed,
        "output_type": "np",
        **FEW,
        **options,
    }
    return pipeline(**options).images


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_an_ip_adapter_takes_a_mix_as_it_takes_a_picture(foreign, mixer, guidance):
    encoder = {"image_encoder": foreign.image_encoder, "feature_extractor": foreign.feature_extractor}
    a, b = (raw_embedding(encoder, picture(i))[0] for i in range(2))
    options = {"do_classifier_free_guidance": guidance > 1, "output": "ip_adapter_image_embeds"}
    ours = mixer(embeds=a, **options)
    theirs = foreign.prepare_ip_adapter_image_embeds(picture(0), None, "cpu", 1, guidance > 1)
    assert [t.shape for t in ours] == [t.shape for t in theirs] == [(2 if guidance > 1 else 1, 1, D)]
    assert close(ours[0], theirs[0])
    expected = draw(foreign, ip_adapter_image=picture(0), guidance_scale=guidance)
    drawn = draw(foreign, ip_adapter_image_embeds=ours, guidance_scale=guidance)
    assert np.allclose(drawn, expected, atol=1e-4)
    for other in (b, (a, b), a / a.norm()):  # another one, a mix, and the same at the wrong scale
        changed = draw(foreign, ip_adapter_image_embeds=mixer(embeds=other, **options), guidance_scale=guidance)
        assert np.abs(changed - expected).max() > 1e-3


def test_several_pictures_of_one_embedding(foreign, mixer):
    state = mixer(embeds=vectors(1))
    seeds = [torch.Generator().manual_seed(s) for s in (6, 8)]
    given = {"ip_adapter_image_embeds": state.ip_adapter_image_embeds}
    both = draw(foreign, generator=seeds, num_images_per_prompt=2, **given)
    assert np.allclose(both[:1], draw(foreign, **given), atol=1e-4)
    assert np.abs(both[0] - both[1]).max() > 1e-3


@pytest.fixture(scope="module")
def denoise():
    """Draws latents with diffusers' own modular steps for SDXL, small and random, behind a step for the IP-Adapter."""
    unet = small_unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + WORDS
    )
    unet._load_ip_adapter_weights([adapter(unet)])
    given = {"unet": unet, "scheduler": EulerDiscreteScheduler(), "image_encoder": small_encoder()["image_encoder"]}
    words = torch.randn(1, 5, WORDS, generator=torch.Generator().manual_seed(4))
    pooled = torch.randn(1, WORDS, generator=torch.Generator().manual_seed(5))

    def latents(step: type, prompts: int = 1, **inputs) -> torch.Tensor:
        blocks = SequentialPipelineBlocks.from_blocks_dict({"adapter": step, "core": StableDiffusionXLCoreDenoiseStep})
        pipeline = blocks.init_pipeline()
        pipeline.update_components(**{k: v for k, v in given.items() if k in pipeline.component_names})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=words.expand(prompts, -1, -1),
            negative_prompt_embeds=-words.expand(prompts, -1, -1),
            pooled_prompt_embeds=pooled.expand(prompts, -1),
            negative_pooled_prompt_embeds=-pooled.expand(prompts, -1),
            generator=[torch.Generator().manual_seed(7) for _ in range(prompts * inputs.get("num_images_per_prompt", 1))],
            height=64,
            width=64,
            output="latents",
            **FEW,
            **inputs,
        )

    return latents


def test_in_place_of_diffusers_own_step_of_modular_sdxl(denoise):
    raw = raw_embedding(small_encoder(), picture())
    expected = denoise(StableDiffusionXLIPAdapterStep, ip_adapter_image=picture(), num_images_per_prompt=2)
    assert apart(denoise(UniAlignMixStep, embeds=raw, num_images_per_prompt=2), expected) < 1e-4
    assert apart(denoise(UniAlignMixStep, embeds=-raw, num_images_per_prompt=2), expected) > 1e-2


def test_a_batch_goes_through_modular_steps_and_not_as_an_argument(denoise, mixer):
    rows = vectors(3)
    together = denoise(UniAlignMixStep, 3, embeds=rows)
    for i in range(3):
        assert apart(together[i], denoise(UniAlignMixStep, embeds=rows[i])[0]) < 1e-4
    assert apart(together[0], together[1]) > 1e-2
    state = mixer(embeds=rows)
    assert state.ip_adapter_image_embeds is None
    assert [t.shape for t in state.ip_adapter_embeds] == [(3, 1, D)]
    assert close(state.negative_ip_adapter_embeds[0], torch.zeros(3, 1, D))
    assert mixer(embeds=rows, do_classifier_free_guidance=False).negative_ip_adapter_embeds is None


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({}, "nothing to draw"),
        ({"text": ""}, "empty"),
        ({"text": "a", "num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"text": "a", "num_images_per_prompt": 1.5}, "num_images_per_prompt"),
        ({"text": "a", "weights": [0.5]}, "name the modality"),
        ({"text": "a", "weights": {"audio": 1.0}}, "no such prompt"),
        ({"text": "a", "mix": "sum"}, "mix must be 'lerp'"),
        ({"embeds": torch.ones(7)}, "256 values"),
    ],
)
def test_prompts_that_cannot_be_used_are_one_line(embed, call, line):
    with pytest.raises(InputError, match=line) as error:
        embed(**call)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({}, "give embeds"),
        ({"embeds": []}, "empty list"),
        ({"embeds": torch.zeros(0, 4)}, "empty list"),
        ({"embeds": torch.zeros(D)}, "zero vector"),
        ({"embeds": torch.full((D,), float("inf"))}, "infinite"),
        ({"embeds": torch.ones(2, 3, D)}, "values a prompt"),
        ({"embeds": [torch.ones(D), torch.ones(7)]}, "values a prompt"),
        ({"embeds": (torch.ones(D), torch.ones(7))}, "values a prompt"),
        ({"embeds": "a dog"}, "vectors of numbers"),
        ({"embeds": (torch.ones(D), -torch.ones(D))}, "cancel out"),
        ({"embeds": torch.ones(D), "weights": [1, 2]}, "2 weights for 1"),
        ({"embeds": torch.ones(D), "weights": {"text": 1}}, "no such prompt"),
        ({"embeds": torch.ones(D), "weights": "much"}, "numbers"),
        ({"embeds": torch.ones(D), "weights": float("nan")}, "finite"),
        ({"embeds": torch.ones(D), "mix": "slerp"}, "exactly two"),
    ],
)
def test_embeddings_that_cannot_be_mixed_are_one_line(mixer, call, line):
    with pytest.raises(InputError, match=line) as error:
        mixer(**call)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf"), "big"])
def test_a_norm_that_is_none(mixer, norm):
    mixer.update_components(embed_norm=norm)
    with pytest.raises(InputError, match="embed_norm"):
        mixer(embeds=vectors(1))


def test_components_that_are_missing_or_do_not_fit(starter):
    pipeline = UniAlignEmbedStep().init_pipeline()
    with pytest.raises(InputError, match="no aligner yet"):
        pipeline(text="a dog")
    pipeline.update_components(aligner=starter.aligner)
    with pytest.raises(InputError, match="no embed_scale yet"):
        pipeline(text="a dog")
    pipeline.update_components(embed_scale=EmbedScale(7))
    with pytest.raises(InputError, match="256 values, embed_scale takes 7"):
        pipeline(text="a dog")
