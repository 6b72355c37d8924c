import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from unialign_gen.checkpoints.concepts import evaluate, hues_kept, score, table
from unialign_gen.checkpoints.evaluation_sets import Prompt, prompts
from unialign_gen.checkpoints.recipe.judge import fit_probe
from unialign_gen.data.manifest import Row, write
from unialign_gen.diagnostics import wilson
from unialign_gen.eval.judge import Judge


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (57, 200)])
def test_wilson_is_scipys(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_probe_separates_what_is_separable_and_keeps_raw_features():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    x = torch.randn(300, 10, generator=generator) * 5 + 40
    x[torch.arange(300), labels] += 30
    probe = fit_probe(x, torch.eye(3)[labels])
    assert float((probe(x).argmax(1) == labels).float().mean()) > 0.97


class Oracle:
    """Stands where the judge stands and knows the answers by the pictures' red value."""

    concepts = ("cat", "dog", "car", "sun", "sea", "owl")

    def features(self, pictures):
        return torch.tensor([[p.getpixel((0, 0))[0], 1.0] for p in pictures]).view(-1, 2)

    def named(self, features):
        first = [self.concepts[int(row[0])] for row in features]
        return [[f, *[c for c in self.concepts if c != f]][:5] for f in first]

    def top(self, pictures):
        return self.named(self.features(pictures))


def test_scores_count_hits_of_any_of_a_prompts_concepts():
    pictures = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in (0, 1, 2, 5)]
    wanted = [Prompt("text", "", c) for c in (["cat"], ["cat", "dog"], ["owl"], ["owl"])]
    oracle = Oracle()
    result = score(oracle, oracle.features(pictures), wanted)
    assert (result["top1"], result["top5"], result["n"]) == (0.75, 0.75, 4)


def data_set(root: Path) -> Path:
    def row(name, kind, split, concepts, captions, style="emoji"):
        return Row(name, kind, "s", name, "MIT", "A", concepts, style, captions, split, f"{name}.png")

    rows = [
        row("a", "picture", "train", ["cat"], ["cat", "flat cat"]),
        row("b", "picture", "test", ["cat"], ["cat", "a tabby cat"]),
        row("c", "picture", "cross", ["dog"], ["a dog from elsewhere"]),
        row("d", "picture", "test", [], ["nothing"]),
        row("e", "sound", "test", ["dog"], ["dog"], "rec"),
        row("f", "sound", "test", ["dog"], ["dog"], "speech"),
    ]
    write(root, rows)
    for r in rows:
        if r.kind == "picture":
            Image.new("RGB", (8, 8), (len(r.concepts), 0, 0)).save(root / r.path)
    return root


def test_prompts_are_unseen_and_fixed(tmp_path):
    found = prompts(data_set(tmp_path), "held_out", 10)
    assert [p.value for p in found["text"]] == ["a tabby cat"]
    assert [Path(p.value).name for p in found["image"]] == ["b.png"]
    assert [Path(p.value).name for p in found["audio"]] == ["e.png"]
    assert [p.value for p in prompts(tmp_path, "cross_source", 10)["text"]] == ["a dog from elsewhere"]


def test_evaluate_reports_every_part(tmp_path):
    class Pipeline:
        prior = None

        def __call__(self, seed, best_of, **prompt):
            assert (list(seed), best_of) == ([*range(seed[0], seed[0] + len(seed))], 3)
            (values,) = prompt.values()
            return type("Out", (), {"images": [Image.new("RGB", (8, 8), (1, 0, 0)) for _ in values], "request": values})()

        def points(self, request):
            return torch.eye(2)[0].expand(len(request), -1)

        class aligner:  # noqa: N801
            folder = None

            @staticmethod
            def embed(kind, pictures):
                return torch.eye(2)[0].expand(len(pictures), -1)

    result = evaluate(Pipeline(), data_set(tmp_path), judge=Oracle(), best_of=3)
    assert result["best_of"] == 3
    assert set(result["held_out"]) == set(result["cross_source"]) == {"image", "text", "audio", "ceiling"}
    assert result["held_out"]["audio"]["top1"] == 1.0
    assert result["held_out"]["text"]["top1"] == 0.0
    assert result["cross_source"]["ceiling"]["n"] == 1
    assert json.loads(json.dumps(result)) == result
    assert "held_out" in table(result)
    assert result["faithfulness"]["read-back"]["value"] == pytest.approx(1.0)
    assert "read-back" in table(result)


def test_a_pictures_hue_is_kept_or_not(tmp_path):
    """Of three pictures that have a hue one is drawn in it; a grey one does not count."""
    wanted, drawn = [], []
    for name, shown, made in (("a", "red", "red"), ("b", "blue", "red"), ("c", "green", "grey"), ("d", "grey", "red")):
        Image.new("RGB", (8, 8), shown).save(tmp_path / f"{name}.png")
        wanted.append(Prompt("image", str(tmp_path / f"{name}.png"), []))
        drawn.append(Image.new("RGB", (8, 8), made))
    kept = hues_kept(drawn, wanted)
    assert kept["n"] == 3
    assert kept["value"] == pytest.approx(1 / 3)


def test_the_frechet_distance_is_nought_from_itself_and_grows_with_a_shift():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    wanted = [Prompt("text", "", ["cat"])] * 40
    judge = Judge(None, torch.nn.Linear(6, 5), list("abcde"))
    assert score(judge, x, wanted, x)["frechet"] == pytest.approx(0, abs=1e-6)
    moved = score(judge, x + torch.tensor([3.0, 0, 0, 0, 0, 0]), wanted, x)
    assert moved["frechet"] == pytest.approx(9, rel=1e-5)
    assert moved["frechet_ci95"][0] <= 9 <= moved["frechet_ci95"][1] + 1e-5
    assert "frechet" not in score(judge, x[:7], wanted[:7], x)


def test_the_shipped_judge_knows_a_plain_sun():
    judge = Judge.from_folder()
    y, x = np.mgrid[:128, :128]
    disc = ((x - 64) ** 2 + (y - 64) ** 2 < 40**2)[..., None]
    picture = Image.fromarray(np.where(disc, [255, 200, 0], 255).astype(np.uint8))
    (top,) = judge.top([picture], k=5)
    assert len(set(top)) == 5
    assert set(top) <= set(judge.concepts)
