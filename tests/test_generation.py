"""The generation protocol: its parts on made-up numbers, and whole, on the starter, killed and shared among processes."""

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
import torch.nn.functional as F
from conftest import tone, write_video, write_wav
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from unialign_gen.checkpoints.evaluation_sets import triples
from unialign_gen.cli import app
from unialign_gen.cli.evaluate_corpora import choose, parse_kinds
from unialign_gen.data.cache import Ragged, counted
from unialign_gen.data.manifest import Row, write
from unialign_gen.errors import InputError
from unialign_gen.eval import embeddings, measure, report, scores
from unialign_gen.eval.judge import Judge
from unialign_gen.eval.pictures import Cell, file_name, open_folder, seed_of

pytestmark = pytest.mark.timeout(240)  # whole runs, several processes at a time
COLOURS = ("red", "green", "blue", "orange", "purple", "gray")


def unit(n, d=6, seed=0):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_kinds_of_prompts_are_read_and_checked():
    assert parse_kinds("text, audio,audio+text,video+text+audio") == [
        "text",
        "audio",
        "text+audio",
        "text+audio+video",
    ]
    assert embeddings.needed(["audio", "text+audio"]) == ["text", "audio"]
    assert parse_kinds("outline+text") == ["text+outline"]  # one's own comes last
    for wrong in ("sm ell", "text+text", "text,text", "audio+text,text+audio", ""):
        with pytest.raises(InputError, match="--prompts"):
            parse_kinds(wrong)
    assert [measure.task_of(k) for k in ("text", "text+audio")] == ["T->I", "(T+A)->I"]


def test_names_of_files_are_one_to_one():
    ids = ["a", "A/b", "a%2Fb", "..", ".a", "-x_000030", "é", "a b"]
    names = [file_name(i) for i in ids]
    assert len(set(names)) == len(ids)
    assert not any("/" in n or n.startswith(".") for n in names)


def test_seeds_depend_on_clip_and_draw_alone():
    seeds = {seed_of(clip, draw) for clip in "abc" for draw in range(3)}
    assert len(seeds) == 9
    assert all(0 <= s < 2**63 for s in seeds)


def test_pictures_of_other_settings_are_refused(tmp_path):
    folder = Cell("kandinsky", "m", "text", 0).folder(tmp_path)
    open_folder(folder, {"steps": 20})
    open_folder(folder, {"steps": 20})
    with pytest.raises(InputError, match=r"steps = 20.*another place"):
        open_folder(folder, {"steps": 4})


def data_set(root):
    def made(name, kind, split, concepts, captions=("x",), style="emoji"):
        return Row(name, kind, "s", name, "MIT", "C", concepts, style, list(captions), split, f"{name}.bin")

    write(
        root,
        [
            made("p1", "picture", "cross", ["cat"], ["a cat", "cat"]),
            made("p2", "picture", "cross", ["cat"]),
            made("p3", "picture", "cross", ["sun", "dog"]),
            made("p4", "picture", "cross", ["sun"]),
            made("p5", "picture", "test", ["cat"]),
            made("p6", "picture", "cross", ["cat"], []),
            made("p7", "picture", "train", ["cat"], ["A cat"]),
            made("s1", "sound", "cross", ["cat"], style="rec"),
            made("s2", "sound", "cross", ["cat"], style="fx"),
            made("s3", "sound", "cross", ["dog"], style="rec"),
            made("s4", "sound", "cross", ["sun"], style="speech"),
        ],
    )
    return root


def test_the_starters_sets_join_pictures_with_recordings_of_their_concept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {t["id"]: t for t in triples(data_set(Path()), "cross_source")}
    assert all(Path(t[kind]).is_absolute() for t in found.values() for kind in ("image", "audio"))
    assert set(found) == {"p1", "p2", "p3"}  # the others have no recording there, or no caption
    assert found["p3"]["label"] == "dog"
    assert {Path(found[p]["audio"]).name for p in ("p1", "p2")} == {"s1.bin", "s2.bin"}
    assert found["p1"]["text"] == "cat"  # training has the other
    config = choose("starter", tmp_path, "cross_source", 2, 0, tmp_path / "out")
    assert config.manifest.read_text().count("\n") == 3
    with pytest.raises(InputError, match="no picture of held_out"):
        triples(tmp_path, "held_out")
    for arguments, words in (
        (("coco", None, None, 9, 0), "unknown dataset"),
        (("vggsound", None, None, 9, 0), "needs --root"),
        (("starter", tmp_path, "val", 9, 0), "no split"),
    ):
        with pytest.raises(InputError, match=words):
            choose(*arguments, tmp_path / "out")


class Kept:
    """Features of three samples: the last has no sound, the first no picture of its own but a video."""

    ids, labels = ["a", "b", "c"], [None] * 3
    modalities = dict.fromkeys(("text", "audio", "video", "image"), 6)

    def __init__(self):
        counts = {"text": [2, 1, 1], "audio": [1, 1, 0], "video": [8, 8, 0], "image": [0, 1, 1]}
        self.kept = {m: Ragged(unit(sum(c), seed=i), counted(torch.tensor(c))) for i, (m, c) in enumerate(counts.items())}

    def features(self, modality):
        return self.kept[modality]


def test_prompts_are_mixed_on_the_sphere_with_equal_weights():
    kept = Kept()
    z, has = embeddings.embed(kept, ["text", "text+audio", "text+audio+video", "image"], None, None, frame=5)
    assert has.tolist() == [True, True, False]
    text, audio = kept.kept["text"].values, kept.kept["audio"].values
    assert torch.allclose(z["text"][:2], text[[0, 2]], atol=1e-6)  # the first caption of each
    assert torch.allclose(z["text+audio"][0], F.normalize(text[0] + audio[0], dim=0), atol=1e-6)
    video = F.normalize(kept.kept["video"].values[:8].mean(0), dim=0)
    assert torch.allclose(z["text+audio+video"][0], F.normalize(text[0] + audio[0] + video, dim=0), atol=1e-6)
    assert torch.allclose(z["image"][0], kept.kept["video"].values[5], atol=1e-6)
    assert torch.allclose(z["image"][1], kept.kept["image"].values[0], atol=1e-6)


def test_agreement_tells_a_prompt_that_is_followed_from_one_that_is_not():
    prompt = unit(200)
    follows, ignores = F.normalize(prompt + 0.3 * unit(200, seed=1), dim=1), unit(200, seed=1)
    assert scores.cosines(prompt, follows).mean() > 0.9
    assert abs(scores.cosines(prompt, ignores).mean()) < 0.1
    assert abs(scores.cosines(prompt, follows.roll(67, 0)).mean()) < 0.1


def test_spread_is_its_definition():
    x = torch.randn(9, 4)
    cosine = F.cosine_similarity(x[:, None].double(), x[None].double(), dim=2)
    expected = [(1 - cosine[i])[torch.arange(9) != i].mean() for i in range(9)]
    assert np.allclose(scores.spread(x), expected)
    draws = [torch.randn(5, 4, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    pairs = [1 - F.cosine_similarity(draws[i].double(), draws[j].double()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.allclose(scores.spread_of_seeds(draws), torch.stack(pairs).mean(0))
    assert np.allclose(scores.spread(torch.ones(4, 3)), 0)


def sonic(pictures, own, every):
    """AIS and IIS as they are defined: pair by pair, strictly greater, own ones against the whole set."""
    unit_rows = [F.normalize(x.double(), dim=1).numpy() for x in (pictures, own, every)]
    shares = [[float(p @ o) > float(p @ e) for e in unit_rows[2]] for p, o in zip(unit_rows[0], unit_rows[1], strict=True)]
    return np.mean(shares, axis=1)


def test_ais_iis_and_aic_are_their_definitions():
    x, own, every = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (20, 21, 30))
    assert np.array_equal(scores.similarity_share(x, own[:20], every), sonic(x, own[:20], every))
    same = scores.similarity_share(x, x, x)
    assert np.allclose(same, 19 / 20)  # its own is not less like it than itself
    labels = [{int(i)} for i in torch.randint(0, 9, (20,), generator=torch.Generator().manual_seed(0))]
    classes = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    nearest = (F.normalize(x, dim=1) @ F.normalize(classes, dim=1).T).argmax(1).tolist()
    assert scores.class_hits(x, classes, labels).tolist() == [float({n} == r) for n, r in zip(nearest, labels, strict=True)]
    assert scores.class_hits(x, classes, [range(9)] * 20).mean() == 1
    assert np.isnan(scores.class_hits(x[:1], classes, [()])).all()


def test_hits_leave_out_what_has_no_class():
    found = scores.hits_of([["a"], ["b"], ["a"]], [frozenset("a"), frozenset("a"), frozenset()])
    assert found.tolist()[:2] == [1, 0]
    assert np.isnan(found[2])


def test_vggsounds_classes_are_the_judges_concepts():
    names = Judge.from_folder().vocabulary()
    assert "dog" in names["dog barking"]
    assert names["dog"] == {"dog"}


def clips(root: Path, count: int = 5) -> Path:
    """A manifest of pictures with sounds, and one clip that has a video instead."""
    lines = []
    for i in range(count):
        picture = Image.new("RGB", (96, 96), "white")
        ImageDraw.Draw(picture).ellipse((20, 20, 76, 76), fill=COLOURS[i])
        picture.save(root / f"{i}.png")
        write_wav(root / f"{i}.wav", tone(1.5, 22050, 200.0 * (i + 1)), 22050)
        entry = {"id": f"c/{i}", "text": f"a {COLOURS[i]} ball", "audio": f"{i}.wav", "image": f"{i}.png", "label": "sun"}
        if i == 0:
            write_video(root / "0.mp4")
            entry = {"id": "c/0", "text": "fog", "video": "0.mp4"}
        lines.append(json.dumps(entry))
    lines.append(json.dumps({"id": "gone", "text": "x", "image": "gone.png"}))
    lines.append(json.dumps({"id": "silent", "text": "x", "image": "1.png"}))
    (root / "clips.jsonl").write_text("\n".join(lines))
    return root / "clips.jsonl"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    chosen = f"--dataset table --root {clips(root)} --prompts text,audio,text+audio,image --steps 1 --seeds 2 --batch 4"
    measured = "--resamples 2 --examples 2 --interpolations 1 --judge starter"
    return ["eval", "generation", *chosen.split(), *measured.split()]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The protocol on five clips, without interruption."""
    out = tmp_path_factory.mktemp("whole")
    done = CliRunner().invoke(app, [*command, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out, json.loads((out / "result.json").read_text())


def value(rows, **about):
    (found,) = [r for r in rows if all(r.get(k) == v for k, v in about.items())]
    return found


def test_every_cell_of_the_table_is_there(whole):
    out, result = whole
    rows = result["rows"]
    distance = "Frechet distance (EfficientNet-Lite2)"
    tasks = {r["task"] for r in rows if r["metric"] == distance}
    assert tasks == {"T->I", "A->I", "(T+A)->I", "I->I", "mean"}
    mean = np.mean([value(rows, metric=distance, task=t)["value"] for t in ("T->I", "A->I", "(T+A)->I")])
    assert value(rows, metric=distance, task="mean")["value"] == pytest.approx(mean)
    draws = value(rows, metric=distance, task="T->I")["draws"]
    assert len(draws) == 2
    assert value(rows, metric=distance, task="T->I")["value"] == pytest.approx(np.mean(draws))
    assert value(rows, metric=distance, task="I->I")["method"] == "self-reconstruction"
    assert {r["n"] for r in rows if r["metric"] == distance} == {5}
    assert not any("FID" in r["metric"] for r in rows)
    assert value(rows, metric="judge top-1", task="T->I", method="checkpoint")["n"] == 4  # the fifth has no class
    floor = value(rows, metric="judge top-1", task="T->I", method="checkpoint, shuffled prompts")
    ceiling = value(rows, metric="judge top-1", method="the clips' own pictures")
    assert floor["n"] == ceiling["n"] == 4
    for task in ("T->I", "A->I", "(T+A)->I"):
        for metric in ("AIC (starter)", "IIS (starter)", "class accuracy, top-5 (starter)"):
            assert 0 <= value(rows, metric=metric, task=task, method="checkpoint")["value"] <= 1
    assert value(rows, metric="IIS (starter)", method="the clips' own pictures")["value"] == pytest.approx(4 / 5)
    assert {r["method"] for r in result["differences"]} == set()
    assert len(list(out.glob("pictures/kandinsky/*/*/*/*.png"))) == 5 * 4 * 2


def test_what_was_left_out_and_what_was_used_is_said(whole):
    _, result = whole
    assert {e["id"]: e["reason"].split(":")[0] for e in result["left_out"]} == {
        "gone": "no such file",
        "silent": "lacks a modality that a prompt needs",
    }
    assert result["about"]["reference"].startswith("frame 4 of 8")
    assert result["about"]["clips"] == 5


def test_the_distance_is_that_of_the_pictures_on_disk(whole):
    from unialign_gen.eval.extractors import load
    from unialign_gen.eval.features import extract
    from unialign_gen.eval.frechet import frechet_distance

    out, result = whole
    judge = load("judge")
    folder = out / "pictures" / "kandinsky" / "checkpoint" / "text" / "1"
    names = sorted(p.name for p in folder.glob("*.png"))
    fake, real = (extract(judge, [f / n for n in names]) for f in (folder, out / "reference"))
    row = value(result["rows"], metric="Frechet distance (EfficientNet-Lite2)", task="T->I")
    assert row["draws"][1] == pytest.approx(frechet_distance(fake, real), rel=1e-4)


def test_the_report_holds_pictures_tables_and_published_numbers(whole, tmp_path):
    out, result = whole
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp") == 2  # a grid of examples, one of interpolations
    assert 'src="http' not in page
    for words in ("106.97", "Published, table 3", "N = 5", "<svg"):
        assert words in page
    assert len(page) < 1_000_000
    files = report.write([(out, result)], tmp_path, "x", ["csv"])
    assert [f.name for f in files] == ["report.html", "report.json", "figures.csv"]
    assert sum(f.stat().st_size for f in files[:2]) < 2_000_000
    assert (tmp_path / "figures.csv").read_text().startswith("dataset,checkpoint,decoder,method,task,")
    joined = json.loads((tmp_path / "report.json").read_text())
    assert joined["published"]["tables"][2]["rows"][0]["mean"] == 32.99


def test_a_grid_has_a_row_a_clip_and_shrinks_to_fit(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    examples = [
        {
            "reference": "a.png",
            "text": "t",
            "label": None,
            "pictures": [{"decoder": "k", "method": "m", "task": "T->I", "path": "gone.png"}],
        }
    ]
    result = {"examples": examples * 3}
    (found,) = report.grids(tmp_path, result, 32)
    sheet = Image.open(io.BytesIO(base64.b64decode(found["url"].partition(",")[2])))
    assert sheet.size == (64, 96)
    assert sheet.getpixel((10, 70))[0] > 200 > sheet.getpixel((50, 70))[0]
    monkeypatch.setattr(report, "ROOM", 1)
    ((smallest,),) = report.all_grids([(tmp_path, result)])
    assert len(smallest["url"]) < len(found["url"]) + 1


def test_a_second_run_draws_nothing_and_finds_the_same(whole, command, monkeypatch):
    out, result = whole
    before = {p: p.stat().st_mtime_ns for p in out.glob("pictures/**/*.png")}
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout.strip().splitlines()[-1])["rows"] == result["rows"]
    assert {p: p.stat().st_mtime_ns for p in out.glob("pictures/**/*.png")} == before
    changed = CliRunner().invoke(app, [*command[:-8], "--steps", "2", "--out", str(out)])
    assert changed.exit_code == 2
    assert "steps = 1" in changed.output


def kill_after(children, out, count):
    """Kills them when there are so many pictures, and says how many there are then."""
    while len(list(out.glob("pictures/**/*.png"))) < count:
        for child in children:
            assert child.alive(), child.stderr
        time.sleep(0.02)
    for child in children:
        child.kill()
    return len(list(out.glob("pictures/**/*.png")))


def test_killed_alone_and_as_two_and_finished_by_three_it_is_the_same_table(whole, command, tmp_path):
    _, result = whole

    def start(world=1):
        words, threads = [*command, "--out", tmp_path], torch.get_num_threads()
        each = [{}] if world == 1 else processes.ranks(world)
        return [processes.program(*words, threads=threads, environment=names) for names in each]

    left = kill_after(start(), tmp_path, 5)
    assert 5 <= left < 40
    more = kill_after(start(2), tmp_path, left + 3)
    assert left < more < 40
    assert not (tmp_path / "result.json").exists()
    processes.finish(*start(3))
    again = json.loads((tmp_path / "result.json").read_text())
    assert again["rows"] == result["rows"]
    assert again["differences"] == result["differences"]
