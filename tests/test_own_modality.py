"""The guide's example of a modality of one's own, from files to pictures."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image, ImageChops, ImageDraw
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.aligner import Part
from unialign_gen.cli import app
from unialign_gen.heads import encoder_beside, load_head

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "silhouette.py"


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def shape(draw, kind, box, fill):
    if kind == "disc":
        draw.ellipse(box, fill=fill)
    elif kind == "bar":
        left, top, right, bottom = box
        draw.rectangle((left, (top + bottom) // 2 - 6, right, (top + bottom) // 2 + 6), fill=fill)
    else:
        left, top, right, bottom = box
        draw.polygon([(left, bottom), ((left + right) // 2, top), (right, bottom)], fill=fill)


@pytest.fixture(scope="module")
def outlines(tmp_path_factory):
    """Sixty pictures with captions and outlines, and a run that was trained from them by the guide's example."""
    root = tmp_path_factory.mktemp("outlines")
    g = torch.Generator().manual_seed(0)
    rows = []
    for i in range(60):
        kind = ("disc", "bar", "triangle")[i % 3]
        colour = ("red", "blue", "green")[i % 3]
        x, y, side = (int(v) for v in torch.randint(8, 40, (3,), generator=g))
        box = (x, y, x + side + 30, y + side + 30)
        for name, fill in (("image", colour), ("silhouette", "black")):
            page = Image.new("RGB", (128, 128), "white")
            shape(ImageDraw.Draw(page), kind, box, fill)
            page.save(root / f"{name}-{i}.png")
        files = {"image": f"image-{i}.png", "silhouette": f"silhouette-{i}.png"}
        rows.append({"id": str(i), "text": f"a {colour} {kind}", "label": kind, **files})
    (root / "outlines.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    encoders = {"image": "starter", "text": "starter", "silhouette": {"encoder": "silhouette", "file": str(EXAMPLE)}}
    extract = {
        "corpus": {"kind": "manifest", "manifest": str(root / "outlines.jsonl")},
        "encoders": encoders,
        "out": str(root / "features"),
    }
    train = {
        "out": str(root / "run"),
        "caches": {"pictures": str(root / "features")},
        "heads": {"silhouette": {"hidden": 64}},
        "streams": [{"draw": {"pictures": 1}, "modalities": ["image", "silhouette"], "batch": 24}],
        "objective": {"name": "unialign", "tau": 0.5, "tau_centroid": 0.5, "alignment_weight": 3},
        "steps": 60,
        "lr": 2e-3,
        "trackers": [],
        "evaluation": {"held_out": 0.3, "metric": "label1"},
    }
    for name, content in (("extract", extract), ("run", train)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert run("extract", root / "extract.yaml", "--json")["complete"]
    assert run("train", root / "run.yaml", "--json")["metrics"]["label1"] > 0.8  # of three kinds
    return root


def check_outlines(outlines, points):
    """Outlines (6, 256) lie nearer to pictures of their own kind of thing."""
    pictures = unialign_gen.load("starter").embed(image=[str(outlines / f"image-{i}.png") for i in range(6)])
    same = torch.tensor([[i % 3 == j % 3 for j in range(6)] for i in range(6)])
    close = points @ pictures.T
    assert float(close[same].mean()) > float(close[~same].mean()) + 0.1


def test_the_guides_modality_from_files_to_pictures(outlines):
    folder = outlines / "run" / "heads" / "silhouette"
    generate = unialign_gen.load("starter")
    generate.aligner.add_part("silhouette", Part(encoder_beside(folder), load_head(folder)))
    points = generate.aligner("silhouette", [outlines / f"silhouette-{i}.png" for i in range(6)])
    check_outlines(outlines, points)
    assert generate(embeds=points[0], seed=0, num_inference_steps=1).images[0].size == (512, 512)


def test_a_run_holds_all_that_its_modality_needs(outlines, tmp_path, monkeypatch):
    """Encoder's file, description and head go with the folder; the example and the features are not asked for again."""
    shutil.copytree(outlines / "run", tmp_path / "moved")
    folder = tmp_path / "moved" / "heads" / "silhouette"
    assert json.loads((folder / "encoder.json").read_text()) == {"encoder": "silhouette", "file": "encoder.py"}
    assert (folder / "encoder.py").read_text() == EXAMPLE.read_text()
    encoder = encoder_beside(folder)
    assert encoder(encoder.prepare([outlines / "silhouette-0.png"])).shape == (1, 768)
    assert encoder_beside(outlines) is None


def test_retrieval_over_ones_own_modality(outlines, tmp_path):
    table = ["--features", outlines / "features", "--method", f"ours={outlines / 'run'}", "--modality", "silhouette"]
    found = run("eval", "retrieval", *table, "--out", tmp_path, "--json")
    assert any("silhouette" in json.dumps(row) for row in found["rows"])


def test_ones_own_modality_is_a_prompt_like_any_other(outlines, tmp_path):
    out = tmp_path / "dog.png"
    run("generate", "--heads", outlines / "run", "--text", "a dog", "--steps", 1, "--out", out, "--json")  # needs no outline
    generate = unialign_gen.load("starter", heads=outlines / "run")
    assert "silhouette" in generate.aligner.modalities
    files = [str(outlines / f"silhouette-{i}.png") for i in range(6)]
    check_outlines(outlines, generate.embed(silhouette=files))
    mixed = generate(silhouette=files[0], text="red", weights={"silhouette": 0.8, "text": 0.2}, seed=0, num_inference_steps=1)
    generate.save_pretrained(tmp_path / "saved")
    again = unialign_gen.load(str(tmp_path / "saved"))
    assert torch.allclose(again.embed(silhouette=files), generate.embed(silhouette=files), atol=1e-6)
    same = again(silhouette=files[0], text="red", weights={"silhouette": 0.8, "text": 0.2}, seed=0, num_inference_steps=1)
    apart = ImageChops.difference(same.images[0], mixed.images[0])  # a copy's tensors may lie, and so round, otherwise
    assert max(high for _, high in apart.getextrema()) <= 1
    protocol = ["--dataset", "table", "--root", outlines / "outlines.jsonl", "--clips", 4, "--seeds", 1, "--steps", 1]
    method = ["--method", f"ours={outlines / 'run'}", "--prompts", "silhouette,text+silhouette", "--extractor", "judge"]
    found = run("eval", "generation", *protocol, *method, "--out", tmp_path / "results", "--json")
    assert {"silhouette->I", "(T+silhouette)->I"} <= {row.get("task") for row in found["rows"]}
