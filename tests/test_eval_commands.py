"""The commands of `eval` on small sets, and what they say when something is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import said
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.data import cache
from unialign_gen.eval import report, results, tables
from unialign_gen.eval.extractors import load
from unialign_gen.eval.features import extract
from unialign_gen.eval.frechet import frechet_distance
from unialign_gen.heads import Head, save_head
from unialign_gen.loading import open_aligner
from unialign_gen.loading.methods import Method, tell_borrowed
from unialign_gen.media.picture_sets import open_pictures
from unialign_gen.notes import collected

D = 8


def run(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return pictures(root / "a", 10, 0), pictures(root / "b", 12, 1)


def test_distance_of_folders_and_of_their_statistics(folders, tmp_path):
    a, b = folders
    done = run("distance", a, b, "--extractor", "judge", "--json")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    judge = load("judge")
    expected = frechet_distance(*(extract(judge, open_pictures(f).pictures) for f in folders))
    name = "Frechet distance (EfficientNet-Lite2)"
    assert found[name] == pytest.approx(expected, rel=1e-5)
    assert (found["n"], found["n_reference"], found["extractor"]) == (10, 12, judge.name)
    assert {"precision", "recall", "density", "coverage", "kernel distance (EfficientNet-Lite2)"} <= set(found)
    assert not any("FID" in k for k in found)
    kept = tmp_path / "b.safetensors"
    assert run("statistics", b, "--extractor", "judge", "--out", kept).exit_code == 0
    again = run("distance", a, kept, "--extractor", "judge", "--json")
    assert json.loads(again.stdout.strip().splitlines()[-1])[name] == pytest.approx(expected, rel=1e-5)
    refused = run("distance", a, kept, "--extractor", "clip")
    assert (refused.exit_code, "clip has no weights" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--extractor", "judge", "--weights", "inception=x"], "does not name it"),
        (["--extractor", "judge", "--weights", "x"], "EXTRACTOR=PATH"),
        (["--weights", "inception=/nowhere.pth"], "/nowhere.pth"),
        (["--extractor", "squeeze"], "unknown extractor"),
    ],
)
def test_mistakes_are_one_line(folders, arguments, words):
    done = run("distance", *folders, *arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert len(said(done.output)) == 1


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A cache of 40 clips around common points, and two runs of heads, one of which turns text away."""
    root = tmp_path_factory.mktemp("cache")
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(40, D, generator=generator)
    kept = {m: common + 0.6 * torch.randn(40, D, generator=generator) for m in ("text", "audio", "image")}
    index = {
        "format": cache.FORMAT,
        "corpus": {"name": "made", "samples": 40, "ids": "0" * 64},
        "shards": 1,
        "encoders": {m: {"dim": D, "digest": "0"} for m in kept},
    }
    cache.create(root, index)
    ragged = {m: cache.Ragged(v, cache.counted(torch.ones(40))) for m, v in kept.items()}
    cache.write_shard(root, 0, cache.Shard([str(i) for i in range(40)], [None] * 40, ragged))
    for name in ("good", "bad"):
        for kind in kept:
            torch.manual_seed(5)
            head = Head(D, D, 4)
            head.linear.weight.data = torch.eye(D)
            torch.nn.init.zeros_(head.mlp[3].weight)
            if (name, kind) == ("bad", "text"):
                head.linear.weight.data = torch.linalg.qr(torch.randn(D, D)).Q
            save_head(head, root / name / "heads" / kind)
    return root


def test_retrieval_and_gap_write_results_and_one_report(features, tmp_path):
    options = ["--features", features, "--method", f"good={features / 'good'}", "--method", f"bad={features / 'bad'}"]
    done = run("retrieval", *options, "--checkpoint", "none", "--dsl", 1, "--out", tmp_path / "r")
    assert done.exit_code == 0, done.output
    done = run("gap", *options, "--checkpoint", "none", "--resamples", 4, "--plot", 20, "--out", tmp_path / "g")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "r" / "result.json").read_text())["rows"]
    about = {"label": "T-A cosine", "task": "T->A", "metric": "R@1"}
    by_method = {r["method"]: r["value"] for r in rows if all(r[k] == v for k, v in about.items())}
    assert by_method["good"] > by_method["bad"] + 0.3
    assert {"T-AI volume", "T-AI centroid +DSL"} <= {r["label"] for r in rows}
    assert set(json.loads((tmp_path / "g" / "result.json").read_text())["maps"][0]["points"]) == {"text", "audio", "image"}
    formats = [part for f in ("markdown", "latex", "csv") for part in ("--format", f)]
    done = run(
        "report", tmp_path / "r", tmp_path / "g" / "result.json", "--out", tmp_path / "page", "--title", "Both", *formats
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<h1>Both</h1>" in page
    assert page.count("t-SNE of 20") == 4  # two maps, each with its caption
    assert "R@1 by gap" in page
    assert page.count("<svg") >= 2
    assert "58.7" in page  # table 1, published
    assert "good - bad" in (tmp_path / "page" / "report.md").read_text()
    assert (tmp_path / "page" / "figures.csv").read_text().startswith("dataset,checkpoint,method,task,")
    tex = (tmp_path / "page" / "report.tex").read_text()
    assert tex.count("\\begin{tabular}") == tex.count("\\end{tabular}") > 10
    assert "50.0 %" not in tex.replace("\\%", "")
    packed = json.loads((tmp_path / "page" / "report.json").read_text())["results"][0]["rows"]
    back = results.unpacked(packed)
    assert [(r["method"], r["metric"], r["label"]) for r in back] == [(r["method"], r["metric"], r["label"]) for r in rows]
    assert [r["value"] for r in back] == pytest.approx([r["value"] for r in rows], rel=1e-3)
    assert run("report", tmp_path / "r", "--out", tmp_path, "--format", "word").exit_code == 2


def test_some_samples_and_missing_modalities(features, tmp_path):
    (tmp_path / "ids").write_text("\n".join(str(i) for i in range(30)))
    options = ["retrieval", "--features", features, "--checkpoint", "none", "--method", f"good={features / 'good'}"]
    save_file({"scores": torch.eye(40)}, tmp_path / "scores.safetensors")
    ranked = ["--rerank", tmp_path / "scores.safetensors"]
    done = run(*options, *ranked, "--ids", tmp_path / "ids", "--missing", "--out", tmp_path / "r")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "r" / "result.json").read_text())
    assert found["about"]["ids"] == "30 of ids"
    assert found["about"]["captions"]["all"]["distinct"] == 30
    assert {r["n"] for r in found["rows"]} == {30}
    again = [r for r in found["rows"] if r["label"] == "T-A cosine +rerank" and r["metric"] == "R@1"]
    assert [r["value"] for r in again] == [1.0, 1.0]
    assert "T-AI volume, 90% missing" in {r["label"] for r in found["rows"]}
    done = run(*options, "--modality", "audio", "--out", tmp_path / "a")
    assert "image is left out" in done.output
    (tmp_path / "ids").write_text("nobody")
    done = run(*options, "--ids", tmp_path / "ids", "--out", tmp_path / "b")
    assert (done.exit_code, "such as nobody" in done.output) == (2, True)


def test_heads_that_a_method_borrows_are_named_in_the_result(features, tmp_path):
    shutil.copytree(features / "good" / "heads" / "text", tmp_path / "part" / "heads" / "text")
    methods = ["--method", f"good={features / 'good'}", "--method", f"part={tmp_path / 'part'}"]
    told = "part has no heads for audio, image: the features are used as they are"
    for protocol, more in (("retrieval", ()), ("gap", ("--resamples", 2, "--plot", 0, "--modality", "text"))):
        chosen = ["--modality", "audio", "--modality", "image", *more, "--out", tmp_path / protocol]
        done = run(protocol, "--features", features, *methods, "--checkpoint", "none", *chosen, "--json")
        assert json.loads(done.stdout)["notes"] == [{"kind": "borrowed heads", "text": told}]
        assert results.read(tmp_path / protocol)["about"]["notes"] == [f"borrowed heads: {told}"]
        assert told in (tmp_path / protocol / "report.html").read_text()
    with collected() as notes:
        tell_borrowed([Method("part", (tmp_path / "part" / "heads",))], ["text", "audio"], open_aligner("starter"))
    assert str(notes[0]).endswith("part has no heads for audio: the checkpoint's own, which it did not train, stand in")


def test_a_folder_without_results_is_named(tmp_path):
    done = run("report", tmp_path, "--out", tmp_path)
    assert (done.exit_code, "no result of" in done.output) == (2, True)
    (tmp_path / "result.json").write_text("[]")
    assert run("report", tmp_path, "--out", tmp_path).exit_code == 2
    done = run("retrieval", "--features", tmp_path, "--out", tmp_path)
    assert (done.exit_code, "no feature cache" in done.output) == (2, True)


def test_published_averages_are_those_of_their_rows():
    """The transcription, checked by the paper's own averages."""
    one, two, three = (t["rows"] for t in results.published()["tables"])
    for r in three:
        if r["T->I"] is not None:
            assert np.mean([r["T->I"], r["A->I"], r["(T+A)->I"]]) == pytest.approx(r["mean"], abs=0.15)
    for r in two:
        assert np.mean([r["T2V"], r["V2T"]]) == pytest.approx(r["Avg"], abs=0.11)
    for r in one:
        for way in ("T2V", "V2T"):
            found = [r[f"{d} {way}"] for d in ("MSR-VTT", "DiDeMo", "ActivityNet") if r[f"{d} {way}"] is not None]
            if found:
                assert np.mean(found) == pytest.approx(r[f"Average {way}"], abs=0.11)


def test_tables_show_numbers_with_their_interval_and_n():
    rows = [
        {
            "dataset": "d",
            "decoder": "k",
            "method": m,
            "task": t,
            "metric": "FID",
            "value": v,
            "low": v - 1,
            "high": v + 1,
            "n": 9,
        }
        for m, t, v in (("a", "T->I", 12.345), ("a", "A->I", 0.5), ("b", "T->I", 120.0))
    ]
    (table,) = tables.by_metric(rows)
    assert table.head == ["decoder", "method", "T->I", "A->I"]
    assert table.rows == [
        ["k", "a", "12.35 (11.35 to 13.35)", "0.5000 (-0.5000 to 1.50)"],
        ["k", "b", "120.0 (119.0 to 121.0)", ""],
    ]
    assert "N = 9" in table.title
    assert "lower is better" in table.title
    shares = [{**rows[0], "metric": "R@1", "value": 0.5, "low": 0.4, "high": 0.61}]
    assert tables.by_metric(shares)[0].rows[0][2] == "50.0 % (40.0 to 61.0)"
    assert tables.by_metric(shares, signed=True)[0].rows[0][2] == "+50.0 % (+40.0 to +61.0)"


def test_published_numbers_stand_beside_ones_own_and_are_marked():
    own = {"dataset": "vggsound test, 1024 by hash, seed 0", "decoder": "stable-unclip", "method": "mine", "task": "T->I"}
    own |= {"metric": "FID", "value": 41.0, "low": 39.0, "high": 43.0, "n": 1024}
    paper = results.published()["tables"]
    (table,) = tables.by_metric([own, *tables.published_rows(paper, [own])])
    assert table.head[:3] == ["decoder", "method", "T->I"]
    (uni,) = [r for r in table.rows if r[:2] == ["Stable UnCLIP", "UniAlign (Euclidean) (published)"]]
    assert uni[2] == "39.63"
    assert all(r[1].endswith("(published)") for r in table.rows[1:])
    recall = {"dataset": "msrvtt", "method": "mine", "task": "T->VA", "label": "T-VA volume", "metric": "R@1", "value": 0.5}
    found = tables.published_rows(paper, [recall])
    assert [r["value"] for r in found if r["method"] == "UniAlign (published)"] == pytest.approx([0.587, 0.546])
    assert not tables.published_rows(paper, [own | {"dataset": "mine"}, recall | {"metric": "R@5"}])


def test_charts_are_points_in_a_square():
    drawn = tables.plane("x", {"a": [[10, 5.0], [30, 1.0]], "b": [[20, 3.0]]}, "N", lines=True)
    assert [s["points"] for s in drawn["series"]] == [[[0, 1], [1, 0]], [[0.5, 0.5]]]
    assert (drawn["x"], drawn["y"]) == (["10", "30"], ["1", "5"])
    two = [("a", "gap", 0.1), ("a", "R@1", 0.5), ("b", "gap", 0.2), ("b", "R@1", 0.4)]
    rows = [{"dataset": "d", "method": m, "task": "t", "metric": k, "value": v} for m, k, v in two]
    (chart,) = tables.gap_against_quality(rows)
    assert chart["title"] == "R@1 by gap, means over tasks; d"
    assert [s["points"] for s in chart["series"]] == [[[0, 1]], [[1, 0]]]
    assert not tables.gap_against_quality(rows[:2])  # one method is no curve


def test_a_page_escapes_what_it_shows(tmp_path):
    row = {"method": "<b>", "task": "T->I", "metric": "FID", "value": float("nan"), "low": None, "high": None, "n": 3}
    results.write(tmp_path, "generation", {"dataset": "<script>"}, {"rows": [row]})
    page = report.page([(tmp_path, results.read(tmp_path))], "x & y")
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    assert "x &amp; y" in page


def test_a_judge_is_a_checkpoint_a_folder_or_an_encoder_by_its_name(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    from unialign_gen.cli.measuring import open_aligner_of, open_judges
    from unialign_gen.errors import InputError

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 49408, "projection_dim": 12},
        vision_config={**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 12},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    named = open_aligner_of(f"hf:{tmp_path / 'clip'}")
    assert named.embed("text", ["a dog"]).shape == named.embed("image", [Image.new("RGB", (40, 40))]).shape == (1, 12)
    starter = open_aligner_of("starter")
    starter.save_pretrained(tmp_path / "saved")
    again = open_judges([str(tmp_path / "saved")], "cpu")["saved"]
    assert torch.equal(again.embed("text", ["a dog"]), starter.embed("text", ["a dog"]))
    with pytest.raises(InputError, match="a name of its own"):
        open_judges(["starter", "else/starter"], "cpu")
