"""Captions into a file: killed, torn, refused, complete."""

import json
import time

import numpy as np
import processes
import pytest
from conftest import write_video
from PIL import Image

from unialign_gen.data import caption, captions
from unialign_gen.data.corpus import Corpus, Missing, Sample
from unialign_gen.errors import InputError


class Names:
    """Captions that say how bright the frames are, slowly."""

    def __init__(self, seconds=0.0):
        self.seconds, self.calls = seconds, []

    def __call__(self, clips):
        self.calls.append(len(clips))
        time.sleep(self.seconds)
        return [[f"brightness {round(float(np.asarray(f).mean()))}" for f in clip] for clip in clips]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    samples = []
    for i in range(9):
        path = root / f"p{i}.png"
        Image.new("RGB", (8, 8), (20 * i,) * 3).save(path)
        samples.append(Sample(f"p{i}", image=str(path)))
    (root / "bad.png").write_bytes(b"no picture")
    video = str(write_video(root / "v.mp4"))
    samples += [Sample("bad", image=str(root / "bad.png")), Sample("v", video=video), Sample("words", text=("x",))]
    return Corpus("pictures", samples, [Missing("gone", "no file")])


def test_every_sample_has_its_captions_and_the_rest_a_reason(corpus, tmp_path):
    out = tmp_path / "c.jsonl"
    model = Names()
    found = caption.run(corpus, model, out, {"model": "names"}, frames=2, batch=4, progress=False)
    assert found == {"out": str(out), "captioned": 10, "before": 0, "broken": 1, "without": 1}
    read = captions.read(out)
    assert [read[f"p{i}"] for i in range(9)] == [(f"brightness {20 * i}",) for i in range(9)]
    assert len(read["v"]) == 2
    assert model.calls == [4, 4, 2]
    report = [json.loads(line) for line in caption.problems_of(out).read_text().splitlines()]
    assert [(r["id"], r["kind"]) for r in report] == [("gone", "missing"), ("bad", "broken")]
    again = caption.run(corpus, Names(), out, {"model": "names"}, frames=2, batch=4, progress=False)
    assert (again["captioned"], again["before"], again["broken"]) == (0, 10, 1)


def test_a_torn_last_line_is_done_again(corpus, tmp_path):
    out = tmp_path / "c.jsonl"
    caption.run(corpus, Names(), out, {}, batch=4, progress=False)
    whole = out.read_bytes()
    for cut in (1, 10, len(whole) // 2, len(whole) - 5):
        out.write_bytes(whole[:-cut])
        caption.run(corpus, Names(), out, {}, batch=4, progress=False)
        assert out.read_bytes() == whole
    out.write_bytes(b"{}\n" + whole)
    with pytest.raises(InputError, match="is damaged"):
        caption.run(corpus, Names(), out, {}, progress=False)


def slowly(corpus, out):
    caption.run(corpus, Names(0.1), out, {}, batch=2, workers=1, progress=False)


def test_killed_it_goes_on_without_loss_or_repetition(corpus, tmp_path):
    out = tmp_path / "c.jsonl"
    for lines in (1, 4):
        process = processes.start(slowly, corpus, out)
        while process.alive() and (not out.exists() or out.read_bytes().count(b"\n") < lines):
            time.sleep(0.005)
        process.kill()
    assert 4 <= out.read_bytes().count(b"\n") < 10
    slowly(corpus, out)
    assert sorted(json.loads(line)["id"] for line in out.read_text().splitlines()) == sorted(
        [*(f"p{i}" for i in range(9)), "v"]
    )


def test_captions_of_another_model_are_refused(corpus, tmp_path):
    out = tmp_path / "c.jsonl"
    caption.run(corpus, Names(), out, {"model": "names", "frames": 1}, progress=False)
    with pytest.raises(InputError, match=r'was made with model = "names", this run has "others"'):
        caption.run(corpus, Names(), out, {"model": "others", "frames": 1}, progress=False)
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "caption": "b"}\n')
    with pytest.raises(InputError, match="was not made by this command"):
        caption.run(corpus, Names(), tmp_path / "mine.jsonl", {}, progress=False)
