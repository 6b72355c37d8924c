"""A request is checked where it is made: what callers mean is understood, anything else is one line."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

from unialign_gen.errors import InputError
from unialign_gen.notes import collected
from unialign_gen.request import Prompt, Request
from unialign_gen.request.arguments import ask


def test_numbers_of_other_libraries_are_numbers():
    request = ask(text=("a", "b"), weights=[np.float32(0.5), torch.tensor(2.0)], seed=np.int64(3), guidance_scale=np.float64(2))
    assert [p.weight for p in request.prompts[0]] == [0.5, 2.0]
    assert (request.seed, type(request.seed), request.guidance) == (3, int, 2.0)
    assert ask(text=["a", "b"], seed=np.array([4, 5])).seed == ask(text=["a", "b"], seed=torch.tensor([4, 5])).seed == (4, 5)


def test_weights_without_names_are_for_the_inputs_in_their_order():
    assert ask(text="a", weights=[0.5]).prompts[0][0].weight == 0.5
    assert [p.weight for p in ask(text="a", audio="b.wav", weights=[0.25, 0.75]).prompts[0]] == [0.25, 0.75]
    assert [p.weight for p in ask(text=("a", "b"), weights={"text": [1, -0.4]}).prompts[0]] == [1.0, -0.4]


def test_prompt_is_another_name_of_text_and_a_modality_of_ones_own_is_a_prompt():
    assert ask(prompt="a dog").prompts == ask("a dog").prompts == ((Prompt("text", "a dog"),),)
    assert ask(silhouette="x.png").prompts == ((Prompt("silhouette", "x.png"),),)


def test_gradios_pair_of_rate_and_samples_is_one_sound():
    pair = (16000, np.zeros(5))
    assert ask(audio=pair).prompts[0][0].value is pair
    assert len(ask(audio=("a.wav", "b.wav")).prompts[0]) == 2
    other = (np.float64(8000.0), [0.0, 0.1])
    assert [row[0].value for row in ask(audio=[pair, other]).prompts] == [pair, other]
    assert [p.value for p in ask(audio=(pair, other)).prompts[0]] == [pair, other]


def test_the_request_of_one_picture_has_its_seed_and_its_own_words():
    request = ask(text=["a", "b"], seed=[10, 20], num_images_per_prompt=3, decoder_prompt=["x", "y"])
    last = request.picture(5)
    assert (last.prompts[0][0].value, last.seed, last.pictures, last.options) == ("b", 22, 1, {"decoder_prompt": "y"})
    assert ask(text=["a", "b"], seed=10, num_images_per_prompt=3).picture(5).seed == 15
    assert ask(text="a", seed=2**63 - 1, num_images_per_prompt=2).picture(1).seed == 0


def test_the_request_of_one_picture_has_its_own_generator_latents_and_embedding():
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    request = ask(image_embeds=torch.eye(2), num_images_per_prompt=2, generator=generators)
    assert request.picture(3).generator is generators[3]
    assert request.picture(3).image_embeds.tolist() == [[0.0, 1.0]]
    latents = torch.arange(4.0).view(4, 1, 1, 1)
    assert ask(text=["a", "b"], num_images_per_prompt=2, latents=latents).picture(2).latents.flatten().tolist() == [2.0]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({"weights": "0.5"}, "weights must be numbers"), ({"weights": {"text": "0.5"}}, "weights must be numbers"),
        ({"weights": [True]}, "finite numbers"), ({"weights": [1, 2]}, "2 weights for 1"),
        ({"weights": {"audio": 1}}, "no such"),
        ({"seed": object()}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"), ({"seed": -1}, "at least 0"), ({"seed": "3"}, "seed"),
        ({"num_inference_steps": 0}, "at least 1"), ({"num_inference_steps": True}, "whole number"),
        ({"guidance_scale": "3"}, "guidance must be a number, got '3'"), ({"guidance_scale": float("inf")}, "finite"),
        ({"mix": "add"}, "mix must be 'lerp', 'slerp', 'spherical_mean' or 'beside', got 'add'"), ({"height": "x"}, "height"),
        ({"output_type": "jpeg"}, "output_type"), ({"prompt": "b"}, "another name of text"),
        ({"callback_on_step_end": 3}, "callable"), ({"callback_on_step_end_tensor_inputs": "latents"}, "must be a list"),
        ({"generator": 3}, "generator must be a"), ({"generator": [torch.Generator(), None]}, "torch.Generator"),
        ({"eta": "x"}, "eta must be a number, got 'x'"), ({"eta": 2}, "at most 1"), ({"noise_level": True}, "whole number"),
        ({"decoder_prompt": [5]}, "decoder_prompt must be a string"), ({"cross_attention_kwargs": [1]}, "keys and values"),
        ({"image_embeds": torch.ones(1, 4)}, "leave out text"), ({"image_embeds": 1, "mix": "slerp"}, "leave out text, mix"),
        ({"seed": 1, "latents": torch.ones(1)}, "not several"),
    ],
)  # fmt: skip
def test_anything_else_is_one_line(call, line):
    with pytest.raises(InputError, match=line) as error:
        ask(text="a", **call)
    assert len(str(error.value).splitlines()) == 1


def test_an_editor_sees_the_arguments():
    from unialign_gen.pipelines import UniAlignKandinskyPipeline

    for method in (UniAlignKandinskyPipeline.__call__, UniAlignKandinskyPipeline.embed):
        assert set(inspect.signature(ask).parameters) <= set(inspect.signature(method).parameters)
        assert "prior_strength: 0 to 1" in inspect.getdoc(method)


def test_a_mistake_is_found_before_anything_heavy_is_loaded():
    code = (
        "import sys; from unialign_gen.request.arguments import ask; ask('a'); print({'torch', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_result_says_what_drew_it_and_carries_notes(starter, tmp_path):
    from conftest import tone, write_wav

    silent = write_wav(tmp_path / "s.wav", 0 * tone(1, 16000), 16000)
    drawn = starter(text="a dog", audio=str(silent), seed=4, num_inference_steps=2)
    assert [n.kind for n in drawn.notes] == ["silent"]
    assert [n.kind for n in starter.embed(audio=str(silent)).notes] == ["silent"]
    assert (drawn.request.steps, drawn.request.guidance) == (2, starter.config["default_guidance"])
    again = starter.draw(Request.from_dict(drawn.request.picture(0).to_dict()))
    assert again.images[0].tobytes() == drawn.images[0].tobytes()


def test_a_result_can_be_drawn_again_where_no_seed_was_given(starter):
    few = {"text": "a dog", "num_inference_steps": 1, "upscale": 1, "output_type": "np"}
    drawn = [starter(**few), starter(**few), starter(**few, latents=torch.ones(1, 4, 16, 16))]
    for one in drawn:
        assert (starter.draw(one.request).images == one.images).all()
        assert (starter.draw(one.request.picture(0)).images == one.images).all()
    assert (drawn[0].images != drawn[1].images).any()
    torch.manual_seed(5)
    seed = starter(**few).request.seed
    torch.manual_seed(5)
    assert starter(**few).request.seed == seed
    with collected() as notes:
        drawn[2].request.to_dict()
    assert [n.text for n in notes] == ["settings hold no latents: they draw from other noise"]


def test_what_a_decoder_does_not_take_is_said(starter):
    with pytest.raises(InputError, match="takes no noise_level"):
        starter(text="a dog", noise_level=3)
    with pytest.raises(InputError, match=r"unknown modality 'sound'.*text, audio"):
        starter(sound="a.wav")


def test_a_callback_may_return_nothing(starter):
    seen = []
    starter(text="a dog", num_inference_steps=2, callback_on_step_end=lambda pipe, step, t, now: seen.append(step))
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({"generator": [torch.Generator()]}, "1 generators for 2 pictures"),
        ({"latents": torch.zeros(1, 8, 16, 16)}, r"latents must be a tensor \(2, "),
        ({"latents": torch.zeros(2, 3, 4, 5)}, r"latents must be a tensor \(2, 4, 16, 16\), .* got \(2, 3, 4, 5\)"),
        ({"latents": torch.full((2, 4, 16, 16), torch.nan)}, "latents hold NaN"),
        ({"latents": [1]}, "got list"),
    ],
)
def test_noise_that_does_not_fit_is_one_line(starter, call, line):
    with pytest.raises(InputError, match=line):
        starter(text=["a", "b"], num_inference_steps=1, **call)


@pytest.mark.parametrize("given", [(), [()], ["a cat", ()]])
def test_an_empty_mix_is_one_line(given):
    with pytest.raises(InputError, match="text has an empty tuple: nothing to mix"):
        ask(text=given)
