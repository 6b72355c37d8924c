"""What the README offers is run: its commands as they stand, its Python, its links."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from unialign_gen.cli import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [line.split("#")[0] for line in re.findall(r"^    (unialign-gen .+)$", TEXT, re.M)]


@pytest.mark.parametrize("line", [c for c in COMMANDS if not c.startswith("unialign-gen demo")])
def test_a_command_runs(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    words = shlex.split(line)[1:]
    few = (
        [] if words[0] == "doctor" else ["--steps", "1", *(["--seconds", "1", "--side", "64"] if words[0] == "animate" else [])]
    )
    result = CliRunner().invoke(app, [*words, *few])
    assert result.exit_code == 0, result.output
    out = words[words.index("--out") + 1] if "--out" in words else "a-red-car.png" if words[0] == "a red car" else "checkpoints"
    assert (tmp_path / out).stat().st_size > 0


def test_the_make_targets_are_there():
    targets = set(re.findall(r"\bmake (\w+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text())) - {"it"}
    assert targets >= {"demo", "test", "lint", "wheel", "docs"}
    subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True)


def test_torch_and_torchvision_come_from_one_index():
    lines = re.findall(r"^\| (?:Linux|macOS|Windows).*`(.+)` \|$", TEXT, re.M)
    assert len(lines) == 4
    for line in lines:
        (both,) = (part for part in line.split("&&") if re.search(r"\btorch\b", part.replace("pytorch.org", "")))
        assert " torch torchvision" in both


def test_pictures_are_small():
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / name).stat().st_size < 600e3, name
    with Image.open(ROOT / "docs" / "film.webp") as film:
        assert film.n_frames > 20


def test_the_python_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = re.search(r"```python\n(.*?)```", TEXT, re.S)[1]
    scope = {}
    exec(code, scope)
    assert scope["picture"].size == (512, 512)
    assert capsys.readouterr().out.strip() == "[]"  # as its comment says: nothing


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```|^    .*$|`[^`\n]*`", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#[^)]*)?\)", prose):
        assert not target or (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_it_is_short():
    assert len(TEXT.split()) < 1200


def test_python_that_is_started_in_a_clone_finds_the_folders_beside_the_package():
    # as after `pip install .`, where no finder of an editable installation knows the clone
    code = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
from importlib import resources, util
import unialign_gen
print(util.find_spec("unialign_gen.pipelines").origin, resources.files("unialign_gen.checkpoints"))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(ROOT / "pipelines" / "__init__.py"), str(ROOT / "checkpoints")]
