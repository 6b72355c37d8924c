"""The wheels as a user gets them: small enough for the public index, and complete enough to draw outside the clone."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 100e6  # bytes of a file on the public index


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """Both wheels, built from a copy of the clone's files, by the name of their distribution."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheels")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", out]
    subprocess.run([*command, clone, clone / "checkpoints"], check=True)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory) -> Path:
    """The `bin` folder of a new environment with the main wheel, which finds its requirements here."""
    place = tmp_path_factory.mktemp("venv")
    venv.create(place, with_pip=False)
    install(place / "bin", wheels["unialign_gen"])
    packages = [p for p in sys.path if p.endswith("site-packages")]
    next(place.glob("lib/*/site-packages")).joinpath("requirements.pth").write_text("\n".join(packages))
    return place / "bin"


def install(binaries: Path, wheel: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True)


def run(binaries: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binaries / "unialign-gen", *words], cwd=folder, capture_output=True, text=True, check=False)


def test_both_fit_on_the_index_and_share_no_file(wheels):
    files = {}
    for name, path in wheels.items():
        assert path.stat().st_size < LIMIT, f"{name}: {path.stat().st_size / 1e6:.1f} MB"
        with zipfile.ZipFile(path) as archive:
            assert max(i.file_size for i in archive.infolist()) < 50e6
            files[name] = set(archive.namelist())
    assert not files["unialign_gen"] & files["unialign_gen_full"]
    there = {f.removeprefix("unialign_gen/checkpoints/") for names in files.values() for f in names}
    for folder in ("starter", "judge", "samples"):
        here = {str(p.relative_to(ROOT / "checkpoints")) for p in (ROOT / "checkpoints" / folder).rglob("*") if p.is_file()}
        assert not here - there


def test_the_wheel_draws_outside_the_clone(installed, tmp_path):
    rows = json.loads(run(installed, tmp_path, "models", "--json").stdout)["models"]
    assert rows[0]["folder"].startswith(str(installed.parent))
    assert rows[0]["decoders"] == ["kandinsky"]
    first = re.search(r"^    unialign-gen ([^#\n]+)", (ROOT / "README.md").read_text(), re.M)[1]
    done = run(installed, tmp_path, *shlex.split(first), "--steps", "1", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / done.stdout.strip()) as picture:
        assert picture.size == (512, 512)


LACKING = """
import unialign_gen
from unialign_gen.errors import InputError
from unialign_gen.eval.judge import Judge

def frog(decoder):
    return unialign_gen.load("starter", decoder=decoder)(text="a frog", num_inference_steps=1).images[0].size

distilled, second = (lambda d=d: frog(d) for d in ("kandinsky-distilled", "stable-unclip"))
for made in (distilled, second, lambda: len(Judge.from_folder().concepts)):
    try:
        print(made())
    except InputError as error:
        print(error)
"""


def test_what_the_wheel_lacks_is_one_line_and_one_install_away(wheels, installed, tmp_path):
    def said() -> list[str]:
        words = [installed / "python", "-c", LACKING]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()

    before = said()
    assert ["pip install 'unialign_gen[full]'" in line for line in before] == [True, True, True]
    install(installed, wheels["unialign_gen_full"])
    assert said() == ["(512, 512)", "(512, 512)", "138"]


def test_both_have_one_version():
    main, full = (tomllib.loads((ROOT / p / "pyproject.toml").read_text())["project"] for p in (".", "checkpoints"))
    assert main["version"] == full["version"]
    assert full["dependencies"] == [f"unialign_gen=={main['version']}"]
    assert main["optional-dependencies"]["full"] == [f"unialign_gen_full=={main['version']}"]
