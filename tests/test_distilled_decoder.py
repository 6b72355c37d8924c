"""The starter's distilled decoder, with the weights that ship: in four steps what the first draws in twelve."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.cli import app
from unialign_gen.demo.engine import AppContext, Engine
from unialign_gen.demo.limits import Limits
from unialign_gen.demo.live import Live
from unialign_gen.errors import InputError
from unialign_gen.loading import DISTILLED, own_settings
from unialign_gen.request.arguments import ask
from unialign_gen.serving import BatchingEngine

TEXTS = ["a red car", "a cat", "a blue butterfly", "a guitar"]


@pytest.fixture(scope="module")
def distilled():
    pipeline = unialign_gen.load("starter", decoder=DISTILLED)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline, **request):
    return pipeline(text=TEXTS, seed=0, output_type="latent", **request).images  # (4, C, h, w)


def apart(a, b):
    """Mean squared distance of latents (B, C, h, w), picture by picture."""
    return (a - b).square().flatten(1).mean(1)


def test_four_steps_draw_what_the_first_decoder_draws_in_twelve(distilled, starter):
    assert own_settings("starter", DISTILLED) == (4, 1, 2)
    wanted = latents(starter)
    found, plain = latents(distilled, best_of=1), latents(starter, num_inference_steps=4, guidance_scale=1)
    others = apart(wanted, wanted.roll(1, 0))
    assert bool((apart(found, wanted) < 0.5 * others).all())  # its picture, not another's
    assert float(apart(found, wanted).mean()) < 0.6 * float(apart(plain, wanted).mean())  # which it was before it was distilled


def test_a_batch_is_its_single_calls_and_seeds_differ(distilled):
    few = {"output_type": "np"}
    together = distilled(text=TEXTS[:2], seed=[4, 5], **few).images
    for i, text in enumerate(TEXTS[:2]):
        assert np.abs(distilled(text=text, seed=4 + i, **few).images[0] - together[i]).max() < 1.5 / 255
    assert not np.array_equal(together[0], distilled(text=TEXTS[0], seed=5, **few).images[0])


def test_of_two_noises_the_better_is_kept_for_prompts_alone(distilled):
    """As a picture's settings say; points along a way are drawn from one noise, so that they follow each other."""
    small = {"seed": 1, "upscale": 1}
    drawn = distilled(text="a dog", **small)
    assert drawn.request.best_of == 2
    assert drawn.images[0].tobytes() == distilled(text="a dog", best_of=2, **small).images[0].tobytes()
    point = distilled.points(drawn.request)
    alone = distilled(embeds=point, **small)
    assert alone.request.best_of == 1
    assert alone.images[0].tobytes() == distilled(text="a dog", best_of=1, **small).images[0].tobytes()
    read = [float(distilled.aligner.embed("image", one.images)[0] @ point[0]) for one in (drawn, alone)]
    assert read[0] >= read[1]
    noise = torch.zeros(1, 4, 16, 16)
    assert distilled(text="a dog", latents=noise, upscale=1).request.best_of == 1


def test_a_callback_that_changes_latents_has_its_picture(distilled):
    """It sees those of the first noise, and the second might be kept; one that only looks leaves the choice."""

    def upside_down(pipe, step, timestep, tensors):
        return {"latents": tensors["latents"].flip(2)}

    def in_place(pipe, step, timestep, tensors):
        tensors["latents"].copy_(tensors["latents"].flip(2))
        return tensors

    def asked(callback, best_of=None):
        drawn = distilled(text="a cat", seed=0, upscale=1, best_of=best_of, callback_on_step_end=callback, output_type="np")
        return drawn.images[0]

    assert np.array_equal(asked(lambda pipe, step, timestep, tensors: tensors), asked(None))
    for callback in (upside_down, in_place):
        assert np.abs(asked(callback) - asked(callback, best_of=1)).max() < 1.5 / 255
    assert np.abs(asked(upside_down) - asked(None)).mean() > 0.05


def test_more_or_fewer_steps_are_drawn_and_said(distilled):
    assert distilled(text="a cat", seed=0, upscale=1).notes == []
    (found,) = distilled(text="a cat", seed=0, num_inference_steps=3, upscale=1).notes
    assert (found.kind, "4 steps: in 3" in found.text) == ("distilled", True)


def test_a_fault_of_one_request_of_several_is_its_own(distilled):
    with BatchingEngine(4) as engine:
        good, bad = (engine.submit(distilled, ask(text="a cat", seed=0, upscale=1, guidance_scale=g)) for g in (1, 4))
        assert good.result(60).images
        with pytest.raises(InputError, match="leave out guidance 4"):
            bad.result(60)


def test_guidance_is_refused_in_one_line(distilled, tmp_path):
    with pytest.raises(InputError, match="without guidance, which is in its weights: leave out guidance 4"):
        distilled(text="a cat", guidance_scale=4)
    out = tmp_path / "cat.png"
    words = ["generate", "--text", "a cat", "--decoder", DISTILLED, "--out", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    done = CliRunner().invoke(app, [*words, "--guidance", "2"])
    assert (done.exit_code, "leave out guidance 2" in done.output) == (2, True)


def test_live_draws_with_it_unless_it_is_told_how(distilled, tmp_path):
    first, own = "starter", f"starter, {DISTILLED} decoder"
    engine = Engine(Limits())
    engine.pipelines[own] = distilled
    context = AppContext(engine, None, engine.limits, tmp_path)
    *_, found = Live(text="a robot").run(context)
    assert len(found["moment"]["pictures"]) == 1
    assert list(engine.pipelines) == [own]
    assert [Live(**told).chosen(context).label for told in ({"steps": 6}, {"guidance": 2})] == [first, first]
    assert Live(model="starter, stable-unclip decoder").chosen(context).decoder == "stable-unclip"
    del engine.models[own]  # as where the main wheel alone is installed
    assert Live().chosen(context).label == first
    engine.close()
