"""What would be noticed only after a release: a folder left out of the wheel, files too large, a card that is missing."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unialign_gen
from unialign_gen.encoders.base import Encoder

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "checkpoints" / "starter"


def test_every_folder_of_code_is_packaged():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        "unialign_gen": "unialign_gen",
        "pipelines": "unialign_gen.pipelines",
        "eval": "unialign_gen.eval",
        "checkpoints": "unialign_gen.checkpoints",
    }
    found = set()
    for folder, package in folders.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
    assert found == set(config["packages"])
    assert not {"eval", "pipelines", "checkpoints"} & set(config["packages"])


def test_sizes():
    files = [p for p in (ROOT / "checkpoints").rglob("*") if p.is_file()]
    assert max(p.stat().st_size for p in files) < 50e6
    sizes = {p: p.stat().st_size for p in STARTER.rglob("*") if p.is_file()}
    assert sum(sizes.values()) <= 160e6
    apart = {STARTER / name for name in ("kandinsky-distilled", "stable-unclip")}  # in a wheel of their own
    assert sum(size for p, size in sizes.items() if not apart & set(p.parents)) <= 120e6
    assert sum(p.stat().st_size for p in (ROOT / "checkpoints" / "samples").iterdir()) < 2e6


@pytest.mark.parametrize("folder", ["starter", "judge", "samples"])
def test_every_folder_has_a_card_with_its_licences(folder):
    text = (ROOT / "checkpoints" / folder / "README.md").read_text()
    assert "licence" in text.lower()


def test_no_weights_are_pickled():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert not [n for n in names if n.endswith((".pt", ".pth", ".bin", ".ckpt", ".pkl"))]


def test_the_decoder_met_only_permissive_pictures():
    lines = (STARTER / "ATTRIBUTION.tsv").read_text().splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert {r["tier"] for r in rows if r["trained on"].startswith("decoder")} == {"A"}
    assert all(r["tier"] == "C" for r in rows if r["licence"].startswith("GPL"))


@pytest.mark.parametrize(
    ("old", "names"),
    [
        ("settings_png", ["Prompt", "Settings", "parse", "read_png", "save_png"]),
        ("published", ["on_disk", "read", "replace_sources", "wanted_files"]),
        ("calibrate", ["Calibration", "measure", "pictures_in"]),
        ("towers", ["load_tower", "save_tower"]),
        ("towers.base", ["Tower"]),
        ("checkpoint", ["load_pipeline", "find"]),
        ("showcase", ["draw_sheet"]),
        ("recognition", ["Recognition"]),
    ],
)
def test_modules_of_the_first_edition_are_found_for_one_release(old, names):
    sys.modules.pop(f"unialign_gen.{old}", None)
    with pytest.warns(FutureWarning, match=rf"unialign_gen.{old} is now called unialign_gen\."):
        found = importlib.import_module(f"unialign_gen.{old}")
    assert all(callable(getattr(found, name)) for name in names)
    assert set(names) <= set(found.__all__)


def test_a_submodule_of_the_first_edition_is_found_on_its_package():
    for name in ("towers", "towers.base"):
        sys.modules.pop(f"unialign_gen.{name}", None)
    with pytest.warns(FutureWarning, match="towers is now called"):
        assert importlib.import_module("unialign_gen.towers").base.Tower is Encoder


def test_what_is_left_of_a_folder_does_not_hide_the_module_that_moved(tmp_path, monkeypatch):
    """Python leaves `__pycache__` behind where a module's file went, and takes the folder for a package."""
    (tmp_path / "published" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(unialign_gen, "__path__", [*unialign_gen.__path__, str(tmp_path)])
    sys.modules.pop("unialign_gen.published", None)
    with pytest.warns(FutureWarning, match="published is now called"):
        assert callable(importlib.import_module("unialign_gen.published").wanted_files)
