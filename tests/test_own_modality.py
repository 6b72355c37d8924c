"""The guide's example of a modality of one's own, and clips in VGGSound's layout, from files to pictures."""

import importlib.util
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from conftest import write_video
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import unialign_gen
from unialign_gen.aligner import Part
from unialign_gen.cli import app
from unialign_gen.configs import configs_folder
from unialign_gen.heads import load_head

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


def test_the_guides_modality_from_files_to_pictures(tmp_path):
    g = torch.Generator().manual_seed(0)
    rows = []
    for i in range(60):
        kind = ("disc", "bar", "triangle")[i % 3]
        x, y, side = (int(v) for v in torch.randint(8, 40, (3,), generator=g))
        box = (x, y, x + side + 30, y + side + 30)
        for name, fill in (("image", ("red", "blue", "green")[i % 3]), ("silhouette", "black")):
            page = Image.new("RGB", (128, 128), "white")
            shape(ImageDraw.Draw(page), kind, box, fill)
            page.save(tmp_path / f"{name}-{i}.png")
        rows.append({"id": str(i), "image": f"image-{i}.png", "silhouette": f"silhouette-{i}.png", "label": kind})
    (tmp_path / "outlines.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    extract = {
        "corpus": {"kind": "table", "manifest": str(tmp_path / "outlines.jsonl")},
        "encoders": {"image": "starter", "silhouette": {"encoder": "silhouette", "file": str(EXAMPLE)}},
        "out": str(tmp_path / "features"),
    }
    train = {
        "out": str(tmp_path / "run"),
        "caches": {"pictures": str(tmp_path / "features")},
        "heads": {"silhouette": {"hidden": 64}},
        "streams": [{"draw": {"pictures": 1}, "modalities": ["image", "silhouette"], "batch": 24}],
        "objective": {"name": "unialign", "tau": 0.5, "tau_centroid": 0.5, "alignment_weight": 6},
        "steps": 60,
        "lr": 2e-3,
        "trackers": [],
        "evaluation": {"held_out": 0.3, "metric": "label1"},
    }
    for name, content in (("extract", extract), ("run", train)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    assert run("extract", tmp_path / "extract.yaml", "--json")["complete"]
    assert run("train", tmp_path / "run.yaml", "--json")["metrics"]["label1"] > 0.8  # of three kinds

    spec = importlib.util.spec_from_file_location("silhouette", EXAMPLE)
    silhouette = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(silhouette)
    generate = unialign_gen.load("starter")
    encoder = silhouette.Silhouette({"encoder": "silhouette"})
    generate.aligner.add_part("silhouette", Part(encoder, load_head(tmp_path / "run" / "heads" / "silhouette")))
    outlines = generate.aligner("silhouette", [tmp_path / f"silhouette-{i}.png" for i in range(6)])
    pictures = generate.embed(image=[str(tmp_path / f"image-{i}.png") for i in range(6)])
    same = torch.tensor([[i % 3 == j % 3 for j in range(6)] for i in range(6)])
    close = outlines @ pictures.T
    assert float(close[same].mean()) > float(close[~same].mean()) + 0.1
    assert generate(embeds=outlines[0], seed=0, num_inference_steps=1).images[0].size == (128, 128)


def test_clips_in_vggsounds_layout_from_files_to_pictures(tmp_path, monkeypatch):
    """The shipped configurations, with no step between them."""
    labels = ["dog barking", "cat meowing"]
    lines = []
    for i in range(10):
        name = ("-" if i == 0 else "v") + f"ideo{i:06d}"
        if i != 7:  # a clip that is no longer there
            write_video(tmp_path / f"{name}_{30:06d}.mp4", seconds=1.0 + 0.1 * i)
        lines.append(f'{name},30,"{labels[i % 2]}",train')
    (tmp_path / "vggsound.csv").write_text("\n".join(lines) + "\n")
    for key, folder in (("CLIPS", "."), ("FEATURES", "features"), ("RUN", "run")):
        monkeypatch.setenv(key, str(tmp_path / folder))
    found = run("extract", configs_folder() / "clips-extract.yaml", "--set", "frames=2", "--json")
    assert (found["samples"], found["missing"]) == (9, 1)
    small = ["--set", "steps=6", "--set", "streams=[{draw: {clips: 1}, modalities: [video, text, audio], batch: 6}]"]
    trained = run("train", configs_folder() / "clips.yaml", *small, "--set", "trackers=[]", "--json")
    assert math.isclose(trained["step"], trained["steps"])
    out = tmp_path / "dog.png"
    run("generate", "--heads", tmp_path / "run", "--text", "a dog", "--steps", 1, "--out", out, "--json")
    assert Image.open(out).size == (128, 128)
    new = unialign_gen.load("starter", heads=tmp_path / "run").embed(text="a dog", prior_strength=0)
    head = load_head(tmp_path / "run" / "heads" / "text")
    encoder = unialign_gen.load("starter").aligner.part("text").encoder
    assert torch.allclose(new, F.normalize(head(encoder(encoder.prepare(["a dog"]))), dim=1), atol=1e-5)
