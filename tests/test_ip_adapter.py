"""Decoders that take the embedding through an IP-Adapter, put together of local folders and files, beside diffusers' own."""

import inspect

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from test_published_checkpoints import tiny_clip
from tiny_decoders import adapter, base, controlnet, motion, single_file

import unialign_gen
from unialign_gen.errors import InputError
from unialign_gen.pipelines import EmbedScale

FEW = {"num_inference_steps": 2}
KINDS = {
    "sdxl-vit-h": ("sdxl", 1024, StableDiffusionXLPipeline),
    "sdxl-bigg": ("sdxl", 1280, StableDiffusionXLPipeline),
    "sd15-vit-h": ("sd15", 1024, StableDiffusionPipeline),
    "animatediff-vit-h": ("sd15", 1024, AnimateDiffPipeline),
}
PICTURES = [name for name in KINDS if name != "animatediff-vit-h"]


@pytest.fixture(scope="module")
def decoder_hub(tmp_path_factory):
    """Bases as folders and as single files, an adapter for each, a ControlNet for each base, a motion module, two CLIPs."""
    root = tmp_path_factory.mktemp("decoders")
    for kind in ("sdxl", "sd15"):
        single_file(kind, base(kind, root), root / f"{kind}.safetensors")
        controlnet(kind, root / f"controlnet-{kind}")
    for name, (kind, width, _) in KINDS.items():
        adapter(kind, width, root / f"{name}.safetensors")
    motion(root / "motion")
    for width in (1024, 1280):
        tiny_clip(root / f"clip-{width}", width)
        EmbedScale(width, embed_norm=12.0).save_pretrained(root / f"scale-{width}")
    return root


def sources(hub, name, single=False):
    kind, width, _ = KINDS[name]
    found = {
        "decoder": str(hub / kind),
        "adapter": str(hub / f"{name}.safetensors"),
        "embed_scale": str(hub / f"scale-{width}"),
    }
    found |= dict.fromkeys(("image", "text"), str(hub / f"clip-{width}"))
    if single:
        found |= {"decoder": str(hub / f"{kind}.safetensors"), "decoder_config": str(hub / kind)}
    if name == "animatediff-vit-h":
        return found | {"motion_adapter": str(hub / "motion")}
    return found | {"controlnet": str(hub / f"controlnet-{kind}")}


def load(hub, name, single=False, **more):
    made = unialign_gen.load(name, sources=sources(hub, name, single) | more)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def loaded(decoder_hub):
    """Pipelines by name, each loaded once."""
    found = {}

    def get(name):
        if name not in found:
            found[name] = load(decoder_hub, name)
        return found[name]

    return get


def diffusers_own(hub, name):
    """As diffusers itself puts it together."""
    kind, _, cls = KINDS[name]
    parts = {"motion_adapter": MotionAdapter.from_pretrained(hub / "motion")} if cls is AnimateDiffPipeline else {}
    made = cls.from_pretrained(hub / kind, **parts)
    made.load_ip_adapter(str(hub), subfolder="", weight_name=f"{name}.safetensors", image_encoder_folder=None)
    return made


def diffusers_with(ours, kind, **more):
    """One of diffusers' pipelines with the same components: the same tensors, so that not a bit may differ."""
    names = set(inspect.signature(kind.__init__).parameters) - {"self"}
    made = kind(**{n: getattr(ours, n) for n in names if hasattr(ours, n)} | more)
    made.set_progress_bar_config(disable=True)
    return made


def rows(width, count, seed=0):
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def given(row, guidance):
    """An embedding of raw norm as diffusers takes it: zeros before it under guidance."""
    return [torch.cat([torch.zeros_like(row), row])[:, None] if guidance > 1 else row[:, None]]


def noise(seed, count=1):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_weights_are_those_that_diffusers_loads(decoder_hub, loaded, name, single):
    ours = load(decoder_hub, name, single) if single else loaded(name)
    own = diffusers_own(decoder_hub, name)
    parts = [n for n, part in own.components.items() if isinstance(part, torch.nn.Module)]
    assert {"unet", "vae", "text_encoder"} <= set(parts)
    for part in parts:
        mine, theirs = getattr(ours, part).state_dict(), getattr(own, part).state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine), part
    if name == "animatediff-vit-h":
        config = ours.scheduler.config
        assert type(ours.scheduler) is DDIMScheduler
        assert (config.beta_schedule, config.timestep_spacing, config.clip_sample, config.steps_offset) == (
            *("linear", "linspace", False, 1),
        )


@pytest.mark.parametrize("guidance", [5.0, 1.0])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_that_of_diffusers_bit_for_bit(loaded, name, guidance):
    ours = loaded(name)
    own, z = diffusers_with(ours, KINDS[name][2]), rows(KINDS[name][1], 1) * 12  # at decoder scale
    options = {"guidance_scale": guidance, "output_type": "np", "num_images_per_prompt": 2, **FEW}
    for words in ({}, {"prompt": "a photo", "negative_prompt": "painting"}):
        texts = {"prompt": ""} | words
        expected = own(**texts, ip_adapter_image_embeds=given(z, guidance), generator=noise(3, 2), **options).images
        beside = {{"prompt": "decoder_prompt", "negative_prompt": "negative_decoder_prompt"}[k]: v for k, v in words.items()}
        got = ours(image_embeds=z, seed=3, **beside, **options).images
        assert np.array_equal(got, expected)
    assert got.std() > 0.01
    assert not np.array_equal(ours(image_embeds=-z, seed=3, **options).images, got)


@pytest.mark.parametrize("name", ["sdxl-vit-h", "sd15-vit-h"])
def test_a_batch_draws_each_prompts_own_picture(decoder_hub, name):
    # diffusers itself cannot draw several embeddings together: its pictures, one by one, in double precision
    ours = load(decoder_hub, name)
    own, z = diffusers_with(ours, KINDS[name][2]), rows(1024, 2).double() * 12
    for part in (ours.unet, ours.vae, ours.text_encoder, getattr(ours, "text_encoder_2", torch.nn.Identity())):
        part.double()
    options = {"num_images_per_prompt": 2, "guidance_scale": 5.0, "output_type": "np", **FEW}
    got = ours(image_embeds=z, seed=5, decoder_prompt=["a", "photo"], **options).images
    for i, words in enumerate(["a", "photo"]):
        row = given(z[i : i + 1], 5.0)
        expected = own(prompt=words, ip_adapter_image_embeds=row, generator=noise(5 + 2 * i, 2), **options).images
        assert np.allclose(got[2 * i : 2 * i + 2], expected, atol=1e-6)


@pytest.mark.parametrize(("frames", "guidance"), [(16, 7.5), (16, 1.0), (20, 7.5)])
def test_a_constant_path_is_diffusers_clip_bit_for_bit(loaded, frames, guidance):
    ours = loaded("animatediff-vit-h")
    z = rows(1024, 1)
    own = diffusers_with(ours, AnimateDiffPipeline)
    row, options = given(ours.embed_scale(z), guidance), {"guidance_scale": guidance, "output_type": "np", **FEW}
    if frames > 16:
        own.enable_free_noise(context_length=16, context_stride=4)
    expected = own(
        prompt="", ip_adapter_image_embeds=row, num_frames=frames, generator=torch.Generator().manual_seed(2), **options
    ).frames[0]
    if frames > 16:
        own.disable_free_noise()
    assert np.array_equal(ours.along(z.expand(frames, -1), seed=2, **options), expected)
    if frames == 16:
        assert np.array_equal(ours(embeds=z, seed=2, **options).images[0], expected)


def test_a_path_leads_the_clip_frame_by_frame(loaded):
    ours = loaded("animatediff-vit-h")
    a, b = rows(1024, 2)
    path = torch.stack([a] * 8 + [b] * 8)
    options = {"output_type": "np", **FEW}
    led, constant = np.asarray(ours.along(path, **options)), np.asarray(ours.along(a.expand(16, -1), **options))
    change = np.abs(led - constant).mean(axis=(1, 2, 3))
    assert change[8:].min() > 3 * change[:8].max()  # temporal attention carries some of it to the others
    assert not ours.unet.encoder_hid_proj._forward_hooks
    with pytest.raises(InputError, match="a path is"):
        ours.along(a)
    with pytest.raises(InputError, match="leave out prompts"):
        ours.along(path, text="a dog")


def test_clips_for_several_prompts(loaded):
    ours = loaded("animatediff-vit-h")
    clips = ours(embeds=rows(1024, 2), seed=0, **FEW).images
    assert [len(clip) for clip in clips] == [16, 16]
    assert clips[0][0].size == (32, 32)
    for refuse in (lambda: ours.best_of(2, embeds=rows(1024, 1)), lambda: ours.edit(clips[0][0], embeds=rows(1024, 1))):
        with pytest.raises(InputError):
            refuse()


@pytest.mark.parametrize("name", ["sdxl-vit-h", "sd15-vit-h"])
def test_sliced_attention_keeps_the_adapter(decoder_hub, name):
    made = load(decoder_hub, name)
    call = {"image_embeds": made.embed_scale(rows(1024, 1)), "seed": 0, "output_type": "np", **FEW}
    plain = made(**call).images
    made.enable_attention_slicing()
    assert any("Sliced" in type(one).__name__ for one in made.unet.attn_processors.values())
    assert np.abs(made(**call).images - plain).max() < 1e-3
    made.disable_attention_slicing()
    assert np.abs(made(**call).images - plain).max() < 1e-3


def test_what_overflows_in_half_precision_is_chosen_from_as_it_is_drawn(decoder_hub):
    made = unialign_gen.load("sdxl-vit-h", sources=sources(decoder_hub, "sdxl-vit-h"), dtype="float16")
    made.set_progress_bar_config(disable=True)
    with torch.no_grad():
        made.vae.decoder.conv_in.weight.mul_(1000 / made.vae.decoder.conv_in.weight.abs().max())
    call = {"image_embeds": made.embed_scale(rows(1024, 1)), "seed": 0, **FEW}
    drawn, latents = (made(**call, output_type=kind).images for kind in ("pt", "latent"))
    assert float(drawn.std()) > 0.01
    assert float((made.pixels_of(latents) - drawn).abs().max()) < 1e-3
    assert made.vae.dtype == torch.float16
    with pytest.raises(InputError, match="infinite in torch"):
        made(image_embeds=torch.full((1, 1024), 1e5))
    assert torch.isfinite(made(**call, best_of=2, output_type="pt").images).all()


def test_sound_and_words_through_an_adapter(loaded):
    ours = loaded("sdxl-vit-h")
    z = ours.embed(text="a dog")
    assert z.shape == (1, 1024)
    out = ours(text="a dog", seed=1, **FEW)
    assert out.images[0].size == (32, 32)
    assert out.request.guidance == 5.0
    assert np.array_equal(np.asarray(ours(embeds=z, seed=1, **FEW).images[0]), np.asarray(out.images[0]))
    assert np.array_equal(np.asarray(ours(text="a dog", seed=1, height=48, width=32, **FEW).images[0]).shape, (48, 32, 3))


def test_a_lora_is_put_on(decoder_hub, tmp_path):
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    plain = load(decoder_hub, "sd15-vit-h")
    z, options = rows(1024, 1), {"seed": 0, "output_type": "np", **FEW}
    expected = plain(embeds=z, **options).images
    plain.unet.add_adapter(LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_q"]))
    layers = {k: torch.ones_like(v) for k, v in convert_state_dict_to_diffusers(get_peft_model_state_dict(plain.unet)).items()}
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", layers)
    drawn = load(decoder_hub, "sd15-vit-h", lora=str(tmp_path / "lora"))
    assert not np.array_equal(drawn(embeds=z, **options).images, expected)
    drawn.unload_lora_weights()
    assert np.array_equal(drawn(embeds=z, **options).images, expected)


def test_what_does_not_fit_is_one_line(decoder_hub, loaded, tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="1280 dimensions, this space has 1024"):
        load(decoder_hub, "sdxl-vit-h", adapter=str(decoder_hub / "sdxl-bigg.safetensors"))
    with pytest.raises(InputError, match="no IP-Adapter"):
        load(decoder_hub, "sd15-vit-h", adapter=str(decoder_hub / "sd15.safetensors"))
    with pytest.raises(InputError, match="cannot be loaded"):
        load(decoder_hub, "sd15-vit-h", adapter=str(decoder_hub / "sdxl-vit-h.safetensors"))
    (tmp_path / "x.ckpt").write_bytes(b"pickle")
    with pytest.raises(InputError, match="pickles are not read"):
        load(decoder_hub, "sd15-vit-h", decoder=str(tmp_path / "x.ckpt"))
    names = ("image_proj.latents", "image_proj.proj_in.weight", "ip_adapter.1.to_k_ip.weight")
    plus = {name: torch.zeros(2) for name in names}
    save_file(plus, tmp_path / "plus.safetensors")
    with pytest.raises(InputError, match="tokens or to a face"):
        load(decoder_hub, "sd15-vit-h", adapter=str(tmp_path / "plus.safetensors"))
    ours = loaded("sd15-vit-h")
    with pytest.raises(InputError, match="2 values of decoder_prompt for 1 prompts"):
        ours(embeds=rows(1024, 1), decoder_prompt=["a", "b"])
    with pytest.raises(InputError, match="takes no noise_level"):
        ours(embeds=rows(1024, 1), noise_level=3)
    with pytest.raises(InputError, match="keep its sources"):
        ours.save_pretrained(tmp_path / "out")


def test_a_sound_becomes_a_film_with_its_sound(decoder_hub, tmp_path):
    import av
    from conftest import tone, write_wav
    from typer.testing import CliRunner

    from unialign_gen.cli import app
    from unialign_gen.encoders.beats import BEATs
    from unialign_gen.heads import Head, save_head

    sizes = {"encoder_layers": 1, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
    sizes |= {"embed_dim": 16, "conv_pos": 16, "conv_pos_groups": 4}
    torch.save({"cfg": sizes, "model": BEATs(sizes).state_dict()}, tmp_path / "beats.pt")
    save_head(Head(32, 1024, 16), tmp_path / "head")
    given = sources(decoder_hub, "animatediff-vit-h") | {"audio_encoder": "beats", "audio": str(tmp_path / "beats.pt")}
    given |= {"audio_head": str(tmp_path / "head")}
    sound = write_wav(tmp_path / "a.wav", tone(1, 16000), 16000)
    command = ["animate", str(sound), "--decoder", "animatediff-vit-h", "--steps", "1", "--side", "32"]
    command += ["--out", str(tmp_path / "a.mp4"), "--json", *(f"--source={k}={v}" for k, v in given.items())]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert '"pictures": 9' in done.stdout  # eight a second, and the last one
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert {s.type for s in film.streams} == {"video", "audio"}
        assert float(film.duration / av.time_base) == pytest.approx(1, abs=0.1)
    refused = CliRunner().invoke(app, ["generate", "--text", "a", "--checkpoint", "animatediff-vit-h", *command[-len(given) :]])
    assert refused.exit_code == 2
    assert "use animate" in refused.output


def test_one_side_alone_counts_and_latents_of_clips_have_frames(decoder_hub):
    plain = unialign_gen.load("sd15-vit-h", sources=sources(decoder_hub, "sd15-vit-h"))
    plain.set_progress_bar_config(disable=True)
    side = plain.sample_side
    z = torch.nn.functional.normalize(torch.ones(1, 1024), dim=1)
    assert plain(embeds=z, height=2 * side, seed=0, **FEW).images[0].size == (side, 2 * side)
    noise = torch.randn(1, 4, 32, 16, generator=torch.Generator().manual_seed(0))
    own, other = (plain(embeds=z, height=2 * side, latents=x, output_type="np", **FEW).images for x in (noise, noise.double()))
    assert np.array_equal(own, other)
    with pytest.raises(InputError, match=r"latents must be a tensor \(1, 4, 16, 16\), .* got \(1, 4, 32, 16\)"):
        plain(embeds=z, latents=noise, **FEW)
    moving = unialign_gen.load("animatediff-vit-h", sources=sources(decoder_hub, "animatediff-vit-h"))
    with pytest.raises(InputError, match=r"latents must be a tensor \(1, 4, frames, 16, 16\)"):
        moving(embeds=z, latents=torch.zeros(1, 4, 16, 16), **FEW)
