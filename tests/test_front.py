"""What a person meets first: words alone draw, a mistyped command is understood, nothing is written over, doctor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.cli.app import named_after
from unialign_gen.cli.doctor import requirements
from unialign_gen.console import guarded, known_failure
from unialign_gen.loading.folders import PUBLISHED, SHIPPED
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["red", "car"], "put quotes around words that belong together"),
        (["generate", "--text", "red", "car"], "put quotes around words that belong together"),
        (["--seed", "3", "a cat"], 'come after the words or the command, unialign-gen "a red car" --seed 3; see'),
        (["a cat", "--sed", "3"], "--seed"),
        (["generate", "--steps", "0"], "see unialign-gen generate --help"),
        (["eval", "nothing"], "see unialign-gen eval --help"),
        (["push", "starter"], "repository"),
        (["a.wav"], "generate --audio"),
    ],
)
def test_what_the_command_line_cannot_take_is_one_line_that_says_what_to_do(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").touch()
    result = CliRunner().invoke(app, words, prog_name="unialign-gen")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_without_a_command_the_help_is_shown():
    result = CliRunner().invoke(app, [], prog_name="unialign-gen")
    assert result.exit_code == 2
    assert "Commands:" in result.output
    assert "error" not in result.output


def test_stages_are_said_and_quiet_is_quiet(tmp_path):
    command = ["generate", "--text", "a dog", *FEW, "--out", str(tmp_path / "a.png")]
    loud = CliRunner().invoke(app, command)
    assert [line.split()[0] for line in loud.stderr.splitlines()] == ["loading", "encoding", "drawing"]
    quiet = processes.program(*command, "--quiet")
    assert (quiet.wait(), quiet.stderr) == (0, "")


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


def test_a_torchvision_of_another_torch_is_one_line_wherever_it_fails(capsys):
    @guarded()
    def command():
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ImportError("Could not import module 'PreTrainedModel'") from error

    with pytest.raises(SystemExit) as stopped:
        command()
    assert (stopped.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
    assert known_failure(ImportError("no module named tomato")) is None


def commands(group, path=()):
    """The words of every command and group below one."""
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_fits_80_columns_and_is_not_cut(command):
    output = CliRunner().invoke(app, [*command.split(), "--help"], terminal_width=80).output
    assert max(map(len, output.splitlines())) <= 80
    table = output.partition("Commands:")[2]
    assert "..." not in table


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("unialign-gen gen", ["generate"]),
        ("unialign-gen generate --checkpoint ", [*SHIPPED, *PUBLISHED]),
        ("unialign-gen train cl", ["clips", "clips-extract"]),
        ("unialign-gen eval re", ["report", "retrieval"]),
        ("unialign-gen interpolate --mix sl", ["slerp"]),
    ],
)
def test_the_shell_completes(typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    environment = {**os.environ, "_UNIALIGN_GEN_COMPLETE": "complete_bash", **words}
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'unialign-gen'; from unialign_gen.cli import main; main()"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.split()) == sorted(offered)


def test_models_says_what_one_command_would_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"]}
    fetch = rows["stable-unclip"]["fetch"]
    assert fetch["command"].startswith("unialign-gen calibrate --checkpoint stable-unclip && unialign-gen generate")
    assert fetch["bytes"] == 5_180_000_000 + 3_940_000_000  # the decoder, and one repository for image and text
    assert "fetch" not in rows["starter"]
    assert "9.1 GB" in CliRunner().invoke(app, ["models"]).stdout


def test_quiet_draws_no_bars_either():
    code = (
        "import sys; from unialign_gen import console; from tqdm import tqdm; sys.stderr.isatty = lambda: True; "
        "list(tqdm([1], desc='seen', disable=None)); console.be_quiet(); console.stage('silent'); "
        "list(tqdm([1], desc='silent', disable=None)); sys.stderr.write('said')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "seen" in done.stderr
    assert "silent" not in done.stderr
    assert done.stderr.endswith("said")


def test_what_is_there_stays_where_it_was_asked_for(tmp_path):
    (tmp_path / "old.txt").write_text("mine")
    for command in (["calibrate"], ["eval", "report", str(tmp_path)]):
        result = CliRunner().invoke(app, [*command, "--out", str(tmp_path), "--no-overwrite"])
        assert result.exit_code == 2
        assert "holds something already" in result.stderr
    (tmp_path / "a.safetensors").write_text("mine")
    out = ["--out", str(tmp_path / "a.safetensors"), "--no-overwrite"]
    assert "is there already" in CliRunner().invoke(app, ["eval", "statistics", str(tmp_path), *out]).stderr


BEFORE_TORCH = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from first_sign import commands
from typer.testing import CliRunner
from unialign_gen import console
from unialign_gen.cli import app

class Spoke(Exception):
    pass

def speak():
    raise Spoke

console.first_process = speak  # asked before every line that a command says
for name, options in commands(Path(sys.argv[2])).items():
    found = CliRunner().invoke(app, [*name.split(), *options])
    assert isinstance(found.exception, Spoke), (name, found.output, found.exception)
    assert "torch" not in sys.modules, name
    sys.stdout.write(name + "\\n")
"""


def test_every_command_speaks_before_torch_is_imported(tmp_path):
    arguments = [str(Path(__file__).parent.parent / "benchmarks"), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", BEFORE_TORCH, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spoke = set(done.stdout.splitlines())
    assert spoke == {name for name, command in COMMANDS.items() if not hasattr(command, "commands")}, "see first_sign.py"


def test_several_pictures_are_named_after_words_and_never_over_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-cat-2.png").write_text("mine")
    assert named_after(["a cat"], ".png") == Path("a-cat.png")
    assert named_after(["a cat"], ".png", 2) == Path("a-cat-2.png")  # a-cat-2-1.png and a-cat-2-2.png
    for number in ("", "-2"):
        done = CliRunner().invoke(app, ["embed", "--text", "a cat", "--json"])
        assert json.loads(done.stdout)["file"] == f"embedding{number}.safetensors"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["generate", "--text", "a cat", "--start", "5"], "and there is none: leave them out"),
        (["animate", "{sound}", "--pictures", "0"], "pictures must be a number above zero"),
        (["animate", "{sound}", "--window", "0.00001"], "window must be at least 0.1 s"),
    ],
)
def test_options_that_would_do_nothing_are_one_line(command, words):
    sound = str(Path(__file__).parent.parent / "checkpoints" / "samples" / "cow.flac")
    result = CliRunner().invoke(app, [word.format(sound=sound) for word in command])
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
