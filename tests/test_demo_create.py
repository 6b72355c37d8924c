"""What the page draws: the same as the library and the command line; previews, stopping, and one-line refusals."""

import base64
import shlex
import shutil
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.demo.create import Create, Edit
from unialign_gen.demo.decode_worker import DecodeWorker
from unialign_gen.demo.engine import AppContext, CancelledError, Engine, Progress, on_disk
from unialign_gen.demo.limits import Limits
from unialign_gen.demo.live import RATE, Live
from unialign_gen.demo.preview import Previewer, clean_estimate, decode_latents
from unialign_gen.demo.read import Read
from unialign_gen.demo.snippets import command, python
from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.media import load_sound
from unialign_gen.request import Prompt, Request
from unialign_gen.request.picture_settings import PictureSettings, read_picture, save_picture
from unialign_gen.request.request import read_vector, write_prompt

SAMPLES = shipped_folder() / "samples"
LIMITS = Limits()


@pytest.fixture(scope="module")
def engine(starter):
    made = Engine(LIMITS)
    made.pipelines["starter"] = starter
    yield made
    made.close()


@pytest.fixture(scope="module")
def context(engine, tmp_path_factory):
    made = AppContext(engine, DecodeWorker(LIMITS), LIMITS, tmp_path_factory.mktemp("cache"))
    yield made
    made.decode_worker.close()


class Drawn:
    """What an action drew, read from its files, and all of `details`."""

    def __init__(self, found):
        files = [row["image"]["path"] for row in found["pictures"]]
        self.pictures, self.settings = [Image.open(file) for file in files], [read_picture(file) for file in files]
        self.command, self.python, self.details = found["command"], found["python"], found["details"]


def drawn(context, action=Create, **request) -> Drawn:
    *_, last = action(**{"steps": 2, **request}).run(context)
    return Drawn(last)


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_the_python_that_is_shown_makes_the_same_pictures(context, monkeypatch):
    monkeypatch.chdir(SAMPLES)
    files = {"audio": "cow.flac", "video": "sheep.mp4"}
    found = drawn(context, text='a "red" car', **files, video_weight=-0.3, seed=7, pictures=2, mix="lerp")
    scope = {}
    exec(found.python, scope)
    assert all(same(a, b) for a, b in zip(found.pictures, scope["pictures"], strict=True))
    assert len(found.pictures) == 2


@pytest.mark.parametrize(("files", "mix"), [({"image": "x.png"}, "slerp"), ({"image": "x.png", "audio": "-cow.flac"}, "slerp")])
def test_the_command_that_is_shown_makes_the_same_picture(context, tmp_path, monkeypatch, starter, files, mix):
    monkeypatch.chdir(tmp_path)
    starter(text="a cat", seed=1, num_inference_steps=2).images[0].save("x.png")
    shutil.copy(SAMPLES / "cow.flac", "-cow.flac")
    found = drawn(context, text="-a cat; $(ls)", **files, image_weight=0.25, mix=mix, seed=2, guidance=2.5)
    words = shlex.split(found.command)
    assert words[0] == "unialign-gen"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    assert same(Image.open("picture.png"), found.pictures[0])
    assert found.settings[0].request.mix == ("slerp" if len(files) == 1 else "spherical_mean")


def test_settings_from_a_png_draw_the_picture_again_without_the_files(context, tmp_path):
    first = drawn(context, text="a robot", audio=str(SAMPLES / "cow.flac"), audio_weight=0.5, seed=3)
    save_picture(first.pictures[0], tmp_path / "a.png", first.settings[0])
    back = read_picture(tmp_path / "a.png").request
    again = drawn(context, kept=[write_prompt(p) for p in back.prompts[0]], seed=back.seed)
    assert same(first.pictures[0], again.pictures[0])
    assert again.settings[0].to_json() == first.settings[0].to_json()


def test_nearest_concepts_are_those_of_a_plain_search(context, starter):
    found = drawn(context, text="a cat", steps=1)
    table = context.engine.concepts("starter")
    apart = table.whitening
    cosines = torch.nn.functional.cosine_similarity(table.points @ apart, starter.embed(text="a cat") @ apart)
    best = int(cosines.argmax())
    near = found.details["concepts"]
    assert near[0] == {"name": table.names[best], "cosine": pytest.approx(float(cosines[best]), abs=1e-4)}
    assert near == sorted(near, key=lambda row: -row["cosine"])
    assert [row["concepts"] for row in found.details["prompts"]] == [[row["name"] for row in near[:3]]]


def test_previews_are_what_the_scheduler_estimates(starter):
    kept = {}
    pipe = starter

    def step_end(p, step, t, tensors):
        kept[step] = (int(t), tensors["latents"].clone())
        return tensors

    pipe(text="a cat", seed=0, num_inference_steps=12, callback_on_step_end=step_end)
    scheduler = pipe.scheduler
    t, before = kept[5][0], kept[4][1]
    t = kept[5][0]
    torch.manual_seed(0)
    output = scheduler.step(torch.randn_like(before), t, before)
    to = t - 1000 // 12
    found = clean_estimate(before, output.prev_sample, scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[to])
    torch.testing.assert_close(found, output.pred_original_sample, atol=1e-3, rtol=1e-3)


def test_a_preview_resembles_the_picture_and_is_bounded_in_time(context, monkeypatch):
    monkeypatch.setattr(Previewer, "look", look_at_once)
    *reports, last = Create(text="a cat", steps=6).run(context)
    previews = [r.pictures[0] for r in reports if isinstance(r, Progress) and r.pictures]
    final = np.asarray(Drawn(last).pictures[0].resize(previews[0].size, Image.Resampling.BOX)).astype(float)
    errors = [np.abs(np.asarray(p).astype(float) - final).mean() for p in previews]
    assert len(previews) >= 3
    assert errors[-1] < errors[0]
    assert errors[-1] < 25
    assert [r.done for r in reports] == [0, 1, 2, 3, 4, 5, 6]


real_look = Previewer.look


def look_at_once(self, step, latents):
    self.first = Previewer.due = 0.0
    return real_look(self, step, latents)


def test_a_preview_waits_for_its_share_of_time(starter, monkeypatch):
    previewer = Previewer(starter)
    starter.scheduler.set_timesteps(20)
    side = starter.unet.config.sample_size
    latents = torch.randn(1, starter.unet.config.in_channels, side, side)
    monkeypatch.setattr(Previewer, "due", 0.0)
    previewer.first = 0.0
    previewer.look(0, latents)
    start = time.monotonic()
    assert previewer.look(1, latents)
    assert previewer.due - start > 5 * (time.monotonic() - start)
    assert previewer.look(2, latents) == []
    other = Previewer(starter)  # the share is that of all calls together
    other.first = 0.0
    assert [other.look(step, latents) for step in (0, 1)] == [[], []]


def test_latents_of_the_second_decoder_become_its_pictures():
    import unialign_gen

    pipe = unialign_gen.load("starter", decoder="stable-unclip")
    pipe.set_progress_bar_config(disable=True)
    call = {"text": "a cat", "seed": 0, "num_inference_steps": 2, "upscale": 1}
    pictures = decode_latents(pipe, pipe(**call, output_type="latent").images)
    expected = pipe(**call).images
    assert np.abs(np.asarray(pictures[0]).astype(int) - np.asarray(expected[0]).astype(int)).max() <= 1


def test_stopping_ends_the_work_between_two_steps(context, engine):
    run = Create(text="a cat", steps=50).run(context, "someone")
    assert isinstance(next(run), Progress)
    assert engine.cancel("another") == 0
    assert engine.cancel("someone") == 1
    with pytest.raises(CancelledError):
        list(run)
    start = time.monotonic()
    assert engine.batching.call(lambda: 1) == 1
    assert time.monotonic() - start < 5
    assert engine.jobs == set()


def test_an_abandoned_request_stops_too(context, engine):
    run = Create(text="a cat", steps=50).run(context, "someone")
    next(run)
    run.close()
    start = time.monotonic()
    engine.batching.call(lambda: 1)
    assert time.monotonic() - start < 5


def test_a_job_has_a_deadline(starter, context):
    impatient = Engine(Limits(job_seconds=0.0))
    impatient.pipelines["starter"] = starter
    with pytest.raises(InputError, match="took longer"):
        list(Create(text="a cat", steps=5).run(replace(context, engine=impatient)))
    impatient.close()


def test_answers_belong_to_their_requests(context, starter):
    texts = ["a cat", "a red car", "a tree", "a fish"]
    found = {}

    def ask(i):
        found[i] = drawn(context, text=texts[i], seed=i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, text in enumerate(texts):
        alone = np.asarray(starter(text=text, seed=i, num_inference_steps=2).images[0]).astype(int)
        assert np.abs(np.asarray(found[i].pictures[0]) - alone).max() <= 1
        assert [(p.kind, p.value, p.weight) for p in found[i].settings[0].request.prompts[0]] == [("text", text, 1.0)]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "nothing to draw"), ({"text": "  "}, "nothing to draw"), ({"text": "x" * 501}, "at most 500"),
        ({"text": ["a"]}, "must be a text"), ({"text": "a", "text_weight": 3}, "weight of text"),
        ({"text": "a", "text_weight": 0}, "all weights are zero"), ({"text": "a", "mix": "add"}, "mix must be"),
        ({"text": "a", "pictures": 9}, "pictures"), ({"text": "a", "steps": 0}, "steps"), ({"text": "a", "seed": -1}, "seed"),
        ({"text": "a", "guidance": "3"}, "guidance"), ({"text": "a", "model": "/etc"}, "model must be"),
        ({"text": "a", "audio": {"path": 1}}, "must be a file"),
        ({"text": "a", "image": str(SAMPLES / "cow.flac")}, "cow.flac is not a picture"),
        ({"text": "a", "audio": str(SAMPLES / "cow.flac"), "audio_weight": -1, "mix": "slerp"}, "negative"),
        ({"kept": [write_prompt(Prompt("audio", "x.wav", 1.0, (1.0,)))]}, "another model"),
        ({"kept": [write_prompt(Prompt("text", "x", 3.0))]}, "weight of text"), ({"kept": [1]}, "cannot be used"),
        ({"text": "a", "best_of": 9, "pictures": 2}, "together at most 16"), ({"text": "a", "size": 4096}, "size"),
        ({"text": "a", "size": 200}, "multiple of 128"), ({"text": "a", "upscale": 3}, "upscale"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_drawn(context, request_, said):
    with pytest.raises(InputError, match=said) as caught:
        drawn(context, **request_)
    assert str(SAMPLES) not in str(caught.value)


def test_models_are_those_on_this_disk_and_share_their_encoders(engine):
    labels = [m.label for m in on_disk()]
    assert labels[:3] == ["starter", "starter, kandinsky-distilled decoder", "starter, stable-unclip decoder"]
    for label in labels[:2]:
        engine.pipeline(label)
    first, second = (engine.pipelines[label] for label in labels[:2])
    assert first.aligner is second.aligner


def test_recipes_quote_what_they_must():
    prompts = (Prompt("text", 'it\'s; rm -rf / \n"x"'), Prompt("image", "a b.png"))
    settings = PictureSettings(Request((prompts,), "slerp", seed=3, steps=12, guidance=3.0))
    words = shlex.split(command(settings))
    assert words[words.index("--text") + 1] == prompts[0].value
    assert words[words.index("--image") + 1] == "a b.png"
    assert "--weight" not in words
    compile(python(settings), "x", "exec")


def test_several_of_a_kind_are_shown_as_what_draws_them(context, tmp_path, monkeypatch):
    monkeypatch.chdir(SAMPLES)
    sounds = [p for name in ("cow.flac", "chicken.flac") for p in encoded(context, name)]
    found = drawn(
        context, kept=[{**sounds[0], "weight": 0.5}, {"kind": "text", "value": "a robot"}, sounds[1]], mix="spherical_mean"
    )
    scope = {}
    exec(found.python, scope)
    assert same(found.pictures[0], scope["pictures"][0])
    words = [*shlex.split(found.command)[:-1], str(tmp_path / "picture.png")]
    assert words.count("--audio") == 2
    assert CliRunner().invoke(app, words[1:]).exit_code == 0
    assert same(Image.open(tmp_path / "picture.png"), found.pictures[0])


def encoded(context, name):
    *_, read = Read(file=str(SAMPLES / name)).run(context)
    return [read["part"]]


def test_best_of_and_size_are_the_library_s(context, starter):
    best = drawn(context, text="a cat", best_of=3)
    assert same(best.pictures[0], starter(text="a cat", seed=0, num_inference_steps=2, best_of=3).images[0])
    assert best.settings[0].request.best_of == 3
    assert "--best-of 3" in best.command
    assert drawn(context, text="a cat", size=256, steps=1).pictures[0].size == (256, 256)


def test_an_edit_is_the_library_s_and_the_command_s(context, starter, tmp_path, monkeypatch):
    starter(text="a cat", seed=1, num_inference_steps=1).images[0].save(tmp_path / "picture.png")
    mask = Image.new("L", (512, 512))
    mask.paste(255, (128, 128, 384, 384))
    mask.save(tmp_path / "mask.png")
    files = {"picture": str(tmp_path / "picture.png"), "mask": str(tmp_path / "mask.png")}
    found = drawn(context, Edit, text="a dog", **files)
    expected = starter.edit(files["picture"], files["mask"], text="a dog", seed=0, num_inference_steps=2).images[0]
    assert same(found.pictures[0], expected)
    assert found.command.startswith("unialign-gen edit picture.png --mask mask.png --text 'a dog'")
    assert "generate.edit(\n    \"picture.png\",\n    mask='mask.png',\n    text='a dog'," in found.python
    assert found.settings[0].edit == "inpaint of a picture, strength 1"
    monkeypatch.chdir(tmp_path)
    typed = CliRunner().invoke(app, shlex.split(found.command)[1:])
    assert typed.exit_code == 0, typed.output
    assert same(Image.open("edited.png").convert("RGB"), expected)
    with pytest.raises(InputError, match="nothing to edit"):
        drawn(context, Edit, text="a dog")


def moment(context, **values):
    *_, found = Live(**values).run(context)
    points = {"point": found["moment"]["point"], "base": (found["moment"]["base"] or [{}])[0].get("embedding")}
    return SimpleNamespace(**found["moment"] | {k: v and torch.tensor(read_vector(v)) for k, v in points.items()})


def test_live_moves_towards_what_is_heard_and_stands_still_in_silence(context, starter):
    samples = load_sound(SAMPLES / "cow.flac", RATE)[: 2 * RATE]
    cow = base64.b64encode((samples * 32767).numpy().astype("<i2").tobytes()).decode()
    first = moment(context, samples=cow)
    assert len(first.pictures) == 1
    assert first.heard[0] == "cow"
    words = starter.embed(text="a robot")[0]
    there = base64.b64encode(words.numpy().tobytes()).decode()
    then = moment(context, samples=cow, previous=there, elapsed=0.6, pictures=3)
    assert len(then.pictures) == 3
    assert float(words @ first.point) < float(then.point @ first.point) < 1
    assert float(moment(context, samples=cow, previous=there, elapsed=9.0).point @ first.point) > 0.999
    silent = moment(context, previous=there)
    assert float(silent.point @ words) == pytest.approx(1, abs=1e-5)
    assert moment(context).pictures == []
    assert float(moment(context, text="a robot").point @ words) == pytest.approx(1, abs=1e-5)
    kept = [write_prompt(Prompt("embeds", words.tolist()))]  # as the page sends it back
    torch.testing.assert_close(moment(context, kept=kept).base, words.as_subclass(torch.Tensor), atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", ["?", base64.b64encode(bytes(2 * 4 * RATE)).decode(), 3])
def test_samples_that_cannot_be_heard(context, samples):
    with pytest.raises(InputError, match=r"samples must be|at most 3 s"):
        moment(context, samples=samples)


@pytest.mark.parametrize(
    ("asked", "count", "found"),
    [
        ("beside", 2, "beside"),
        ("beside", 1, "lerp"),
        ("slerp", 2, "slerp"),
        ("slerp", 3, "spherical_mean"),
        ("lerp", 3, "lerp"),
    ],
)
def test_how_parts_blend_is_as_asked_where_it_can_be(asked, count, found):
    from unialign_gen.demo.create import method_for
    from unialign_gen.request import Prompt

    assert method_for(asked, [Prompt("text", "a")] * count) == found
