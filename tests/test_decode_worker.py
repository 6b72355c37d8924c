"""Strangers' files: decoded as the library decodes them, or one line; never a hang, a crash or another file."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tone, write_video, write_wav
from PIL import Image

from unialign_gen.demo.decode_worker import DecodeWorker
from unialign_gen.demo.limits import Limits, choice, decimal, whole, words
from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.media import load_image, load_sound, load_video
from unialign_gen.media.settings import save_picture
from unialign_gen.notes import collected

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


def test_the_process_starts_without_torch():
    """Which takes seconds and half a gigabyte."""
    code = "import sys, unialign_gen.demo.decode as d; d.warm_up(); print([m for m in ('torch',) if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_track_is_cut_at_the_limit(tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(3, 44100), 44100)
    assert DecodeWorker(Limits(film_seconds=1)).decode("track", str(wav)).value.samples.shape == (2, 44100)


@pytest.mark.parametrize(
    ("kind", "make", "words"),
    [
        ("image", lambda p: p.write_bytes(b""), "empty"),
        ("any", lambda p: None, "no longer on the server.*add it again"),
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
    with decode_worker.worker() as worker:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            worker.ask("track", long, 44100, seconds=0.02)
    assert time.monotonic() - start < 5
    hasty = DecodeWorker(Limits(film_seconds=120, decode_seconds=0.02))
    with pytest.raises(InputError, match=r"120.wav takes longer to decode than the 0.02 s"):
        hasty.decode("track", str(long))
    hasty.close()
    assert decode_worker.decode("audio", str(short)).seconds == 1
    decode_worker.close()


def test_memory_is_bounded_and_the_next_file_is_decoded(tmp_path):
    Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png")
    Image.new("RGB", (60, 60)).save(tmp_path / "b.png")
    decode_worker = DecodeWorker(Limits(decode_bytes=50_000_000))
    with pytest.raises(InputError, match="needs more memory"):
        decode_worker.decode("image", str(tmp_path / "a.png"))
    assert decode_worker.decode("image", str(tmp_path / "b.png")).value.size == (60, 60)
    decode_worker.close()


def test_a_decoder_that_dies_is_replaced_and_the_file_tried_again(tmp_path):
    Image.new("RGB", (60, 60)).save(tmp_path / "b.png")
    decode_worker = DecodeWorker(Limits(decoders=1))
    decode_worker.warm()
    with decode_worker.worker() as worker:
        first = worker.process
    first.kill()
    assert decode_worker.decode("image", str(tmp_path / "b.png")).value.size == (60, 60)
    with decode_worker.worker() as worker:
        assert worker.process is not first
    decode_worker.close()
    assert worker.process.poll() is not None


def test_the_processes_are_readied_once_by_whoever_asks():
    made = DecodeWorker(Limits())
    threads = [threading.Thread(target=made.warm) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert all(made.places.queue)
    made.close()


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


PROBE = """
import json, os, socket, sys, pathlib
sys.argv = ["x", sys.argv[1]]
from unialign_gen.demo import decode
from unialign_gen.demo.limits import Limits
outside, inside = sys.argv[1].split(":")
decode.warm_up()
os.dup2(1, 3)
decode.narrow(Limits())
found = {}
def attempt(name, call):
    try:
        call()
        found[name] = "done"
    except OSError as error:
        found[name] = "refused"
attempt("read", lambda: open(outside).read())
attempt("write", lambda: open(inside, "w"))
attempt("socket", lambda: socket.socket())
attempt("pipe", lambda: os.pipe())
attempt("list", lambda: os.listdir("/"))
opening = (os.POSIX_SPAWN_OPEN, 5, "/bin/true", 0, 0)
attempt("program", lambda: os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opening]))
def reuse():
    os.close(2)
    open(outside)
attempt("a closed place", reuse)
os.write(3, json.dumps(found).encode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the limits are those of Unix")
def test_the_process_can_open_nothing_any_more(tmp_path):
    (tmp_path / "secret").write_text("secret")
    arguments = [sys.executable, "-c", PROBE, f"{tmp_path / 'secret'}:{tmp_path / 'new'}"]
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert set(json.loads(found.stdout).values()) == {"refused"}, found.stdout + found.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.psd", lambda p: p.write_bytes(psd()), r"is a PSD picture.*PNG, JPEG"),
        ("a.txt", lambda p: p.write_bytes(b"words " * 99), r"not a sound or video.*PNG, JPEG.*WAV, MP3"),
        ("a.svg", lambda p: p.write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>" * 2), "svg.*PNG"),
    ],
)
def test_a_format_that_is_not_taken_is_named_with_the_list(decode_worker, tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(InputError, match=words):
        decode_worker.decode("any", str(tmp_path / name))


def psd() -> bytes:
    """A Photoshop file of 2 x 2 pixels (Adobe's specification: header, three empty sections, raw samples)."""
    sizes = ((3, 2), (2, 4), (2, 4), (8, 2), (3, 2))
    header = b"8BPS" + (1).to_bytes(2, "big") + bytes(6) + b"".join(v.to_bytes(n, "big") for v, n in sizes)
    return header + bytes(12) + bytes(2) + bytes(12)


def test_a_picture_that_is_not_taken_as_a_picture(decode_worker, tmp_path):
    (tmp_path / "a.psd").write_bytes(psd())
    with pytest.raises(InputError, match=r"is a PSD picture, which is not taken here: give PNG, JPEG"):
        decode_worker.decode("image", str(tmp_path / "a.psd"))


def test_a_missing_codec_is_called_that(decode_worker):
    with pytest.raises(InputError, match=r"no decoder for its sound \(codec A_XYZWV\)"):
        decode_worker.decode("audio", str(Path(__file__).parent / "media" / "unkaudio.webm"))


def test_notes_come_from_the_process(decode_worker, tmp_path):
    wav = write_wav(tmp_path / "a.wav", 0 * tone(1, 16000), 16000)
    with collected() as notes:
        decode_worker.decode("audio", str(wav))
    assert [str(n) for n in notes] == ["silent: a.wav is silent"]


def test_settings_are_read_in_the_process(decode_worker):
    media = Path(__file__).parent / "media"
    assert '"seed"' in (decode_worker.decode("image", str(media / "after.png")).settings or "")
    with collected() as notes:
        assert decode_worker.decode("image", str(media / "const16.png")).settings is None
    assert notes == []


def test_settings_that_cannot_be_read_leave_the_picture(decode_worker, tmp_path, monkeypatch):
    monkeypatch.setattr("unialign_gen.media.settings.MOST_BYTES", 3_000_000)
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "long.png", "x" * 2_500_000)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.bmp")
    with collected() as notes:
        assert decode_worker.decode("image", str(tmp_path / "long.png")).value.size == (8, 8)
        assert decode_worker.decode("image", str(tmp_path / "plain.bmp")).settings is None
    assert [note.kind for note in notes] == ["settings"]
    assert "long.png" in notes[0].text


def test_every_format_is_decoded_with_nothing_to_open(decode_worker, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        picture.save(tmp_path / f"a.{form}", form)
        assert decode_worker.decode("any", str(tmp_path / f"a.{form}")).value.size == (30, 40)
    for form in ("GIF", "WEBP", "PNG"):
        picture.save(tmp_path / f"b.{form}", form, save_all=True, append_images=[picture.rotate(90)])
        assert decode_worker.decode("any", str(tmp_path / f"b.{form}")).kind == "video"
