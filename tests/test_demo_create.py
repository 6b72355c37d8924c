"""What the page draws: the same as the library and the command line; previews, stopping, and one-line refusals."""

import shlex
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.demo.create import Create, Drawn
from unialign_gen.demo.decode_worker import DecodeWorker
from unialign_gen.demo.engine import CancelledError, Engine, Progress
from unialign_gen.demo.limits import Limits
from unialign_gen.demo.models import on_disk
from unialign_gen.demo.preview import Previewer, clean_estimate, decode_latents
from unialign_gen.demo.snippets import command, python
from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.request import Prompt, Request
from unialign_gen.request.picture_settings import PictureSettings, read_picture, save_picture
from unialign_gen.request.request import write_prompt

SAMPLES = shipped_folder() / "samples"
LIMITS = Limits()


@pytest.fixture(scope="module")
def engine(starter):
    made = Engine(LIMITS)
    made.pipelines["starter"] = starter
    yield made
    made.close()


@pytest.fixture(scope="module")
def decode_worker():
    made = DecodeWorker(LIMITS)
    yield made
    made.close()


def drawn(engine, decode_worker, **request) -> Drawn:
    *_, last = Create(**{"steps": 2, **request}).run(engine, decode_worker)
    return last


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_the_python_that_is_shown_makes_the_same_pictures(engine, decode_worker, monkeypatch):
    monkeypatch.chdir(SAMPLES)
    files = {"audio": "cow.flac", "video": "sheep.mp4"}
    found = drawn(
        engine, decode_worker, text='a "red" car', files=files, weights={"video": -0.3}, seed=7, pictures=2, mix="lerp"
    )
    scope = {}
    exec(python(found.settings[0], 2), scope)
    assert all(same(a, b) for a, b in zip(found.pictures, scope["pictures"], strict=True))
    assert len(found.pictures) == 2


@pytest.mark.parametrize(("files", "mix"), [({"image": "x.png"}, "slerp"), ({"image": "x.png", "audio": "-cow.flac"}, "slerp")])
def test_the_command_that_is_shown_makes_the_same_picture(engine, decode_worker, tmp_path, monkeypatch, starter, files, mix):
    monkeypatch.chdir(tmp_path)
    starter(text="a cat", seed=1, num_inference_steps=2).images[0].save("x.png")
    shutil.copy(SAMPLES / "cow.flac", "-cow.flac")
    found = drawn(
        engine, decode_worker, text="-a cat; $(ls)", files=files, weights={"image": 0.25}, mix=mix, seed=2, guidance=2.5
    )
    words = shlex.split(command(found.settings[0]))
    assert words[0] == "unialign-gen"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    from PIL import Image

    assert same(Image.open("picture.png"), found.pictures[0])
    assert found.settings[0].request.mix == ("slerp" if len(files) == 1 else "spherical_mean")


def test_settings_from_a_png_draw_the_picture_again_without_the_files(engine, decode_worker, tmp_path):
    first = drawn(
        engine, decode_worker, text="a robot", files={"audio": str(SAMPLES / "cow.flac")}, weights={"audio": 0.5}, seed=3
    )
    save_picture(first.pictures[0], tmp_path / "a.png", first.settings[0])
    back = read_picture(tmp_path / "a.png").request
    prompts = back.prompts[0]
    weights = {p.kind: p.weight for p in prompts}
    again = drawn(
        engine, decode_worker, text=prompts[0].value, kept=[write_prompt(p) for p in prompts], weights=weights, seed=back.seed
    )
    assert same(first.pictures[0], again.pictures[0])
    assert again.settings[0].to_json() == first.settings[0].to_json()


def test_nearest_concepts_are_those_of_a_plain_search(engine, decode_worker, starter):
    found = drawn(engine, decode_worker, text="a cat", steps=1)
    table = engine.concepts("starter")
    apart = table.whitening
    cosines = torch.nn.functional.cosine_similarity(table.points @ apart, starter.embed(text="a cat") @ apart)
    best = int(cosines.argmax())
    assert found.nearest[0] == (table.names[best], pytest.approx(float(cosines[best]), abs=1e-5))
    assert [v for _, v in found.nearest] == sorted((v for _, v in found.nearest), reverse=True)
    assert len(found.nearest_each) == 1


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


def test_a_preview_resembles_the_picture_and_is_bounded_in_time(engine, decode_worker, monkeypatch):
    monkeypatch.setattr(Previewer, "look", look_at_once)
    *reports, last = Create(text="a cat", steps=6).run(engine, decode_worker)
    previews = [r.pictures[0] for r in reports if isinstance(r, Progress) and r.pictures]
    final = np.asarray(last.pictures[0]).astype(float)
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
    latents = torch.randn(1, 8, 16, 16)
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
    call = {"text": "a cat", "seed": 0, "num_inference_steps": 2}
    pictures = decode_latents(pipe, pipe(**call, output_type="latent").images)
    expected = pipe(**call).images
    assert np.abs(np.asarray(pictures[0]).astype(int) - np.asarray(expected[0]).astype(int)).max() <= 1


def test_stopping_ends_the_work_between_two_steps(engine, decode_worker):
    run = Create(text="a cat", steps=50).run(engine, decode_worker, "someone")
    assert isinstance(next(run), Progress)
    assert engine.cancel("another") == 0
    assert engine.cancel("someone") == 1
    with pytest.raises(CancelledError):
        list(run)
    start = time.monotonic()
    assert engine.batching.call(lambda: 1) == 1
    assert time.monotonic() - start < 5
    assert engine.jobs == {}


def test_an_abandoned_request_stops_too(engine, decode_worker):
    run = Create(text="a cat", steps=50).run(engine, decode_worker, "someone")
    next(run)
    run.close()
    start = time.monotonic()
    engine.batching.call(lambda: 1)
    assert time.monotonic() - start < 5


def test_a_job_has_a_deadline(starter, decode_worker):
    impatient = Engine(Limits(job_seconds=0.0))
    impatient.pipelines["starter"] = starter
    with pytest.raises(InputError, match="took longer"):
        list(Create(text="a cat", steps=5).run(impatient, decode_worker))
    impatient.close()


def test_answers_belong_to_their_requests(engine, decode_worker, starter):
    texts = ["a cat", "a red car", "a tree", "a fish"]
    found = {}

    def ask(i):
        found[i] = drawn(engine, decode_worker, text=texts[i], seed=i)

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
        ({"text": ["a"]}, "must be a text"), ({"text": "a", "weights": {"text": 3}}, "weight of text"),
        ({"text": "a", "weights": {"text": 0}}, "all weights are zero"), ({"text": "a", "mix": "add"}, "mix must be"),
        ({"text": "a", "pictures": 9}, "pictures"), ({"text": "a", "steps": 0}, "steps"), ({"text": "a", "seed": -1}, "seed"),
        ({"text": "a", "guidance": "3"}, "guidance"), ({"text": "a", "model": "/etc"}, "model must be"),
        ({"text": "a", "files": {"audio": {"path": 1}}}, "must be a file"),
        ({"text": "a", "files": {"image": str(SAMPLES / "cow.flac")}}, "cow.flac is not a picture"),
        ({"text": "a", "files": {"audio": str(SAMPLES / "cow.flac")}, "weights": {"audio": -1}, "mix": "slerp"}, "negative"),
        ({"kept": [write_prompt(Prompt("audio", "x.wav", 1.0, (1.0,)))]}, "another model"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_drawn(engine, decode_worker, request_, said):
    with pytest.raises(InputError, match=said) as caught:
        drawn(engine, decode_worker, **request_)
    assert str(SAMPLES) not in str(caught.value)


def test_models_are_those_on_this_disk_and_share_their_encoders(engine):
    labels = [m.label for m in on_disk()]
    assert labels[:2] == ["starter", "starter, stable-unclip decoder"]
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
