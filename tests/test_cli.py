import json
import os
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tone, write_wav
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.cli.prompts import parse_weights
from unialign_gen.errors import InputError
from unialign_gen.film.sheets import grid
from unialign_gen.output import make_folder


def run(*arguments: str):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_generate_writes_a_picture_and_says_so(tmp_path, starter):
    out = tmp_path / "dog.png"
    result = run("generate", "--text", "a dog", "--steps", 2, "--seed", 1, "--upscale", 1, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"] == [str(out)]
    assert Image.open(out).size == (starter.sample_side,) * 2


def test_the_command_line_draws_what_python_draws(starter, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1, 22050), 22050)
    out = tmp_path / "x.png"
    options = ["--text", "a dog", "--audio", wav, "--weight", "text=0.7", "--weight", "audio=0.3", "--steps", 2, "--seed", 4]
    assert run("generate", *options, "--out", out).exit_code == 0
    expected = starter(text="a dog", audio=str(wav), weights={"text": 0.7, "audio": 0.3}, seed=4, num_inference_steps=2).images[
        0
    ]
    assert np.abs(np.asarray(Image.open(out)).astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_several_pictures_get_numbers(tmp_path):
    assert run("generate", "--text", "cat", "--steps", 1, "--num-images", 2, "--out", tmp_path / "c.png").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c-1.png", "c-2.png"]


def test_the_command_line_chooses_as_python_does(starter, tmp_path):
    options = ["--text", "a dog", "--steps", 2, "--seed", 4, "--best-of", 5, "--num-images", 2]
    assert run("generate", *options, "--out", tmp_path / "x.png").exit_code == 0
    expected = starter(text=["a dog"] * 2, seed=4, best_of=5, num_inference_steps=2).images
    for i, picture in enumerate(expected):
        got = np.asarray(Image.open(tmp_path / f"x-{i + 1}.png")).astype(int)
        assert np.abs(got - np.asarray(picture).astype(int)).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "mp4"])
def test_interpolate(tmp_path, suffix, starter):
    out = tmp_path / f"m.{suffix}"
    result = run(
        "interpolate", "--from", "text:a cat", "--to", "text:a dog", "--frames", 3, "--steps", 1, "--upscale", 1, "--out", out
    )
    assert result.exit_code == 0, result.output
    if suffix == "mp4":
        import av

        with av.open(str(out)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 3
    else:
        picture = Image.open(out)
        side = starter.sample_side
        assert picture.size == ((3 * side, side) if suffix == "png" else (side, side))
        assert getattr(picture, "n_frames", 1) == (4 if suffix in ("gif", "webp") else 1)


def test_embed_writes_unit_vectors(tmp_path):
    out = tmp_path / "z.safetensors"
    assert run("embed", "--text", "a cat", "--text", "a dog", "--weight", "text=1,-0.5", "--out", out).exit_code == 0
    tensors = load_file(out)
    assert tensors["text"].shape == (2, 256)
    assert tensors["mix"].norm().item() == pytest.approx(1, abs=1e-5)


def test_models_lists_the_starter():
    rows = json.loads(run("models", "--json").stdout)["models"]
    assert rows[0]["name"] == "starter"
    assert rows[0]["on_disk"]
    assert rows[0]["bytes"] < 160e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "nothing to draw"),
        (["generate", "--text", ""], "empty"),
        (["generate", "--audio", "missing.wav"], "no such file"),
        (["generate", "--text", "a", "--weight", "text"], "--weight"),
        (["generate", "--text", "a", "--weight", "text=nan"], "finite"),
        (["generate", "--text", "a", "--weight", "audio=1"], "no such prompt"),
        (["generate", "--text", "a", "--checkpoint", "nope"], "unknown checkpoint"),
        (["generate", "--text", "a", "--out", "x.tiff"], "must end in"),
        (["generate", "--text", "a", "--out", "no/such/folder/x.png"], "no folder"),
        (["generate", "--text", "a", "--dtype", "int8"], "--dtype"),
        (["generate", "--text", "a", "--device", "warp"], "--device"),
        (["generate", "--text", "a", "--checkpoint", "me/nothing"], "from the hub"),
        (["generate", "--text", "a", "--out", "."], "must end in"),
        (["interpolate", "--from", "a cat", "--to", "text:b"], "--from"),
        (["embed", "--text", "a", "--out", "x.npy"], "must end in"),
        (["eval", "concepts", "--data", "nowhere"], "no data set"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x00\x01random" * 50])
def test_bad_media_write_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.wav").write_bytes(content)
    result = run("generate", "--audio", "bad.wav")
    assert result.exit_code == 2
    assert "bad.wav" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.wav"]


def test_a_folder_in_the_place_of_a_file_is_said_before_drawing(tmp_path, monkeypatch):
    (tmp_path / "a.png").mkdir()
    result = run("generate", "--text", "a", "--out", tmp_path / "a.png")
    assert (result.exit_code, "is a folder" in result.stderr) == (2, True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    result = run("generate", "--text", "a", "--out", tmp_path / "b.png")
    assert (result.exit_code, "no permission" in result.stderr) == (2, True)


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for command in (["gap", "--features", tmp_path], ["retrieval", "--features", tmp_path]):
        result = run("eval", *command, "--out", tmp_path / "taken" / "results")
        assert result.exit_code == 2
        assert "is a file" in result.stderr
    assert (tmp_path / "taken").read_text() == "mine"
    with pytest.raises(InputError, match="is a file"):
        make_folder(tmp_path / "taken")
    assert make_folder(tmp_path / "new" / "one").is_dir()


def test_many_pictures_become_a_grid():
    pictures = [Image.new("RGB", (4, 2), (i, 0, 0)) for i in range(11)]
    page = grid(pictures)
    assert page.size == (8 * 4, 2 * 2)
    assert [page.getpixel((i % 8 * 4 + 1, i // 8 * 2 + 1))[0] for i in range(11)] == list(range(11))
    assert grid(pictures[:3]).size == (12, 2)


def test_the_version_is_the_packages():
    result = run("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, metadata.version("unialign_gen"))


def test_parse_weights():
    assert parse_weights(["text=0.7", "audio=1,-0.5"]) == {"text": 0.7, "audio": (1.0, -0.5)}
    with pytest.raises(InputError, match="twice"):
        parse_weights(["text=1", "text=2"])


def test_help_answers_at_once():
    """In seconds of the processor, which other work on the machine does not change much."""

    def seconds(*command: str) -> float:
        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            subprocess.run(command, check=True, capture_output=True)
            times.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
        return min(times)

    extra = seconds(sys.executable, "-m", "unialign_gen", "--help") - seconds(sys.executable, "-c", "pass")
    assert extra < 1.0  # half of that on an idle machine


def test_help_imports_nothing_heavy():
    code = "import sys, unialign_gen.cli; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("rank", "told"), [("0", "3 steps\n"), ("1", "")])
def test_of_several_processes_the_first_alone_reports(monkeypatch, capsys, rank, told):
    from unialign_gen.console import report

    monkeypatch.setenv("RANK", rank)
    report({"steps": 3}, False, "3 steps")
    assert capsys.readouterr().out == told


def test_a_part_of_a_recording_and_another_track(tmp_path):
    media = Path(__file__).parent / "media" / "multi.m4a"
    found = {}
    for name, options in (("all", []), ("part", ["--start", "1", "--seconds", "2"]), ("silent", ["--track", "0"])):
        out = tmp_path / f"{name}.safetensors"
        result = CliRunner().invoke(app, ["embed", "--audio", str(media), "--out", str(out), "--json", *options])
        assert result.exit_code == 0, result.output
        found[name] = ([n["kind"] for n in json.loads(result.stdout)["notes"]], load_file(out)["mix"])
    assert [kinds for kinds, _ in found.values()] == [["track"], ["track"], ["silent"]]
    assert not torch.allclose(found["all"][1], found["part"][1])
