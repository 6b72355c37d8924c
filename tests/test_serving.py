"""Requests of many callers in one denoising batch: each gives the picture it gives alone, and no fault is another's."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

import unialign_gen
from unialign_gen.errors import InputError
from unialign_gen.notes import collected
from unialign_gen.request.arguments import ask
from unialign_gen.serving import BatchingEngine, SharedPipeline
from unialign_gen.serving.together import RowGuidance, batch_key


@pytest.fixture(scope="module")
def second():
    pipeline = unialign_gen.load("starter", decoder="stable-unclip")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixels(picture):
    return np.asarray(picture).astype(int)


def together(pipeline, requests, **options):
    """All of them submitted while the engine is busy, so that they meet; what each gave, and how many batches it took."""
    with BatchingEngine(**options) as engine:
        free = threading.Event()
        busy = threading.Thread(target=engine.call, args=(free.wait,))
        busy.start()
        futures = [engine.submit(pipeline, request) for request in requests]
        free.set()
        answers = [f.exception() or f.result() for f in futures]
        busy.join()
        return answers, engine.batches


def test_guidance_of_each_row():
    rows = torch.randn(2, 4, 3, 3)
    scale = RowGuidance([1.5, 7.3])
    assert scale > 1
    torch.testing.assert_close(scale * rows, torch.stack([1.5 * rows[0], 7.3 * rows[1]]))


def test_a_batch_gives_every_request_the_picture_it_gives_alone(starter):
    cow = unialign_gen.checkpoints.__path__[0] + "/samples/cow.flac"
    asked = [
        {"text": "a cat", "seed": 3},
        {"text": ["a red car", "a cat and a fish"], "seed": 8, "guidance_scale": 6.5, "num_images_per_prompt": 2},
        {"text": "a robot", "audio": cow, "weights": {"text": 0.6, "audio": 0.4}, "seed": 3, "guidance_scale": 1.2},
        {"embeds": torch.randn(starter.aligner.embed_dim), "seed": [5]},
    ]
    requests = [ask(**given, num_inference_steps=3, upscale=1) for given in asked]
    answers, batches = together(starter, requests)
    assert batches == 1
    for answer, request in zip(answers, requests, strict=True):
        alone = starter.draw(request)
        assert len(answer.images) == len(alone.images)
        assert max(np.abs(pixels(a) - pixels(b)).max() for a, b in zip(answer.images, alone.images, strict=True)) <= 1
        assert (answer.request.seed, answer.request.steps, answer.request.guidance) == (
            alone.request.seed,
            3,
            alone.request.guidance,
        )
    assert np.abs(pixels(answers[0].images[0]) - pixels(answers[2].images[0])).max() > 20  # or the check says nothing
    weights = [w for w in (*starter.unet.parameters(), *starter.movq.parameters()) if w.ndim == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)  # as it was loaded
    assert "decode" not in vars(starter.movq)


def test_words_of_the_second_decoder_stay_each_request_s_own(second):
    asked = [
        {"text": "a cat", "decoder_prompt": "pencil", "seed": 1},
        {
            "text": ["a car", "a dog and a fish"],
            "decoder_prompt": ["red", "blue"],
            "negative_decoder_prompt": "dark",
            "seed": 2,
        },
        {"text": "a tree", "seed": 3},
        {"text": "a tree", "seed": 3, "noise_level": 300},
        {"text": "a tree", "seed": 3, "guidance_scale": 1.0},
        {"text": ["a tree", "a cat"], "seed": 3, "decoder_prompt": ["one"]},
    ]
    requests = [ask(**given, num_inference_steps=2, upscale=1) for given in asked]
    answers, batches = together(second, requests)
    assert batches == 4  # other negative words, another noise level, and no guidance, are batches of their own
    for answer, request in zip(answers[:5], requests, strict=False):
        alone = second.draw(request)
        assert max(np.abs(pixels(a) - pixels(b)).max() for a, b in zip(answer.images, alone.images, strict=True)) <= 1
    assert isinstance(answers[5], InputError)
    assert "1 values of decoder_prompt for 2 prompts" in str(answers[5])


def test_what_cannot_share_a_batch_is_drawn_alone(starter):
    same = ask(text="a cat", seed=1, num_inference_steps=2)
    assert batch_key(starter, same) == batch_key(starter, ask(text="a car", seed=[9], num_inference_steps=2, guidance_scale=9))
    for other in (
        {"num_inference_steps": 3},
        {"height": 64, "width": 64},
        {"output_type": "np"},
        {"guidance_scale": 1},
        {"negative_decoder_prompt": ""},
    ):
        assert batch_key(starter, ask(**{"text": "a cat", "num_inference_steps": 2, **other})) != batch_key(starter, same)
    for lonely in ({"generator": torch.Generator()}, {"latents": torch.zeros(1, 8, 16, 16)}, {"noise_level": 3}):
        assert batch_key(starter, ask(text="a cat", **lonely)) is None


def test_no_caller_s_fault_is_another_s(starter):
    """An unknown option, a prompt that cannot be read, a callback that raises, latents that a callback changes."""
    seen = []

    def stop(_, step, t, tensors):
        raise InputError(f"enough at {step} of {tuple(tensors['latents'].shape)}")

    def watch(_, step, t, tensors):
        seen.append((step, len(tensors["latents"])))

    def blank(_, step, t, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else None

    plain = ask(text="a cat", seed=1, num_inference_steps=2)
    requests = [
        plain,
        ask(text="a cat", seed=1, num_inference_steps=2, noise_level=3),
        ask(embeds=torch.zeros(starter.aligner.embed_dim), num_inference_steps=2),
        ask(text="a cat", seed=1, num_inference_steps=2, callback_on_step_end=stop),
        ask(text=["a cat", "a car"], seed=1, num_inference_steps=2, callback_on_step_end=watch),
        ask(text="a cat", seed=1, num_inference_steps=2, callback_on_step_end=blank),
    ]
    answers, _ = together(starter, requests)
    expected = pixels(starter.draw(plain).images[0])
    assert np.abs(pixels(answers[0].images[0]) - expected).max() <= 1
    assert "takes no noise_level" in str(answers[1])
    assert isinstance(answers[2], InputError)
    unet = starter.unet.config
    assert str(answers[3]) == f"enough at 0 of {(1, unet.in_channels, unet.sample_size, unet.sample_size)}"
    assert seen == [(0, 2), (1, 2)]
    assert np.abs(pixels(answers[4].images[0]) - expected).max() <= 1
    assert np.abs(pixels(answers[5].images[0]) - pixels(starter.draw(requests[5]).images[0])).max() <= 1
    assert np.abs(pixels(answers[5].images[0]) - expected).max() > 20


def test_a_batch_that_all_have_left_ends_at_once(starter):
    steps = []

    def stop(_, step, t, tensors):
        steps.append(step)
        raise InputError("enough")

    answers, _ = together(starter, [ask(text="a cat", num_inference_steps=40, callback_on_step_end=stop)] * 2)
    assert [str(a) for a in answers] == ["enough"] * 2
    assert steps == [0, 0]


def test_batches_hold_so_many_pictures_and_keep_the_order(starter):
    def one(steps, count=1):
        return ask(text="a cat", seed=0, num_inference_steps=steps, num_images_per_prompt=count, upscale=1)

    answers, batches = together(starter, [one(1), one(2), one(1, 2), one(1), one(2), one(1, 4)], rows=3)
    assert [len(a.images) for a in answers] == [1, 1, 2, 1, 1, 4]
    assert batches == 4  # 1 + 2, then two of two steps, then the last of one step, then one that is too large for a batch


def test_a_request_that_waits_can_be_given_up(starter):
    with BatchingEngine() as engine:
        free = threading.Event()
        busy = threading.Thread(target=engine.call, args=(free.wait,))
        busy.start()
        asked = time.monotonic()

        def check():
            if time.monotonic() > asked + 0.1:
                raise InputError("left")

        with pytest.raises(InputError, match="left"):
            SharedPipeline(starter, engine, check).draw(ask(text="a cat", num_inference_steps=1))
        waiting = engine.submit(starter, ask(text="a cat", num_inference_steps=1))
        assert waiting.cancel()
        free.set()
        busy.join()
        assert engine.call(lambda: 5) == 5
        assert engine.batches == 0
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(starter, ask(text="a cat"))


def test_what_is_set_is_set_in_the_pipeline(starter):
    own = starter.scheduler
    with BatchingEngine() as engine:
        shared = SharedPipeline(starter, engine)
        try:
            shared.scheduler = DDPMScheduler.from_config(own.config)
            assert type(starter.scheduler) is type(shared.scheduler) is DDPMScheduler
        finally:
            starter.scheduler = own


def test_what_waits_when_the_engine_closes_is_cancelled(starter):
    engine = BatchingEngine(linger=30)
    future = engine.submit(starter, ask(text="a cat", num_inference_steps=1))
    engine.close()
    with pytest.raises(CancelledError):
        future.result(5)


def test_notes_reach_the_caller_who_collects_them(starter):
    found = {}
    barrier = threading.Barrier(2)

    def user(word):
        pipeline = SharedPipeline(starter, engine)
        with collected() as notes:
            barrier.wait()
            out = pipeline(text=f"a {word}", seed=0, num_inference_steps=1)
            pipeline.embed(text=f"two {word}")
        found[word] = ([n.text for n in notes], [n.text for n in out.notes])

    with BatchingEngine(linger=1) as engine:
        threads = [threading.Thread(target=user, args=(word,)) for word in ("\u732b", "\u9f98")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.batches == 1
    for word, (notes, own) in found.items():
        assert any(word in text for text in notes)
        assert all(other not in " ".join(notes + own) for other in found if other != word)


def test_what_two_requests_of_a_batch_share_is_encoded_once_and_its_notes_are_told_to_both(starter, monkeypatch):
    words, embed = [], starter.aligner.embed

    def counted(modality, inputs):
        words.extend(inputs)
        return embed(modality, inputs)

    asked = [["a \u732b"], ["a cat", "a \u732b"], ["a \u732b"]]
    requests = [ask(text=text, seed=i, num_inference_steps=2, upscale=1) for i, text in enumerate(asked)]
    with monkeypatch.context() as patched:
        patched.setattr(starter.aligner, "embed", counted)
        answers, batches = together(starter, requests)
    assert (sorted(words), batches) == (["a cat", "a \u732b"], 1)
    for answer, request in zip(answers, requests, strict=True):
        alone = starter.draw(request)
        assert [str(n) for n in answer.notes] == [str(n) for n in alone.notes]
        assert max(np.abs(pixels(a) - pixels(b)).max() for a, b in zip(answer.images, alone.images, strict=True)) <= 1


def test_a_request_that_comes_while_a_batch_is_taken_is_not_lost(starter):
    early, late = (ask(text="a cat", seed=seed, num_inference_steps=1) for seed in (0, 1))

    class Slow(BatchingEngine):
        def _add(self, task, to):
            if task.request is late:
                self.submit(starter, early).result(120)  # taken after the queue was named and before it is added to
            super()._add(task, to)

    with Slow() as engine:
        assert len(engine.submit(starter, late).result(120).images) == 1


def test_a_shared_pipeline_is_used_like_its_own(starter):
    with BatchingEngine() as engine:
        shared = SharedPipeline(starter, engine)
        assert torch.equal(shared.embed(text="a cat"), starter.embed(text="a cat"))
        assert torch.equal(shared.aligner("text", ["a cat"]), starter.aligner("text", ["a cat"]))
        assert shared.aligner.sound_rate == starter.aligner.sound_rate
        assert shared.prior is starter.prior
        assert shared.interpolate(*starter.embed(text=["a cat", "a car"]), frames=2, num_inference_steps=1).images
        assert isinstance(shared(text="a cat", num_inference_steps=1, return_dict=False), tuple)


def test_a_batch_is_enlarged_as_each_request_would_be_alone(enlarging):
    requests = [ask(text=text, seed=3, num_inference_steps=2, upscale=scale) for text, scale in (("a cat", 2), ("a car", 2))]
    answers, batches = together(enlarging, requests)
    assert batches == 1
    for answer, request in zip(answers, requests, strict=True):
        alone = enlarging.draw(request)
        assert answer.images[0].size == alone.images[0].size == (2 * enlarging.sample_side,) * 2
        assert np.abs(pixels(answer.images[0]) - pixels(alone.images[0])).max() <= 1
    other = ask(text="a cat", seed=3, num_inference_steps=2, upscale=4)
    assert batch_key(enlarging, other) != batch_key(enlarging, requests[0])
