"""A picture changed by a prompt: the starter's own way, and every published decoder's beside diffusers' own pipelines."""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    KandinskyV22ControlnetImg2ImgPipeline,
    KandinskyV22ControlnetPipeline,
    KandinskyV22Img2ImgPipeline,
    KandinskyV22InpaintPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as some
from PIL import Image, ImageDraw
from test_ip_adapter import decoder_hub, diffusers_with, given, loaded, noise, rows  # noqa: F401  fixtures
from test_published_checkpoints import tiny_clip
from tiny_decoders import kandinsky
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.notes import collected
from unialign_gen.pipelines import Edit, EmbedScale
from unialign_gen.pipelines.editing import working_size
from unialign_gen.request.picture_settings import read_picture

FEW = {"num_inference_steps": 2}


def photograph(size=(96, 64), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def square(size=(96, 64)):
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill=255)
    return mask


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_outside_the_mask_every_pixel_stays(starter):
    picture, mask = photograph(), square()
    out = starter.edit(picture, mask, text=["a red car", "a cat"], seed=0, num_images_per_prompt=2, **FEW)
    assert len(out.images) == 4
    kept = np.asarray(mask) == 0
    for drawn in out.images:
        assert drawn.size == picture.size
        assert np.array_equal(np.asarray(drawn)[kept], np.asarray(picture)[kept])
        changed = np.abs(np.asarray(drawn, float) - np.asarray(picture, float))[~kept]
        assert changed.mean() > 5
    assert not same(out.images[0], out.images[1])
    assert not same(out.images[0], out.images[2])


def test_strength_zero_is_the_picture_and_little_strength_is_near_it(starter):
    side = (starter.sample_side,) * 2
    picture = photograph(side)
    for drawn in starter.edit(picture, text="a cat", strength=0, num_images_per_prompt=2).images:
        assert same(drawn, picture)
        assert drawn is not picture
    assert same(starter.edit(picture, square(side), text="a cat", strength=0).images[0], picture)

    def distance(strength):
        drawn = starter.edit(picture, text="a cat", strength=strength, seed=0, num_inference_steps=8).images[0]
        return np.abs(np.asarray(drawn, float) - np.asarray(picture, float)).mean()

    assert distance(0.13) < distance(0.5) < distance(1.0)


def test_the_starters_img2img_is_ddim_from_the_noised_picture(starter):
    # written down again: encode, add noise at the first timestep that is left, then DDIM with guidance
    picture = photograph((starter.sample_side,) * 2)
    scheduler, embeds = DDIMScheduler.from_config(starter.scheduler.config), starter.embed_scale(starter.embed(text="a cat"))
    scheduler.set_timesteps(4)
    steps = scheduler.timesteps[2:]
    pixels = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        clean = starter.movq.encode(pixels).latents
        latents = scheduler.add_noise(clean, torch.randn(clean.shape, generator=noise(9)[0]), steps[:1])
        both = torch.cat([starter.embed_scale.negative_image_embeds, embeds])
        for t in steps:
            conditions = {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": both}}
            uncond, cond = starter.unet(torch.cat([latents] * 2), t, **conditions).sample.split(latents.shape[1], 1)[0].chunk(2)
            latents = scheduler.step(uncond + 3.0 * (cond - uncond), t, latents).prev_sample
        expected = starter.movq.decode(latents, force_not_quantize=True).sample
    options = {"prior_temperature": 0, "guidance_scale": 3.0, "num_inference_steps": 4}
    drawn = starter.edit(picture, text="a cat", seed=9, strength=0.5, **options).images[0]
    expected = (expected[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255
    assert np.abs(np.asarray(drawn, float) - expected.numpy()).max() < 1.01


def test_a_callback_sees_the_latents_of_an_edit(starter):
    seen = []

    def watch(pipeline, step, timestep, now):
        seen.append(now["latents"].shape)

    starter.edit(photograph(), square(), text="a cat", seed=0, callback_on_step_end=watch, **FEW)
    assert len(seen) == 2


def test_what_cannot_be_edited_is_one_line(starter):
    picture = photograph()
    for pattern, call in {
        "nothing to edit": {},
        "no control": {"control": picture},
        "strength must be": {"picture": picture, "strength": 1.5},
        "strength must be a number": {"picture": picture, "strength": [0.5]},
        "black all over": {"picture": picture, "mask": Image.new("L", (9, 9))},
        "none of them: at least 0.5": {"picture": picture, "strength": 0.1},
        "leave out latents, ": {"picture": picture, "output_type": "np"},
        "output_type, upscale": {"picture": picture, "upscale": 2},
        "multiples of 16, such as 96 and 64, got 100 and 68": {"picture": picture, "height": 100, "width": 68},
        "takes no noise_level": {"picture": picture, "noise_level": 3},
        "no such file|is missing|not found|no file": {"picture": "nowhere.png"},
    }.items():
        with pytest.raises(InputError, match=pattern):
            starter.edit(**call, text="a cat", **FEW)
    with pytest.raises(InputError, match="does not edit"):
        unialign_gen.load("starter", decoder="stable-unclip").edit(picture, text="a cat")


@settings(max_examples=30, deadline=None)
@drawn_from(some.integers(1, 4000), some.integers(1, 4000))
def test_a_working_size_keeps_area_and_nearly_the_ratio(width, height):
    w, h = working_size((width, height), 512, 64)
    assert w % 64 == h % 64 == 0
    assert min(w, h) >= 64
    if 0.25 < width / height < 4:
        assert 0.7 < w * h / 512**2 < 1.4
        assert 0.7 < (w / h) / (width / height) < 1.4


@pytest.mark.parametrize(
    ("asked", "size"), [({"height": 32}, (48, 32)), ({"width": 96}, (96, 64)), ({"height": 32, "width": 32}, (32, 32))]
)
def test_a_side_that_is_not_given_keeps_the_ratio(starter, asked, size):
    picture = photograph().resize((150, 100))
    (made,) = starter.edit(picture, text="a cat", seed=0, return_dict=False, **asked, **FEW)
    assert made[0].size == size


def test_the_command_line_edits(starter, tmp_path):
    photograph().save(tmp_path / "room.png")
    square().save(tmp_path / "mask.png")
    out = tmp_path / "out.png"
    command = ["edit", str(tmp_path / "room.png"), "--mask", str(tmp_path / "mask.png"), "--text", "a cat", "--steps", "2"]
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--device", "auto", "--dtype", "auto"])
    assert done.exit_code == 0, done.output
    kept = np.asarray(square()) == 0
    assert np.array_equal(np.asarray(Image.open(out))[kept], np.asarray(photograph())[kept])
    assert same(Image.open(out), starter.edit(photograph(), square(), text="a cat", seed=0, **FEW).images[0])
    assert read_picture(out).edit == "inpaint of room.png, strength 1"
    assert CliRunner().invoke(app, [*command, "--out", str(tmp_path / "room.png")]).exit_code == 2


@pytest.fixture(scope="module")
def kandinskys(tmp_path_factory):
    """Tiny Kandinskys in hub layout, and our pipeline of them."""
    root = kandinsky(tmp_path_factory.mktemp("kandinsky"))
    tiny_clip(root / "clip", 1280)
    scale = EmbedScale(1280, embed_norm=12.0)
    torch.nn.init.normal_(scale.negative_image_embeds)
    scale.save_pretrained(root / "scale")
    given = {"decoder": "kandinsky", "inpaint": "kandinsky-inpaint", "controlnet": "kandinsky-depth"}
    given |= {"image": "clip", "text": "clip", "embed_scale": "scale"}
    made = unialign_gen.load("kandinsky", sources={part: str(root / place) for part, place in given.items()})
    made.set_progress_bar_config(disable=True)
    return root, made


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_kandinskys_edits_are_diffusers_own_bit_for_bit(kandinskys, guidance):
    root, ours = kandinskys
    assert ours.edit_modes == ("img2img", "inpaint", "control", "control+img2img")
    picture, mask, depth = photograph((64, 64)), square((64, 64)), photograph((64, 64), 1)
    z = ours.embed_scale(rows(1280, 2))
    options = {"num_inference_steps": 4, "guidance_scale": guidance}
    four = z.repeat_interleave(2, 0)  # two prompts, two pictures each
    negative = ours.embed_scale.negative_image_embeds.expand(4, -1)
    hint = torch.from_numpy(np.asarray(depth, np.float32) / 255).permute(2, 0, 1)[None].expand(4, -1, -1, -1)
    cases = {
        "img2img": (KandinskyV22Img2ImgPipeline, None, {"strength": 0.6}, {"image": [picture] * 4}),
        "inpaint": (KandinskyV22InpaintPipeline, "kandinsky-inpaint", {}, {"image": [picture] * 4, "mask_image": [mask] * 4}),
        "control": (KandinskyV22ControlnetPipeline, "kandinsky-depth", {}, {"hint": hint}),
        "control+img2img": (
            *(KandinskyV22ControlnetImg2ImgPipeline, "kandinsky-depth", {"strength": 0.6}),
            {"hint": hint, "image": [picture] * 4},
        ),
    }
    for mode, (kind, own_unet, shared, theirs) in cases.items():
        more = {} if own_unet is None else {"unet": UNet2DConditionModel.from_pretrained(root / own_unet, subfolder="unet")}
        if more:  # the same tensors
            _ = ours.edit(**edit_of(mode, picture, mask, depth), image_embeds=z, **options, **shared)
            found = ours._edit_parts[ours.modes[mode].load]
            assert all(torch.equal(v, found.state_dict()[k]) for k, v in more["unet"].state_dict().items())
            more = {"unet": found}
        own = diffusers_with(ours, kind, **more)
        size = {"height": 64, "width": 64, "generator": noise(3, 4)}
        expected = own(image_embeds=four, negative_image_embeds=negative, **options, **shared, **theirs, **size).images
        got = ours.edit(
            **edit_of(mode, picture, mask, depth), image_embeds=z, seed=3, num_images_per_prompt=2, **options, **shared
        ).images
        for mine, other in zip(got, expected, strict=True):
            assert same(mine, Image.composite(other, picture, mask) if mode == "inpaint" else other), mode


def test_kandinsky_edits_with_another_scheduler(kandinskys):
    """Euler's steps are DDIM's, in the noise's own scale."""
    _, ours = kandinskys
    own, options = ours.scheduler, {"image_embeds": ours.embed_scale(rows(1280, 1)), "seed": 3, "num_inference_steps": 4}
    edits = {mode: edit_of(mode, photograph((64, 64)), square((64, 64)), photograph((64, 64), 1)) for mode in ours.edit_modes}
    try:
        for mode in ("img2img", "control", "control+img2img"):
            drawn = []
            for kind in (DDIMScheduler, EulerDiscreteScheduler):
                ours.scheduler = kind.from_config(own.config, timestep_spacing="trailing", clip_sample=False)
                drawn.append(np.asarray(ours.edit(**edits[mode], **options).images[0], int))
            assert np.abs(drawn[0] - drawn[1]).max() <= 2, mode
        with pytest.raises(InputError, match="drawn with EulerDiscreteScheduler"):
            ours.edit(**edits["inpaint"], **options)
        ours.scheduler = UniPCMultistepScheduler.from_config(own.config)
        ours.edit(**edits["inpaint"], **options)
    finally:
        ours.scheduler = own


def edit_of(mode, picture, mask, depth):
    return {
        **({} if mode == "control" else {"picture": picture}),
        **({"mask": mask} if "inpaint" in mode else {}),
        **({"control": depth} if "control" in mode else {}),
    }


def test_saving_says_which_edits_are_not_written(kandinskys, tmp_path):
    _, ours = kandinskys
    with collected() as notes:
        ours.save_pretrained(tmp_path)
    assert [n.text for n in notes if n.text.startswith("inpaint, control, control+img2img: weights of their own")]
    assert unialign_gen.load(tmp_path).edit_modes == ("img2img", "inpaint")


def test_kandinsky_redraws_what_is_marked_wholly(kandinskys):
    _, ours = kandinskys
    with pytest.raises(InputError, match="control has no callback"):
        ours.edit(control=photograph((64, 64)), image_embeds=rows(1280, 1), callback_on_step_end=print, **FEW)
    with pytest.raises(InputError, match="leave strength out"):
        ours.edit(photograph((64, 64)), square((64, 64)), image_embeds=rows(1280, 1), strength=0.5, num_inference_steps=4)


XL = {
    "img2img": StableDiffusionXLImg2ImgPipeline,
    "inpaint": StableDiffusionXLInpaintPipeline,
    "control": StableDiffusionXLControlNetPipeline,
    "control+img2img": StableDiffusionXLControlNetImg2ImgPipeline,
    "control+inpaint": StableDiffusionXLControlNetInpaintPipeline,
}
SD = {
    "img2img": StableDiffusionImg2ImgPipeline,
    "inpaint": StableDiffusionInpaintPipeline,
    "control": StableDiffusionControlNetPipeline,
    "control+img2img": StableDiffusionControlNetImg2ImgPipeline,
    "control+inpaint": StableDiffusionControlNetInpaintPipeline,
}
CASES = [
    (name, mode, kind, guidance)
    for name, kinds in (("sdxl-vit-h", XL), ("sd15-vit-h", SD))
    for mode, kind in kinds.items()
    for guidance in (5.0, 1.0)
]


@pytest.mark.parametrize(("name", "mode", "kind", "guidance"), CASES)
def test_edits_through_an_adapter_are_diffusers_own_bit_for_bit(decoder_hub, loaded, name, mode, kind, guidance):  # noqa: F811
    ours = loaded(name)
    assert set(ours.edit_modes) == set(XL)
    picture, mask, depth = photograph((32, 32)), square((32, 32)), photograph((32, 32), 1)
    z = rows(1024, 1) * 12
    options = {"num_inference_steps": 4, "guidance_scale": guidance, "num_images_per_prompt": 2}
    options |= {} if mode == "control" else {"strength": 0.6}
    got = ours.edit(**edit_of(mode, picture, mask, depth), image_embeds=z, seed=3, decoder_prompt="a photo", **options).images
    more, theirs = {}, {}
    if "control" in mode:
        folder = decoder_hub / f"controlnet-{name.split('-')[0]}"
        found = ours._edit_parts[ours.modes[mode].load]
        own = ControlNetModel.from_pretrained(folder).state_dict()
        assert all(torch.equal(v, found.state_dict()[k]) for k, v in own.items())
        more = {"controlnet": found}
        theirs = {"image" if mode == "control" else "control_image": depth}
    if mode != "control":
        theirs |= {"image": picture}
    if "inpaint" in mode:  # one for each, or diffusers encodes all with the first one's generator
        theirs |= {"image": [picture] * 2, "mask_image": [mask] * 2}
    if mode != "img2img" and mode != "control+img2img":
        theirs |= {"height": 32, "width": 32}
    made = diffusers_with(ours, kind, **more)
    expected = made(
        prompt="a photo", ip_adapter_image_embeds=given(z, guidance), generator=noise(3, 2), **theirs, **options
    ).images
    for mine, other in zip(got, expected, strict=True):
        assert same(mine, Image.composite(other, picture, mask) if "inpaint" in mode else other)


@pytest.mark.parametrize("mode", ["inpaint", "control+img2img", "control+inpaint"])
@pytest.mark.parametrize("name", ["sdxl-vit-h", "sd15-vit-h"])
def test_an_edit_of_a_batch_through_an_adapter(loaded, name, mode):  # noqa: F811
    ours = loaded(name)
    given = edit_of(mode, photograph((32, 32)), square((32, 32)), photograph((32, 32), 1))
    options = {"strength": 0.6, "num_inference_steps": 4}
    z = rows(1024, 2) * 12
    both = ours.edit(**given, image_embeds=z, seed=[3, 8], **options).images
    for row, seed, drawn in zip(z, (3, 8), both, strict=True):
        (alone,) = ours.edit(**given, image_embeds=row[None], seed=seed, **options).images
        assert np.abs(np.asarray(alone, int) - np.asarray(drawn, int)).max() <= 1


def test_an_edit_says_what_it_was():
    assert Edit("a/room.png", control=photograph()).described == "control+img2img of room.png with a picture, strength 0.7"
