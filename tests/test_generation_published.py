"""The generation protocol through a published checkpoint's classes: tiny random models in hub layout."""

import json

import pytest
from test_generation import clips
from test_published_checkpoints import calibrated, home, hub, sources  # noqa: F401  fixtures
from typer.testing import CliRunner

from unialign_gen.cli import app


@pytest.mark.parametrize(("kind", "name"), [("unclip", "stable-unclip"), ("kandinsky", "kandinsky")])
def test_generation_runs_from_local_folders(hub, home, tmp_path, kind, name):  # noqa: F811
    calibrated(hub, kind, name)
    given = sources(hub, kind)
    options = [f"--source={k}={v}" for k, v in given.items()]
    (tmp_path / "clips").mkdir()
    manifest = clips(tmp_path / "clips", 5)
    command = f"eval generation --dataset table --root {manifest} --clips 5 --prompts text,image --steps 1 --seeds 1"
    extractor = f"--extractor clip --weights clip={given['image']} --ways 0 --out {tmp_path / 'out'}"
    done = CliRunner().invoke(
        app, [*command.split(), "--checkpoint", name, *options, *extractor.split()], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    rows = {(r["metric"], r["task"]) for r in result["rows"]}
    assert {("Frechet distance (CLIP)", "T->I"), ("Frechet distance (CLIP)", "I->I")} <= rows
    assert (f"agreement ({name} image space)", "T->I") in rows
    assert result["about"]["decoders"] == [name]
