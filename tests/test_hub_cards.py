"""Checkpoints as the model hub has them: cards with front matter, the upload, and a Space's files; devices by themselves."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.loading import PUBLISHED, check_device, describe, dtype_of, shipped_folder

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", [*PUBLISHED, "starter", "judge"])
def test_a_card_has_front_matter_and_names_its_folder(name):
    card = ModelCard.load(shipped_folder() / name / "README.md")
    assert card.data.license
    assert card.data.library_name in ("diffusers", "timm")
    assert card.data.pipeline_tag
    assert card.data.tags
    assert card.text.strip().startswith(f"# {name}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_decoder_is_described_in_one_file(name):
    import diffusers

    from unialign_gen import pipelines
    from unialign_gen.loading.description import read

    described = read(shipped_folder() / name)
    decoder, modes = described["decoder"], described["decoder"].get("modes", {})
    assert hasattr(diffusers, decoder["class"])
    assert hasattr(pipelines, described["pipeline"])
    assert {"image", "text", "audio"} <= set(described["encoders"])
    for entry in (decoder, *decoder.get("parts", {}).values()):
        assert entry["source"].count("/") == 1
        assert entry["licence"]
        assert entry["citation"]
        assert min(entry["bytes"].values()) > 1e6
    for mode in modes.values():
        assert hasattr(diffusers, mode["class"])
        assert mode.get("part", "controlnet") in decoder["parts"]
    card = (shipped_folder() / name / "README.md").read_text()
    assert all(part["source"] in card for part in (decoder, *decoder.get("parts", {}).values()))


def test_models_lists_the_parts_that_drawing_needs():
    rows = {row["name"]: row for row in describe()}
    assert {"decoder", "adapter", "motion_adapter", "text", "embed_scale"} <= set(rows["animatediff-vit-h"]["needs"])
    assert "controlnet" not in rows["sdxl-vit-h"]["needs"]  # edits alone need it
    assert not rows["sdxl-bigg"]["on_disk"]


def test_push_uploads_the_folder_and_writes_a_card_where_there_is_none(tmp_path, monkeypatch):
    # the hub itself is not there: what its client is asked for
    asked = []

    class Hub:
        def create_repo(self, name, **options):
            asked.append(("create", name, options["private"]))

        def upload_folder(self, folder_path, repo_id, **options):
            asked.append(("upload", Path(folder_path), repo_id))
            return f"{repo_id}@1"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.ModelCard.push_to_hub", lambda card, name: asked.append(("card", name, str(card))))
    run = CliRunner().invoke(app, ["push", "starter", "me/mine", "--private", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["commit"] == "me/mine@1"
    assert asked == [("create", "me/mine", True), ("upload", shipped_folder() / "starter", "me/mine")]
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "head.json").write_text("{}")
    assert CliRunner().invoke(app, ["push", str(tmp_path), "me/heads"]).exit_code == 0
    kind, name, card = asked[3]
    assert (kind, name) == ("card", "me/heads")
    assert ModelCard(card).data.pipeline_tag == "text-to-image"
    (tmp_path / "all" / "a" / "model").mkdir(parents=True)
    (tmp_path / "all" / "a" / "model" / "config.json").touch()  # below, among what is not meant for the hub
    for wrong in ([str(tmp_path / "all"), "me/x"], [str(tmp_path), "nowhere"], [str(tmp_path), "me/x@main"]):
        assert CliRunner().invoke(app, ["push", *wrong]).exit_code == 2

    def unreachable(*_, **__):
        raise RuntimeError("no way to the hub\nmore of it")  # its client's errors are of many libraries

    monkeypatch.setattr(Hub, "create_repo", unreachable)
    offline = CliRunner().invoke(app, ["push", str(tmp_path), "me/heads"])
    assert (offline.exit_code, offline.stderr.splitlines()[-1]) == (2, "error: me/heads cannot be written: no way to the hub")


def test_a_spaces_files_fit_the_app():
    header = yaml.safe_load((ROOT / "docs" / "space" / "README.md").read_text().split("---")[1])
    assert header["sdk"] == "gradio"
    assert (ROOT / header["app_file"]).is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "docs" / "space" / "requirements.txt").read_text().split() == [project["name"]]
    assert len(header["short_description"]) <= 60


def test_auto_is_what_this_machine_has(monkeypatch):
    for cuda, mps, device, dtype in ((1, 1, "cuda", torch.float16), (0, 1, "mps", torch.float16), (0, 0, "cpu", torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: bool(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: bool(mps))
        assert check_device("auto") == device
        assert dtype_of("auto", device) == dtype
    with pytest.raises(InputError, match="choose from auto"):
        dtype_of("double")


def test_points_through_the_starters_decoders(tmp_path):
    run = CliRunner().invoke(app, ["eval", "decoders", "--limit", "4", "--seeds", "2", "--steps", "2", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)["decoders"]
    assert list(found)[:3] == ["starter/kandinsky", "starter/kandinsky-distilled", "starter/stable-unclip"]
    for row in found.values():
        low, high = row["cosine_ci95"]
        assert -1 <= low <= row["cosine"] <= high <= 1
        assert row["frechet"] > 0
        assert 0 < row["variety"] < 1.5
        assert row["pictures_a_second"] > 0
        assert 0.005 < row["memory_gb"] < 1
    for wrong in (["--source", "image=x"], ["--images", str(tmp_path / "none")], ["--checkpoint", "nowhere"]):
        assert CliRunner().invoke(app, ["eval", "decoders", *wrong]).exit_code == 2
