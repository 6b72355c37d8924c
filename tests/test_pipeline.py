import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tone, write_video, write_wav
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KandinskyV22Pipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from safetensors.torch import load_file

import unialign_gen
from unialign_gen.concepts import ConceptTable
from unialign_gen.errors import InputError
from unialign_gen.film import showcase
from unialign_gen.loading import find
from unialign_gen.media import Sound
from unialign_gen.mixing import mix
from unialign_gen.pipelines.best_of import other
from unialign_gen.pipelines.prompts import encode_prompts
from unialign_gen.request import Prompt, Request

FEW = {"num_inference_steps": 2}


def array(picture) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_same_seed_same_bytes(starter):
    a, b = (starter(text="a red car", seed=3, **FEW).images[0].tobytes() for _ in range(2))
    assert a == b
    assert starter(text="a red car", seed=4, **FEW).images[0].tobytes() != a


def test_a_batch_of_eight_gives_the_pictures_of_eight_calls(starter):
    texts = ["dog", "cat", "red car", "piano", "rain", "a tree", "ship", "clock"]
    together = starter(text=texts, seed=list(range(8)), **FEW).images
    for i, text in enumerate(texts):
        alone = starter(text=text, seed=i, **FEW).images[0]
        assert np.abs(array(alone) - array(together[i])).max() <= 1


def test_pictures_are_those_of_diffusers_own_pipeline(starter):
    theirs = KandinskyV22Pipeline(unet=starter.unet, scheduler=starter.scheduler, movq=starter.movq)
    theirs.set_progress_bar_config(disable=True)
    z = starter.embed(text="a blue fish")
    scale = starter.embed_scale
    expected = theirs(
        image_embeds=z * scale.embed_norm,
        negative_image_embeds=scale.negative_image_embeds,
        height=starter.sample_side,
        width=starter.sample_side,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **FEW,
    ).images
    options = {"guidance_scale": 3.0, "output_type": "np", "upscale": 1, **FEW}
    raw = z * scale.embed_norm
    got = starter(image_embeds=raw, generator=torch.Generator().manual_seed(5), **options).images
    assert np.array_equal(got, expected)
    mixed = starter(embeds=z, generator=torch.Generator().manual_seed(5), **options).images
    assert np.abs(mixed - expected).max() < 1e-3


def test_ready_image_embeds_stand_alone(starter):
    raw = starter.embed(text=["dog", "cat"]) * starter.embed_scale.embed_norm
    assert len(starter(image_embeds=raw, seed=0, num_images_per_prompt=2, **FEW).images) == 4
    for wrong, line in (
        ({"image_embeds": raw, "text": "a dog"}, "leave out text"),
        ({"image_embeds": raw, "weights": {"text": 1.0}}, "leave out weights"),
        ({"image_embeds": raw[0]}, "shape"),
        ({"image_embeds": raw[:, :5]}, "shape"),
        ({"image_embeds": raw * float("nan")}, "NaN"),
    ):
        with pytest.raises(InputError, match=line):
            starter(seed=0, **wrong, **FEW)


def test_guidance_off_with_several_pictures(starter):
    pictures = starter(text=["dog", "cat"], num_images_per_prompt=2, guidance_scale=1.0, seed=0, **FEW).images
    assert len(pictures) == 4
    assert array(pictures[0]).tolist() != array(pictures[1]).tolist()
    again = starter(text="cat", num_images_per_prompt=2, guidance_scale=1.0, seed=2, **FEW).images
    assert np.abs(array(again[1]) - array(pictures[3])).max() <= 1


def test_output_types_agree(starter):
    options = {"text": "dog", "seed": 1, **FEW}
    pil = array(starter(**options).images[0])
    raw = starter(output_type="np", **options).images
    tensor = starter(output_type="pt", **options).images
    assert np.abs(np.round(raw[0] * 255) - pil).max() <= 1
    assert torch.allclose(tensor.permute(0, 2, 3, 1), torch.from_numpy(raw), atol=1e-6)
    assert starter(output_type="latent", **options).images.shape == (1, starter.unet.config.in_channels, 16, 16)
    assert isinstance(starter(return_dict=False, **options), tuple)


def test_every_modality_and_a_mix(starter, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1, 22050), 22050)
    video = write_video(tmp_path / "v.mp4")
    picture = starter(text="sun", seed=0, **FEW).images[0]
    parts = {"text": "sun", "audio": str(wav), "video": str(video), "image": picture}
    points = {kind: starter.embed(**{kind: value})[0] for kind, value in parts.items()}
    weights = {"text": 0.5, "audio": 0.2, "video": -0.1, "image": 0.4}
    expected = mix(list(points.values()), [weights[k] for k in parts])
    assert torch.allclose(starter.embed(**parts, weights=weights)[0], expected, atol=1e-5)


def test_a_tuple_is_a_mix_and_a_list_a_batch(starter):
    a, b = starter.embed(text=["dog", "cat"])
    both = starter.embed(text=("dog", "cat"), weights={"text": (1, -0.4)})
    assert torch.allclose(both[0], mix([a, b], [1, -0.4]), atol=1e-5)
    joined = starter.embed(text=["dog", "cat"], embeds=a)
    assert joined.shape == (2, 256)
    assert torch.allclose(joined[0], a, atol=1e-5)


def test_text_alone_loads_no_other_encoder():
    pipeline = unialign_gen.load("starter")
    pipeline.embed(text="a dog")
    assert list(pipeline.aligner.parts) == ["text"]


def test_video_is_frames_and_a_share_of_sound(starter, tmp_path):
    with_sound = write_video(tmp_path / "a.mp4")
    mute = write_video(tmp_path / "b.mp4", sound=False)
    seen = starter.aligner.embed_video(mute)
    heard = starter.aligner.embed("audio", [str(with_sound)])[0]
    assert torch.allclose(starter.aligner.embed_video(with_sound), mix([seen, heard], [0.7, 0.3]), atol=1e-3)
    assert torch.allclose(starter.aligner.embed_video(with_sound, sound=0.0), seen, atol=1e-4)


def test_round_trip(starter, tmp_path):
    starter.save_pretrained(tmp_path)
    again = unialign_gen.load(str(tmp_path))
    again.set_progress_bar_config(disable=True)
    assert type(again) is type(starter)
    a = starter(text="a green frog", seed=0, **FEW).images[0]
    b = again(text="a green frog", seed=0, **FEW).images[0]
    assert np.abs(array(a) - array(b)).max() <= 1
    texts = ["a car key", "a red penguin and a blue car", "xyzzy plugh"]
    was, kept = (made(text=texts, seed=0, **FEW) for made in (starter, again))  # it knows by name what it knew
    assert all(np.abs(array(a) - array(b)).max() <= 1 for a, b in zip(was.images, kept.images, strict=True))
    assert kept.notes == was.notes
    assert {"left out", "not understood"} <= {n.kind for n in kept.notes}
    assert again.embed_scale.embed_norm == starter.embed_scale.embed_norm
    assert torch.equal(again.embed_scale.negative_image_embeds, starter.embed_scale.negative_image_embeds)


def test_callback_sees_and_changes_latents(starter):
    seen = []

    def zero(pipeline, step, timestep, values):
        seen.append(step)
        return {"latents": values["latents"] * 0}

    out = starter(text="dog", seed=0, callback_on_step_end=zero, output_type="latent", **FEW).images
    assert seen == [0, 1]
    assert float(out.abs().max()) == 0


def test_schedulers_can_be_swapped(starter):
    """Solvers of one equation draw one picture; Euler's steps in the noise's own scale are DDIM's."""
    own, call = starter.scheduler, {"text": "dog", "seed": 0, "num_inference_steps": 12, "upscale": 1}
    expected = array(starter(**call).images[0])
    try:
        for kind, most, more in (
            (EulerDiscreteScheduler, 2, {}),
            (DPMSolverMultistepScheduler, 40, {"final_sigmas_type": "zero"}),
            (UniPCMultistepScheduler, 40, {}),
        ):
            starter.scheduler = kind.from_config(own.config, **more)
            assert np.abs(array(starter(**call).images[0]) - expected).mean() < most / 10, kind
            assert "step" not in vars(starter.scheduler)
            assert not starter.unet._forward_pre_hooks
        for kind in (FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler):
            starter.scheduler = kind()
            with pytest.raises(InputError, match=f"drawn with {kind.__name__}: take a scheduler like DDPM"):
                starter(**call)
    finally:
        starter.scheduler = own


def test_a_checkpoint_on_the_hub_is_a_folder_of_the_same_layout(starter, tmp_path, monkeypatch):
    """In the hub's own cache layout, offline: an owner's repository at a revision, and what is said where there is none."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--somebody--small"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "v1").write_text("0" * 40)
    starter.save_pretrained(place / "snapshots" / ("0" * 40))
    loaded = unialign_gen.load("somebody/small@v1")
    assert torch.equal(loaded.unet.conv_in.weight, starter.unet.conv_in.weight)
    assert torch.equal(loaded.embed(text="a dog"), starter.embed(text="a dog"))
    for name in ("somebody/small", "nobody/small"):
        with pytest.raises(InputError, match=f"unknown checkpoint '{name}'.*from the hub"):
            unialign_gen.load(name)


def test_a_damaged_index_is_one_line(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        unialign_gen.load(tmp_path)


def test_the_sheet_says_what_a_sound_was_heard_as(starter):
    folder = find("starter")
    names, kept = json.loads((folder / "concepts.json").read_text()), load_file(folder / "concepts.safetensors")
    apart, points = kept["whitening"].float(), kept["points"].float()
    point = starter.embed(audio=showcase.path("cow.flac"))[0]
    expected = names[int(F.cosine_similarity(points @ apart, (point @ apart)[None], dim=1).argmax())]
    table = ConceptTable.from_checkpoint(folder)
    assert showcase.heard_as(starter, "cow.flac", table) == f", heard as {expected}"
    assert showcase.heard_as(starter, "cow.flac", None) == ""


def test_the_best_of_several_noises_is_the_nearest_to_what_was_to_be_drawn(starter):
    """Drawn one by one and ranked here; a mix counts as a mix, and what the seed chose of the prompt stays."""
    prompt = {"text": ["a red car", "a dog"], "image": Image.new("RGB", (64, 64), (250, 200, 40)), "weights": {"image": 0.3}}
    few = {**FEW, "upscale": 1}
    points = starter.points(starter(**prompt, seed=[5, 9], **few).request)
    noises = [[torch.Generator().manual_seed(seed) for seed in (5, 9)]]
    noises += [[other(generator) for generator in noises[0]]]
    noises += [[other(generator) for generator in noises[1]]]
    every = [starter(embeds=points, generator=[g.clone_state() for g in some], **few).images for some in noises]
    read = [starter.aligner.embed("image", pictures) for pictures in every]
    for count, batch in ((1, 8), (2, 8), (3, 8), (3, 2)):
        chosen = starter(**prompt, seed=[5, 9], best_of=count, batch=batch, **few)
        for i, picture in enumerate(chosen.images):
            cosines = [float(torch.nn.functional.cosine_similarity(read[j][i], points[i], dim=0)) for j in range(count)]
            assert len(set(cosines)) == count
            assert np.abs(array(picture) - array(every[int(np.argmax(cosines))][i])).max() <= 1
    assert starter.best_of(3, **prompt, seed=[5, 9], **few).images[1].tobytes() == chosen.images[1].tobytes()
    latents = starter(**prompt, seed=[5, 9], best_of=3, output_type="latent", **FEW).images
    decoded = (255 * starter.pixels_of(latents)[1]).permute(1, 2, 0).detach().numpy()
    assert np.abs(decoded - array(chosen.images[1])).max() <= 2


def test_a_picture_s_settings_keep_from_how_many_noises_it_was_chosen(starter):
    few = {**FEW, "upscale": 1}
    drawn = starter(text="a dog", seed=1, best_of=3, **few)
    again = starter.draw(Request.from_dict(drawn.request.picture(0).to_dict()))
    assert again.images[0].tobytes() == drawn.images[0].tobytes()
    assert starter(text="a dog", seed=1, **few).request.best_of == 1


def test_what_cannot_be_chosen_is_one_line(starter):
    for wrong, line in (
        ({"latents": torch.zeros(1, 4, 16, 16)}, "noises of its own"),
        ({"callback_on_step_end": print, "callback_on_step_end_tensor_inputs": ["latents", "text_embeds"]}, "other tensors"),
        ({"seed": 1, "generator": torch.Generator()}, "not several"),
    ):
        with pytest.raises(InputError, match=line):
            starter(text="a dog", best_of=2, **wrong)
    with pytest.raises(InputError, match="at least 1"):
        starter(text="a dog", best_of=0, **FEW)
    with pytest.raises(InputError, match="from one noise"):
        starter.edit(Image.new("RGB", (64, 64)), text="a dog", best_of=2, **FEW)


def test_a_callback_sees_the_first_noise_of_each_picture(starter):
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append((step, len(tensors["latents"])))

    starter(text=["a dog", "a cat"], seed=0, best_of=3, upscale=1, callback_on_step_end=look, **FEW)
    assert seen == [(step, 2) for step in range(FEW["num_inference_steps"])]


def test_an_interpolation_shares_its_noise(starter):
    a, b = starter.embed(text=["a cat", "a dog"])
    pictures = starter.interpolate(a, b, 3, seed=7, **FEW).images
    noise = torch.randn(1, starter.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(7))
    first = starter(embeds=a, latents=noise, **FEW).images[0]
    assert len(pictures) == 3
    assert np.abs(array(first) - array(pictures[0])).max() <= 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({}, "nothing to draw"),
        ({"text": "  "}, "text prompt is empty"),
        ({"text": []}, "empty list"),
        ({"text": ["a", "b"], "image": ["x", "y", "z"]}, "different lengths"),
        ({"text": "a", "weights": {"audio": 1.0}}, "no such prompt"),
        ({"text": "a", "weights": {"text": float("nan")}}, "finite"),
        ({"text": ("a", "b"), "weights": {"text": (1.0, 2.0, 3.0)}}, "3 weights for 2"),
        ({"embeds": torch.zeros(256)}, "zero vector"),
        ({"embeds": torch.ones(7)}, "256 values"),
        ({"text": "a", "output_type": "jpeg"}, "output_type"),
        ({"text": "a", "num_inference_steps": 0}, "at least 1"),
        ({"text": "a", "guidance_scale": float("nan")}, "guidance"),
        ({"text": ["a", "b"], "seed": [1]}, "1 seeds for 2"),
        ({"text": "a", "seed": 1, "generator": torch.Generator()}, "not several"),
        ({"audio": Sound(torch.zeros(0), 16000)}, "non-empty"),
        ({"embeds": torch.ones(256), "prior_temperature": 1.0}, "prior_temperature moves prompts"),
        ({"text": "a", "mix": "slerp"}, "exactly two"),
        ({"image_embeds": torch.zeros(0, 256)}, "must be a tensor"),
    ],
)
def test_bad_calls_are_one_clear_line(starter, call, words):
    with pytest.raises(InputError, match=words) as error:
        starter(**call)
    assert "\n" not in str(error.value)


def test_a_size_is_of_the_picture_whatever_comes_out(starter):
    """512 x 512 pixels, enlarged eight times, are drawn as latents of 16 x 16."""
    latents = starter(text="a cat", seed=0, height=512, width=512, output_type="latent", **FEW).images
    assert tuple(latents.shape) == (1, 4, 16, 16)


def test_the_request_of_an_interpolation_draws_each_of_its_pictures(starter):
    a, b = starter.embed(text=["a cat", "a dog"])
    made = starter.interpolate(a, b, 3, seed=7, batch=2, upscale=1, **FEW)
    for i, picture in enumerate(made.images):
        again = starter.draw(made.request.picture(i)).images[0]
        assert np.abs(np.asarray(again, int) - np.asarray(picture, int)).max() <= 1
    assert isinstance(starter.interpolate(a, b, 2, upscale=1, return_dict=False, **FEW), tuple)


def test_what_was_kept_and_what_is_encoded_are_mixed_where_the_model_is(starter):
    class Elsewhere:
        embed_dim, place = 2, SimpleNamespace(device=torch.device("meta"))

        def embed(self, kind, inputs):
            return torch.ones(len(inputs), 2, device="meta")

    inputs = (Prompt("text", "x"), Prompt("audio", "a.wav", embedding=(1.0, 0.0)), Prompt("embeds", (0.0, 1.0)))
    (encoded,) = encode_prompts(Elsewhere(), [inputs])
    assert [p.embedding.device.type for p in encoded] == ["meta"] * 3


def test_arguments_may_be_named_and_generators_be_a_tuple(starter):
    few = {"upscale": 1, **FEW}
    (one,) = starter.best_of(count=2, text="a cat", seed=0, **few).images
    assert one.size == (64, 64)
    both = tuple(torch.Generator().manual_seed(i) for i in range(2))
    assert len(starter(text="a cat", num_images_per_prompt=2, generator=both, **few).images) == 2


def test_unknown_checkpoints(tmp_path):
    with pytest.raises(InputError, match=r"load has no option foo: it takes decoder, device"):
        unialign_gen.load("starter", foo=1)
    with pytest.raises(InputError, match="unknown checkpoint"):
        unialign_gen.load("no-such-thing")
    (tmp_path / "model_index.json").write_text('{"_class_name": "Other"}')
    with pytest.raises(InputError, match="holds a Other"):
        unialign_gen.load(str(tmp_path))
