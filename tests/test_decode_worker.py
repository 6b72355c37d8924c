"""Strangers' files: decoded as the library decodes them, or one line; never a hang, a crash or another file."""

import random
import shutil
import time
import zlib

import numpy as np
import pytest
import torch
from conftest import tone, write_video, write_wav
from PIL import Image

from unialign_gen.checkpoint import shipped_folder
from unialign_gen.demo.decode_worker import DecodeWorker
from unialign_gen.demo.limits import Limits, choice, decimal, whole, words
from unialign_gen.errors import InputError
from unialign_gen.media import load_image, load_sound, load_video

SAMPLES = shipped_folder() / "samples"


@pytest.fixture(scope="module")
def decode_worker():
    made = DecodeWorker(Limits(decode_seconds=15))
    yield made
    made.close()


def test_files_come_out_as_the_library_decodes_them(decode_worker, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 4), np.uint8), "RGBA")
    picture.save(tmp_path / "a.png")
    found = decode_worker.decode("any", str(tmp_path / "a.png"))
    assert (found.kind, found.name) == ("image", "a.png")
    assert np.array_equal(np.asarray(found.value), np.asarray(load_image(tmp_path / "a.png")))
    sound = decode_worker.decode("any", str(SAMPLES / "cow.flac"), 44100)
    assert sound.kind == "audio"
    assert torch.equal(sound.value.samples, load_sound(SAMPLES / "cow.flac", 44100))
    clip, expected = (
        decode_worker.decode("any", str(SAMPLES / "sheep.mp4"), 44100),
        load_video(SAMPLES / "sheep.mp4", rate=44100),
    )
    assert clip.kind == "video"
    assert torch.equal(clip.value.sound, expected.sound)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(clip.value.frames, expected.frames, strict=True))


def test_a_track_is_cut_at_the_limit(tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(3, 44100), 44100)
    assert DecodeWorker(Limits(film_seconds=1)).decode("track", str(wav)).value.shape == (44100, 2)


@pytest.mark.parametrize(
    ("kind", "make", "words"),
    [
        ("image", lambda p: p.write_bytes(b""), "empty"),
        ("image", lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a picture"),
        ("image", lambda p: Image.new("L", (9000, 9000)).save(p, "PNG"), "megapixels"),
        ("audio", lambda p: p.write_bytes(b"#EXTM3U\n#EXTINF:5,\n" + str(SAMPLES / "cow.flac").encode()), "not a sound"),
        ("audio", lambda p: p.write_bytes(b"ffconcat version 1.0\nfile cow.flac\n"), "not a sound"),
        ("audio", lambda p: write_video(p.with_suffix(".mp4"), sound=False).rename(p), "no sound"),
        ("video", lambda p: write_wav(p, tone(1, 8000), 8000), "no video"),
        ("any", lambda p: p.write_bytes(b"hello" * 99), "not a sound or video"),
    ],
)
def test_files_that_are_refused(decode_worker, tmp_path, kind, make, words):
    shutil.copy(SAMPLES / "cow.flac", tmp_path)
    make(tmp_path / "bad")
    with pytest.raises(InputError, match=words) as caught:
        decode_worker.decode(kind, str(tmp_path / "bad"))
    assert str(tmp_path) not in str(caught.value)


def test_long_and_large_media_are_refused_before_they_are_decoded(tmp_path):
    wav, video = write_wav(tmp_path / "a.wav", tone(3, 8000), 8000), write_video(tmp_path / "b.mp4")
    small = DecodeWorker(Limits(media_seconds=2.5, frame_pixels=64 * 63))
    with pytest.raises(InputError, match="3 s long"):
        small.decode("audio", str(wav))
    with pytest.raises(InputError, match="64 x 64"):
        small.decode("video", str(video))


def test_time_is_bounded_and_the_next_file_is_decoded(tmp_path):
    long, short = (write_wav(tmp_path / f"{n}.wav", tone(n, 44100), 44100) for n in (120, 1))
    decode_worker = DecodeWorker(Limits(film_seconds=120))
    worker = decode_worker.take()
    start = time.monotonic()
    with pytest.raises((OSError, ValueError)):
        worker.ask("track", str(long), 44100, seconds=0.02)
    assert time.monotonic() - start < 5
    decode_worker.idle.append(worker)  # dead by now
    with pytest.raises(InputError, match=r"1.wav cannot be decoded within this page's limits of time"):
        decode_worker.decode("audio", str(short))
    assert decode_worker.decode("audio", str(short)).seconds == 1
    decode_worker.close()


def test_memory_is_bounded_and_the_next_file_is_decoded(tmp_path):
    Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png")
    Image.new("RGB", (60, 60)).save(tmp_path / "b.png")
    decode_worker = DecodeWorker(Limits(decode_bytes=50_000_000))
    with pytest.raises(InputError, match=r"memory|damaged"):
        decode_worker.decode("image", str(tmp_path / "a.png"))
    assert decode_worker.decode("image", str(tmp_path / "b.png")).value.size == (60, 60)
    decode_worker.close()


def test_a_decoder_that_dies_costs_one_message(tmp_path):
    Image.new("RGB", (60, 60)).save(tmp_path / "b.png")
    decode_worker = DecodeWorker(Limits(decoders=1))
    decode_worker.warm()
    decode_worker.idle[0].process.kill()
    with pytest.raises(InputError, match="limits of time and memory"):
        decode_worker.decode("image", str(tmp_path / "b.png"))
    assert decode_worker.decode("image", str(tmp_path / "b.png")).value.size == (60, 60)
    worker = decode_worker.idle[0].process
    decode_worker.close()
    assert worker.poll() is not None


def test_mutated_files_are_decoded_or_refused(decode_worker, tmp_path):
    draw = random.Random(0)
    for name in ("cow.flac", "sheep.mp4"):
        whole_file = (SAMPLES / name).read_bytes()
        for _ in range(6):
            raw = bytearray(whole_file)
            for _ in range(draw.choice((1, 30, 3000))):
                raw[draw.randrange(min(len(raw), draw.choice((200, 10**9))))] = draw.randrange(256)
            (tmp_path / name).write_bytes(raw[: draw.randrange(1, len(raw))] if draw.random() < 0.3 else raw)
            said = outcome(decode_worker, tmp_path / name)
            assert len(said.splitlines()) == 1
            assert str(tmp_path) not in said


def outcome(decode_worker, path):
    try:
        return decode_worker.decode("any", str(path)).kind
    except InputError as error:
        return str(error)


def test_a_picture_that_unpacks_to_far_more_than_it_says(decode_worker, tmp_path):
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png").read_bytes()
    at = raw.index(b"IDAT")
    bomb = zlib.compress(bytes(200_000_000), 9)
    chunk = len(bomb).to_bytes(4, "big") + b"IDAT" + bomb + zlib.crc32(b"IDAT" + bomb).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(raw[: at - 4] + chunk + raw[-12:])
    assert decode_worker.decode("image", str(tmp_path / "a.png")).value.size == (10, 10)


@pytest.mark.parametrize(
    ("call", "words_of_it"),
    [
        (lambda: whole("3", "steps", 1, 5), "number from 1 to 5"),
        (lambda: whole(True, "steps", 1, 5), "number"),
        (lambda: whole(2.5, "steps", 1, 5), "whole"),
        (lambda: whole(10**400, "steps", 1, 5), "number"),
        (lambda: decimal(float("nan"), "weight", -1, 1), "number"),
        (lambda: decimal(1.5, "weight", -1, 1), "from -1 to 1"),
        (lambda: words({"a": 1}, "text", 5), "a text"),
        (lambda: words("abcdef", "text", 5), "at most 5"),
        (lambda: choice(["a"], "mix", ("a",)), "one of a"),
    ],
)
def test_numbers_and_words(call, words_of_it):
    with pytest.raises(InputError, match=words_of_it):
        call()
    assert whole(3.0, "steps", 1, 5) == 3
    assert words(None, "text", 5) == ""
