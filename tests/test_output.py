"""Results appear whole or not at all, and never in place of what was read."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import tone, write_wav
from PIL import Image
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.output import check_output, written

FEW = ["--steps", "1", "--guidance", "1"]


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    path.chmod(0o640)
    with written(path) as beside:
        assert beside.parent == path.parent
        assert beside.suffix == ".txt"
        beside.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_the_earlier_file_is_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail():
        with written(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written: No space"), written(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with written(tmp_path / "link.txt") as beside:
        beside.write_text("after")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "after"


def test_an_interrupted_process_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    code = (
        "import signal, sys, time; from pathlib import Path; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from unialign_gen.output import written\n"
        "with written(Path(sys.argv[1])) as b:\n b.write_text('half'); print('there', flush=True); time.sleep(60)"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        process.wait(20)
        assert path.read_text() == "before"
    assert sum(p.suffix == ".txt" and p.name.startswith(".") for p in tmp_path.iterdir()) == 1  # of the one that was killed


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "another way"])
def test_an_input_is_never_overwritten(tmp_path, kind):
    source = tmp_path / "a.png"
    source.write_bytes(b"x")
    (tmp_path / "b").mkdir()
    out = {"itself": source, "another way": tmp_path / "b" / ".." / "a.png"}.get(kind, tmp_path / "out.png")
    if kind == "link":
        out.symlink_to(source)
    if kind == "hard link":
        os.link(source, out)
    with pytest.raises(InputError, match="is the input"):
        check_output(out, (".png",), [source])


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "there.png").write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, words in (
        ("a.bmp", "must end in .png"),
        ("none/a.png", "no folder"),
        ("folder.png", "is a folder"),
        ("pipe.png", "no regular file"),
        ("x" * 300 + ".png", r"no folder|cannot be written|too long"),
    ):
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, (".png",))
    with pytest.raises(InputError, match="--no-overwrite"):
        check_output(tmp_path / "there.png", (".png",), overwrite=False)
    assert check_output(tmp_path / "there.png", (".png",))


def test_embeddings_are_written_as_any_other_file_is(tmp_path, monkeypatch):
    assert run("embed", "--text", "a cat", "--out", tmp_path / "a.safetensors").exit_code == 0
    (tmp_path / "other").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    found = run("embed", "--text", "a cat", "--out", tmp_path / "b.safetensors")
    assert (found.exit_code, "cannot be written: No space left on device" in found.stderr) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "other"]


def test_generate_spares_its_inputs_and_what_is_there(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "p-2.png")
    before = (tmp_path / "a.png").read_bytes()
    found = run("generate", "--image", tmp_path / "a.png", "--out", tmp_path / "a.png", *FEW)
    assert (found.exit_code, "is the input" in found.stderr) == (2, True)
    found = run("generate", "--image", tmp_path / "p-2.png", "--num-images", 2, "--out", tmp_path / "p.png", *FEW)
    assert (found.exit_code, "is the input" in found.stderr) == (2, True)
    found = run("generate", "--text", "a cat", "--out", tmp_path / "a.png", "--no-overwrite", *FEW)
    assert (found.exit_code, "--no-overwrite" in found.stderr) == (2, True)
    assert (tmp_path / "a.png").read_bytes() == before


def test_animate_spares_an_earlier_film(tmp_path):
    (tmp_path / "f.mp4").write_bytes(b"earlier")
    silent = write_wav(tmp_path / "silent.wav", 0 * tone(1, 16000), 16000)
    found = run("animate", silent, "--out", tmp_path / "f.mp4", "--steps", 1)
    assert (found.exit_code, "is silent" in found.stderr) == (2, True)
    assert (tmp_path / "f.mp4").read_bytes() == b"earlier"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_pictures_of_the_command_line_hold_what_made_them(tmp_path, suffix):
    from unialign_gen.request.picture_settings import read_picture

    out = tmp_path / f"a{suffix}"
    found = run("generate", "--text", "a cat", "--seed", 7, "--out", out, *FEW)
    assert found.exit_code == 0, found.output
    kept = read_picture(out)
    assert (kept.request.seed, kept.checkpoint, kept.request.prompts[0][0].value) == (7, "starter", "a cat")
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_time_is_not_lost_to_a_bad_name():
    begun = time.process_time()
    assert run("generate", "--text", "a cat", "--out", "a.txt").exit_code == 2
    assert time.process_time() - begun < 2
