"""What a person meets first: words alone draw, a mistyped command is understood, nothing is written over, doctor."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.cli.app import named_after
from unialign_gen.cli.doctor import requirements
from unialign_gen.request.picture_settings import read_picture

FEW = ["--steps", "2"]


def test_words_alone_draw_a_picture_named_after_them_and_never_over_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = CliRunner().invoke(app, ["a Barking, dog", *FEW])
        assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-barking-dog-2.png", "a-barking-dog.png"]
    assert read_picture("a-barking-dog.png").request.prompts[0][0].value == "a Barking, dog"
    with Image.open("a-barking-dog.png") as one, Image.open("a-barking-dog-2.png") as other:
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("names", "expected"), [(["Día 猫"], "día-猫.png"), (["a/b.wav", "x"], "b-x.png"), (["!?"], "picture.png")]
)
def test_names(tmp_path, monkeypatch, names, expected):
    monkeypatch.chdir(tmp_path)
    assert str(named_after(names, ".png")) == expected


def test_a_mistyped_command_is_one_line_with_a_suggestion():
    done = subprocess.run([sys.executable, "-m", "unialign_gen", "generat"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean generate?" in done.stderr


def test_stages_are_said_and_quiet_is_quiet(tmp_path):
    command = [sys.executable, "-m", "unialign_gen", "generate", "--text", "a dog", *FEW, "--out", str(tmp_path / "a.png")]
    loud = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in loud.stderr.splitlines()] == ["loading", "encoding", "drawing"]
    quiet = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""


def test_every_commands_help_is_whole():
    result = CliRunner().invoke(app, ["--help"], terminal_width=80)
    assert "..." not in result.output.split("Commands:")[1]


def test_doctor_finds_what_does_not_fit(monkeypatch):
    assert requirements() == []
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["problems"] == []
    monkeypatch.setattr("unialign_gen.cli.doctor.version", lambda name: None if name == "av" else "0.0.1")
    found = dict(requirements())
    assert "av is not installed" in found
    assert any(what.startswith("diffusers 0.0.1 is installed") for what in found)
    assert all(" -m pip install " in mend for mend in found.values())
