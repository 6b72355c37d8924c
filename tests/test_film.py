"""Sound to film: windows against brute force, the path against its formula, the file against another decode of the sound."""

import json

import av
import numpy as np
import pytest
import torch
from conftest import tone, write_wav
from PIL import Image
from torch.nn.functional import normalize
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.errors import InputError
from unialign_gen.film import Plan, Track, Window, listen, make_film, picture_count, windows
from unialign_gen.film.sheets import save_sequence
from unialign_gen.film.writer import FilmWriter
from unialign_gen.loading import shipped_folder
from unialign_gen.media import Excerpt, load_sound, sound_blocks
from unialign_gen.notes import collected
from unialign_gen.pipelines.prior import temperature_of
from unialign_gen.pipelines.prompts import picture_seeds


def blocks_of(samples, sizes):
    at = 0
    for size in sizes:
        yield samples[at : at + size]
        at += size
    yield samples[at:]


@pytest.mark.parametrize(("window", "hop"), [(1.0, 0.25), (0.5, 0.5), (0.2, 0.7), (9.0, 0.4)])
def test_windows_are_the_stretches_around_each_moment(window, hop):
    rate, samples = 100, torch.arange(437).float()
    plan = Plan(window=window, hop=hop)
    got = list(windows(blocks_of(samples, [3, 60, 1, 200, 50]), rate, plan))
    half = round(window * rate / 2)
    middles = [m for m in (round(i * hop * rate) for i in range(2000)) if m < len(samples)]
    expected = [Window(m / rate, samples[max(0, m - half) : m + half]) for m in middles]
    assert [w.middle for w in got] == [w.middle for w in expected]
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a.samples, b.samples)


def test_the_path_is_the_kernel_regression_of_the_formula():
    torch.manual_seed(0)
    track = Track(torch.arange(5) * 0.5, torch.tensor([0.1, 0.0, 0.4, 0.2, 0.3]), normalize(torch.randn(5, 8), dim=1), 2.5)
    moment, smooth = 0.9, 0.3
    total = torch.zeros(8, dtype=torch.float64)
    for t, r, z in zip(track.times, track.loudness, track.points, strict=True):
        total += np.exp(-((moment - float(t)) ** 2) / (2 * smooth**2)) * float(r) * z.double()
    found = track.at(torch.tensor([moment]), smooth)[0]
    torch.testing.assert_close(found.double(), total / total.norm(), atol=1e-6, rtol=0)


def test_a_pause_keeps_the_last_picture_and_opposite_windows_have_a_point():
    a = normalize(torch.ones(4), dim=0)
    track = Track(torch.tensor([0.0, 50.0]), torch.tensor([0.2, 0.0]), torch.stack([a, torch.zeros(4)]), 51.0)
    torch.testing.assert_close(track.at(torch.tensor([50.0]), 0.5)[0], a)
    track = Track(torch.tensor([0.0, 1.0]), torch.tensor([0.2, 0.2]), torch.stack([a, -a]), 1.0)
    assert track.at(torch.tensor([0.5]), 0.5)[0].norm().item() == pytest.approx(1, abs=1e-6)


def test_sound_blocks_hold_what_load_sound_gives(tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1.3, 22050), 22050)
    whole = torch.cat(list(sound_blocks(wav, 16000)), 1)[0]
    torch.testing.assert_close(whole, load_sound(wav, 16000))
    assert sum(b.shape[1] for b in sound_blocks(wav, 16000, seconds=0.5)) == 8000
    assert {b.shape[0] for b in sound_blocks(wav, 16000, channels=2)} == {2}


def test_a_film_has_the_recording_and_a_picture_for_every_moment(starter, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1.5, 44100), 44100)
    out, seen = tmp_path / "f.mp4", []
    plan = Plan(pictures=2, fps=8, side=64, hop=0.5, batch=3)
    told = make_film(
        starter, wav, out, plan, seed=3, num_inference_steps=1, progress=lambda done, total, batch: seen.append((done, total))
    )
    assert told == {"seconds": 1.5, "pictures": 4, "windows": 3}
    assert seen == [(3, 4), (4, 4)]
    with av.open(str(out)) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
        assert sum(1 for _ in container.decode(video=0)) == 12
    heard = load_sound(out, 44100)[4000:60000]
    given = load_sound(wav, 44100)[4000:60000]
    assert torch.corrcoef(torch.stack([heard, given]))[0, 1] > 0.99  # in time with the recording: a shift would show


def test_the_first_frame_is_the_picture_of_the_first_moment(starter, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(0.5, 44100), 44100)
    plan = Plan(pictures=2, fps=4, side=128)
    make_film(starter, wav, tmp_path / "f.mp4", plan, seed=5, num_inference_steps=1)
    track = listen(starter.aligner, wav, plan)
    draws = picture_seeds(5, len(track.points), 1)
    track.points = starter.prior(track.points, temperature=temperature_of(starter.prior), generator=draws)
    point = track.at(torch.tensor([0.0]), plan.smooth)
    picture = starter(embeds=point, seed=[5], num_inference_steps=1).images[0]
    expected = np.asarray(picture.resize((128, 128), Image.Resampling.BICUBIC)).astype(float)
    with av.open(str(tmp_path / "f.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    assert np.abs(frame - expected).mean() < 10


def test_the_picture_of_one_steady_sound_moves(starter, tmp_path):
    """The cow's moo lies at one point for all of its windows: what it leaves open is drawn anew for each."""
    drawn, plan = [], Plan(pictures=1, fps=2, side=64, seconds=4)
    options = {"progress": lambda done, total, batch: drawn.extend(batch), "num_inference_steps": 8, "upscale": 1}
    make_film(starter, shipped_folder() / "samples" / "cow.flac", tmp_path / "f.mp4", plan, **options)
    assert np.abs(np.diff([np.asarray(p).astype(float) for p in drawn], axis=0)).mean((1, 2, 3)).min() > 3


def test_frames_fade_from_picture_to_picture(tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1.0, 44100), 44100)
    with FilmWriter(tmp_path / "f.mp4", wav, 1.0, Plan(pictures=1, fps=5, side=16)) as writer:
        writer.add([Image.new("RGB", (8, 8), "black")])
        writer.add([Image.new("RGB", (8, 8), "white")])
    with av.open(str(tmp_path / "f.mp4")) as container:
        means = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
    assert np.allclose(means, [0, 51, 102, 153, 204], atol=4)


@pytest.mark.parametrize("rate", [1.5, 24, 24000 / 1001])
def test_films_of_pictures_keep_their_rate_and_size(tmp_path, rate):
    save_sequence([Image.new("RGB", (33, 21), (i * 20, 0, 0)) for i in range(6)], str(tmp_path / "a.mp4"), rate)
    wav = write_wav(tmp_path / "a.wav", tone(1.0, 44100), 44100)
    with FilmWriter(str(tmp_path / "b.mp4"), wav, 4.0, Plan(pictures=1, fps=rate, side=16)) as writer:
        writer.add([Image.new("RGB", (8, 8), "black")])
    for name, frames, size in (("a.mp4", 6, (32, 20)), ("b.mp4", round(4 * rate), (16, 16))):
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].average_rate == pytest.approx(rate)
            pictures = list(container.decode(video=0))
        assert (len(pictures), (pictures[0].width, pictures[0].height)) == (frames, size)


@pytest.mark.parametrize(
    ("name", "sizes", "rate", "words"),
    [
        ("a.avi", [(8, 8)], 8, "must end in"),
        ("a.gif", [], 8, "got 0"),
        ("a.mp4", [(8, 8), (6, 8)], 8, "one size"),
        ("a.gif", [(8, 8)], 0, "at 0"),
        ("a.mp4", [(1, 8)], 8, "1 x 8"),
    ],
)
def test_pictures_that_make_no_film_are_one_line_and_leave_no_file(tmp_path, name, sizes, rate, words):
    with pytest.raises(InputError, match=words):
        save_sequence([Image.new("RGB", size) for size in sizes], tmp_path / name, rate)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: write_wav(p, tone(1, 8000) * 0, 8000), "silent"),
        (lambda p: write_wav(p, tone(3, 8000), 8000), "longer than 2 s"),
        (lambda p: p.write_bytes(b"nothing") and p, "not a sound"),
    ],
)
def test_a_recording_that_cannot_be_used_is_one_line_and_leaves_no_file(starter, tmp_path, make, words):
    make(tmp_path / "a.wav")
    with pytest.raises(InputError, match=words):
        make_film(starter, str(tmp_path / "a.wav"), str(tmp_path / "f.mp4"), Plan(longest=2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


class Deaf:
    """In the place of encoders, which take minutes: what is refused must be refused before."""

    sound_rate, embed_dim = 16000, 4

    def __call__(self, kind, sounds):
        return torch.ones(len(sounds), self.embed_dim) / 2


def test_a_long_recording_is_refused_before_it_is_heard_unless_a_part_is_asked_for(tmp_path, monkeypatch):
    wav = write_wav(tmp_path / "a.wav", tone(3, 8000), 8000)
    for source, plan in ((wav, Plan(longest=2, seconds=2.5)), (Excerpt(wav, 0.5, 2.5), Plan(longest=2))):
        assert listen(Deaf(), source, plan).seconds == 2.5
    monkeypatch.setattr(Deaf, "__call__", None)
    with pytest.raises(InputError, match="longer than 2 s: ask for a part of it, so many seconds"):
        listen(Deaf(), wav, Plan(longest=2))


def test_a_film_says_that_its_recording_is_cut_off_or_hardly_one(tmp_path):
    whole = (shipped_folder() / "samples" / "cow.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) * 4 // 10])
    with collected() as notes:
        listen(Deaf(), tmp_path / "cut.flac", Plan())
    assert [n.kind for n in notes] == ["damaged", "cut"]
    assert "of 5.7 s are there" in str(notes[1])
    for part in (Plan(seconds=1), Plan(seconds=5)):  # of which all, or not all, is there
        with collected() as notes:
            listen(Deaf(), tmp_path / "cut.flac", part)
        assert ("cut" in [n.kind for n in notes]) == (part.seconds == 5)
    with collected() as notes:
        listen(Deaf(), write_wav(tmp_path / "short.wav", tone(0.05, 8000), 8000), Plan())
    assert [n.kind for n in notes] == ["too short"]
    with pytest.raises(InputError, match="too short to be heard"):
        listen(Deaf(), write_wav(tmp_path / "click.wav", tone(0.005, 8000), 8000), Plan())


def test_stopping_removes_the_unfinished_film(starter, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1.5, 44100), 44100)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_film(starter, wav, tmp_path / "f.mp4", Plan(pictures=4, batch=2), num_inference_steps=1, progress=stop)
    assert not (tmp_path / "f.mp4").exists()


def test_picture_count_reaches_the_end():
    assert picture_count(2.0, Plan(pictures=3)) == 7
    assert picture_count(2.01, Plan(pictures=3)) == 8


@pytest.mark.parametrize("bad", [{"hop": 0}, {"pictures": 30}, {"side": 33}, {"seconds": -1}, {"smooth": float("nan")}])
def test_a_plan_that_makes_no_sense(bad):
    with pytest.raises(InputError):
        Plan(**bad)


def test_the_command_writes_a_film_and_says_so(tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(1, 44100), 44100)
    options = ["--pictures", "1", "--fps", "4", "--side", "64", "--steps", "1", "--text", "猫鳥魚牛虎猿蝶鯨", "--json"]
    result = CliRunner().invoke(app, ["animate", str(wav), "--out", str(tmp_path / "f.mp4"), *options])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert "unknown words" in [note["kind"] for note in told.pop("notes")]
    film = {"file": str(tmp_path / "f.mp4"), "seconds": 1.0, "pictures": 2, "windows": 2, "seed": 0}
    assert told == film


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--out", "f.gif"], "must end in"), (["--pictures", "99"], "frames"), (["--text", " "], "empty"), ([], "not a sound")],
)
def test_mistakes_of_the_command(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["animate", "a.wav", *options])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len([line for line in result.stderr.strip().splitlines() if not line.endswith(" ...")]) == 1  # beside stages
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_a_film_never_takes_the_place_of_its_recording(starter, tmp_path):
    recording = write_wav(tmp_path / "a.mp4", tone(1, 16000), 16000)
    before = recording.read_bytes()
    for source in (recording, Excerpt(recording, 0.1)):
        with pytest.raises(InputError, match="is the input"):
            make_film(starter, source, recording, Plan(pictures=1, fps=2, side=32), num_inference_steps=1)
    with pytest.raises(InputError, match=r"must end in \.mp4"):
        make_film(starter, recording, tmp_path / "a.mov", Plan(pictures=1, fps=2, side=32), num_inference_steps=1)
    assert recording.read_bytes() == before
