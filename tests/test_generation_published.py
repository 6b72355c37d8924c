"""The generation protocol through a published checkpoint's classes: tiny random models in hub layout."""

import json
from dataclasses import replace

import pytest
from test_generation import clips
from test_published_checkpoints import calibrated, home, hub, sources  # noqa: F401  fixtures
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.data.sources import CorpusConfig
from unialign_gen.errors import InputError
from unialign_gen.eval.study import Plan, check_heads, encoder_entries
from unialign_gen.loading import open_aligner
from unialign_gen.loading.methods import Method


def test_a_sound_encoder_without_a_head_is_left_to_the_methods(hub, tmp_path):  # noqa: F811
    given = {**sources(hub, "kandinsky"), "audio": str(tmp_path / "beats.pt")}
    plan = Plan(
        CorpusConfig("table", manifest=tmp_path / "m.csv"), "kandinsky", (None,), (), ("audio",), tmp_path, sources=given
    )
    with pytest.raises(InputError, match="trained head"):
        open_aligner("kandinsky", given, False)
    assert "audio" not in open_aligner("kandinsky", plan.own_sources, False).config["encoders"]
    assert encoder_entries(plan, ["audio"])["audio"]["checkpoint"] == given["audio"]
    for kept in ({"audio_head": "HEAD"}, {"audio_encoder": "imagebind_audio"}):
        assert replace(plan, sources=given | kept).own_sources == given | kept


def test_every_method_needs_a_head_for_such_a_encoder(hub, tmp_path):  # noqa: F811
    given = {**sources(hub, "kandinsky"), "audio": str(tmp_path / "beats.pt")}
    (tmp_path / "run" / "text").mkdir(parents=True)
    corpus = CorpusConfig("table", manifest=tmp_path / "m.csv")

    def plan(run, kinds=("audio",), **more):
        return Plan(corpus, "kandinsky", (None,), (Method("one", (run,)),), kinds, tmp_path, seeds=1, sources=given | more)

    for run in (None, tmp_path / "run"):
        with pytest.raises(InputError, match="one has no head for sound"):
            check_heads(plan(run))
        check_heads(plan(run, ("text",)))
        check_heads(plan(run, audio_head="HEAD"))
    (tmp_path / "run" / "audio").mkdir()
    (tmp_path / "run" / "audio" / "head.json").write_text("{}")
    check_heads(plan(tmp_path / "run"))


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
