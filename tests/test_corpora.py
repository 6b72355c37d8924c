import csv
import hashlib
import json
from dataclasses import replace

import pytest
from conftest import tone, write_video, write_wav
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.data import captions, manifest_corpus, retrieval, vggsound
from unialign_gen.data.files import MediaFolder
from unialign_gen.data.sources import CorpusConfig, read_corpus
from unialign_gen.errors import InputError
from unialign_gen.notes import collected

# id, start, label, split, and where the file lies; none for a clip that was never downloaded
LISTED = [
    ("---1_cCGK4M", 1, "playing bass drum, loud", "test", "---1_cCGK4M_000001.mp4"),
    ("-0jeONf82dE", 300, 'a "quoted" label', "test", "video/-0jeONf82dE_300000_310000.mkv"),
    ("plain_id-00", 20, "dog barking", "test", "test/plain_id-00.WEBM"),
    ("in.a_folder", 7, "cat purring", "test", "videos/cat purring/in.a_folder_7_17.avi"),
    ("gone0000000", 0, "sea waves", "test", None),
    ("half0000000", 40, "sea waves", "test", "half0000000_000040.mp4.part"),
    ("sound_only_", 30, "rain", "test", "audio/sound_only__000030.wav"),
    ("training000", 12, "typing on typewriter", "train", "train/training000_000012.mov"),
]


@pytest.fixture
def root(tmp_path):
    with (tmp_path / "vggsound.csv").open("w", newline="") as f:
        csv.writer(f).writerows(row[:4] for row in LISTED)
    for *_, place in LISTED:
        if place:
            path = tmp_path / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


def test_every_naming_of_files_is_found_and_the_rest_is_listed(root):
    corpus = vggsound.read(root, "test")
    assert {s.id: s.video and s.video.removeprefix(f"{root}/") for s in corpus.samples} == {
        f"{row[0]}_{row[1]:06d}": None if row[4].startswith("audio") else row[4]
        for row in LISTED
        if row[3] == "test" and row[4] and not row[4].endswith("part")
    }
    assert {m.id: m.reason.split(" ")[0] for m in corpus.missing} == {"gone0000000_000000": "no", "half0000000_000040": "only"}
    assert [s.label for s in corpus.samples[:2]] == ["playing bass drum, loud", 'a "quoted" label']
    assert corpus.samples[-1].audio.endswith("sound_only__000030.wav")
    assert corpus.samples[0].audio == corpus.samples[0].video
    assert corpus.samples[0].text == ()
    assert len(vggsound.read(root, "train").samples) == 1
    assert len(vggsound.read(root, None).samples) == 6


def test_the_older_list(root):
    (root / "test.csv").write_text('---1_cCGK4M_000001.mp4,"playing bass drum, loud"\ngone0000000_000000.mp4,sea waves\n')
    corpus = vggsound.read(root, "test", csv=root / "test.csv")
    assert [(s.id, s.label) for s in corpus.samples] == [("---1_cCGK4M_000001", "playing bass drum, loud")]
    assert [m.id for m in corpus.missing] == ["gone0000000_000000"]


def test_the_folder_is_listed_once_and_no_file_is_looked_for(root, monkeypatch):
    import os
    from pathlib import Path

    folder = MediaFolder(root)
    for name in ("stat", "scandir", "open"):
        monkeypatch.setattr(os, name, None)
    monkeypatch.setattr(Path, "exists", None)
    assert folder.find(["gone", "plain_id-00"])[0].endswith("plain_id-00.WEBM")


def test_of_files_alike_the_shortest_path_counts(root):
    (root / "copy").mkdir()
    (root / "copy" / "---1_cCGK4M_000001.mp4").touch()
    assert vggsound.read(root).samples[0].video == str(root / "---1_cCGK4M_000001.mp4")


def test_rows_twice_and_a_header(root):
    text = (root / "vggsound.csv").read_text()
    (root / "vggsound.csv").write_text("youtube_id,start_seconds,label,split\n" + text + text.splitlines()[0] + "\n")
    corpus = vggsound.read(root)
    assert len(corpus.samples) == 5
    assert [m.reason for m in corpus.missing if "once" in m.reason] == ["listed more than once: the first row counts"]


@pytest.mark.parametrize("line", ["one,two,three", "id,soon,label,test", "id,3,label,validation", "name.mp4,label"])
def test_a_bad_row_is_named(root, line):
    with (root / "vggsound.csv").open("a") as f:
        f.write(line + "\n")
    with pytest.raises(InputError, match=r"vggsound.csv, line 9: expected id, start"):
        vggsound.read(root)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no vggsound.csv in"):
        vggsound.read(tmp_path)
    with pytest.raises(InputError, match="unknown split 'validation'"):
        vggsound.read(tmp_path, "validation")
    (tmp_path / "vggsound.csv").touch()
    with pytest.raises(InputError, match="no such folder"):
        vggsound.read(tmp_path / "x", csv=tmp_path / "vggsound.csv")


def test_selection_depends_on_ids_and_seed_alone(root):
    corpus = vggsound.read(root, None)
    chosen = vggsound.select(corpus, 3, seed=5)
    expected = sorted(corpus.ids, key=lambda i: hashlib.sha256(f"5:{i}".encode()).hexdigest())[:3]
    assert chosen.ids == expected
    assert chosen.digest() == hashlib.sha256("\n".join(expected).encode()).hexdigest()
    corpus.samples.reverse()
    assert vggsound.select(corpus, 3, seed=5).ids == expected
    assert vggsound.select(corpus, 3, seed=6).ids != expected
    assert vggsound.select(corpus, 1024).ids == vggsound.select(corpus, 6).ids


def test_a_missing_clip_changes_the_selection_by_itself_only(root):
    whole = vggsound.read(root, None)
    before = vggsound.select(whole, 3)
    (root / before.samples[1].video.removeprefix(f"{root}/")).unlink()
    after = vggsound.select(vggsound.read(root, None), 3)
    assert set(before.ids) - set(after.ids) == {before.ids[1]}
    assert before.ids[1] in [m.id for m in after.missing]


def test_captions_beside_the_clips(root, tmp_path):
    lines = [
        {"id": "---1_cCGK4M_000001", "caption": "a drum"},
        {"id": "plain_id-00.mp4", "captions": ["a dog", " ", "it barks"]},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    config = CorpusConfig("vggsound", root, "test", captions=tmp_path / "c.jsonl")
    with collected() as notes:
        by_id = {s.id: s.text for s in read_corpus(config).samples}
    assert by_id["---1_cCGK4M_000001"] == ("a drum",)
    assert by_id["plain_id-00_000020"] == ("a dog", "it barks")
    assert by_id["sound_only__000030"] == ()  # no label stands in for a caption unasked
    assert [str(n) for n in notes] == [f"captions: {tmp_path}/c.jsonl has captions of 2 of the 5 samples of vggsound test"]
    labels = {s.id: s.text for s in read_corpus(replace(config, captions="labels")).samples}
    assert labels["sound_only__000030"] == ("A video of rain.",)
    assert all(labels.values())
    (tmp_path / "c.csv").write_text('id,caption\nx,"one, two"\nx,three\n')
    assert captions.read(tmp_path / "c.csv") == {"x": ("one, two", "three")}


def test_captions_go_to_ids_with_and_without_a_suffix(tmp_path):
    """A benchmark's list may name its clips with their suffix; captions written for them are found all the same."""
    for name in ("video1.mp4", "video2.mp4"):
        (tmp_path / name).write_bytes(b"a clip")
    annotated = [{"video_id": "video1.mp4", "desc": "old"}, {"video_id": "video2", "desc": "old"}]
    (tmp_path / "a.json").write_text(json.dumps(annotated))
    rows = [{"id": "video1.mp4", "caption": "new"}, {"id": "video2.mp4", "caption": "newer"}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = CorpusConfig("msrvtt", tmp_path, annotations=tmp_path / "a.json", captions=tmp_path / "c.jsonl")
    assert [s.text for s in read_corpus(config).samples] == [("new",), ("newer",)]


def test_captions_of_ids_that_differ_in_the_suffix_alone_stay_apart(tmp_path):
    for name in ("a.mp4", "a.avi"):
        (tmp_path / name).write_bytes(b"a clip")
    (tmp_path / "m.csv").write_text("id,video\na.mp4,a.mp4\na.avi,a.avi\n")
    (tmp_path / "c.csv").write_text("id,caption\na.mp4,one\na.avi,two\n")
    config = CorpusConfig("manifest", manifest=tmp_path / "m.csv", captions=tmp_path / "c.csv")
    assert {s.id: s.text for s in read_corpus(config).samples} == {"a.mp4": ("one",), "a.avi": ("two",)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.jsonl", '{"id": "a"}', "line 1: expected an id and a caption"),
        ("c.jsonl", '{"id": "a", "caption": 3}', "expected a string or a list of strings, got 3"),
        ("c.jsonl", "{", "line 1: not JSON"),
        ("c.jsonl", "[]", "expected one JSON object a line"),
        ("c.csv", "id,caption\na,b,c", "line 2: it has more or fewer columns"),
    ],
)
def test_bad_captions_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        captions.read(tmp_path / name)


def test_a_manifest_of_any_columns(tmp_path):
    for name in ("a.wav", "v.mp4", "d.bin"):
        (tmp_path / name).touch()
    rows = [
        {"id": "one", "text": ["a", "b"], "audio": "a.wav", "label": "x"},
        {"id": "two", "video": str(tmp_path / "v.mp4"), "depth": "d.bin"},
        {"id": "three", "text": "c", "image": "gone.png"},
        {"id": "four"},
        {"id": "five", "video": "gone.mp4"},
        {"text": "only words"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = manifest_corpus.read(tmp_path / "m.jsonl")
    one, two, three, five = corpus.samples
    assert (one.text, one.audio, one.video, one.label) == (("a", "b"), str(tmp_path / "a.wav"), None, "x")
    assert (two.video, two.audio) == (str(tmp_path / "v.mp4"), str(tmp_path / "v.mp4"))
    assert two.file("depth") == str(tmp_path / "d.bin")
    assert (five.id, five.text) == ("6", ("only words",))
    assert (three.text, three.image) == (("c",), None)
    assert three.absent == {"image": f"no such file: {tmp_path / 'gone.png'}"}
    assert [m.id for m in corpus.missing] == ["four", "five"]
    (tmp_path / "m.csv").write_text("id,text,video,audio\none,hello,v.mp4,\n")
    (sample,) = manifest_corpus.read(tmp_path / "m.csv").samples
    assert (sample.text, sample.audio) == (("hello",), None)


def test_columns_of_no_use_and_labels_that_are_no_text_are_said(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "m.csv").write_text("text,image,split,caption\nrain,a.png,train,wet\nsun,b.png,test,dry\n")
    with collected() as notes:
        corpus = manifest_corpus.read(tmp_path / "m.csv")
    assert [s.text for s in corpus.samples] == [("rain",), ("sun",)]
    used = "is used for nothing, since it names no file that is there (no such file:"
    assert [n.text for n in notes] == [
        f"{tmp_path}/m.csv: column {column} {used} {tmp_path}/{value}); columns other than id, text, label hold files"
        for column, value in (("caption", "wet"), ("split", "train"))
    ]
    for label, wrong in ((3, None), ("a|b", None), (["a", "b"], r'\["a", "b"\]'), (True, "true"), (0.5, "0.5")):
        (tmp_path / "m.jsonl").write_text(json.dumps({"text": "rain", "label": label}) + "\n")
        if wrong is None:
            assert manifest_corpus.read(tmp_path / "m.jsonl").samples[0].label == str(label)
            continue
        with pytest.raises(InputError, match=f"line 1: a label is a string, several are joined by [|], got {wrong}"):
            manifest_corpus.read(tmp_path / "m.jsonl")


def test_the_first_editions_kind_table_is_a_manifest(tmp_path):
    with pytest.warns(FutureWarning, match="corpus kind table is now called manifest"):
        assert CorpusConfig("table", manifest=tmp_path / "m.csv") == CorpusConfig("manifest", manifest=tmp_path / "m.csv")


def test_captions_of_other_samples_are_an_error(root, tmp_path):
    (tmp_path / "c.csv").write_text("id,caption\nsomeone_else,a cat\n")
    with pytest.raises(InputError, match=r"captions of none of the 5 samples of vggsound test: its first id is 'someone_else'"):
        read_corpus(CorpusConfig("vggsound", root, "test", captions=tmp_path / "c.csv"))
    (tmp_path / "m.csv").write_text("id,text\na,hello\n")
    with pytest.raises(InputError, match="labels: m has no labels"):
        read_corpus(CorpusConfig("manifest", manifest=tmp_path / "m.csv", captions="labels"))


def test_the_rest_is_all_but_the_chosen(root):
    chosen = read_corpus(CorpusConfig("vggsound", root, "test", select=2, seed=3))
    rest = read_corpus(CorpusConfig("vggsound", root, "rest", held_out=2, seed=3))
    assert len(rest.samples) == 4
    assert set(rest.ids) == set(vggsound.read(root, None).ids) - set(chosen.ids)
    assert "training000_000012" in rest.ids


def test_two_samples_of_one_id_are_refused(tmp_path):
    (tmp_path / "m.csv").write_text("id,text\na,x\na,y\n")
    with pytest.raises(InputError, match="line 3: id 'a' is that of line 2 too"):
        manifest_corpus.read(tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["msrvtt", "didemo", "activitynet"])
def test_retrieval_annotations(tmp_path, name):
    rows = [
        {"video_id": "video7020", "desc": ["one", "two"], "subtitle": "words"},
        {"video_id": "12@N00_3.mov", "desc": "three"},
        {"video_id": "video7020", "desc": "more"},
        {"video_id": "gone", "desc": "four"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    write_video(tmp_path / "video7020.mp4", 0.5)
    write_video(tmp_path / "12@N00_3.mp4", 0.5, sound=False)
    corpus = retrieval.read(name, tmp_path / "a.json", tmp_path)
    assert [(s.id, s.text) for s in corpus.samples] == [("video7020", ("one", "two", "more")), ("12@N00_3.mov", ("three",))]
    assert [m.id for m in corpus.missing] == ["gone"]
    heard = retrieval.with_sound(corpus)
    assert heard.ids == ["video7020"]
    assert ("12@N00_3.mov", "has no sound") in [(m.id, m.reason) for m in heard.missing]


def test_audiocaps_has_several_captions_a_clip(tmp_path):
    (tmp_path / "test.csv").write_text(
        "audiocap_id,youtube_id,start_time,caption\n"
        '11,-abc,30,"Rain, falling"\n12,-abc,30,Thunder\n13,def,0,Wind\n14,ghi,5,Birds\n'
    )
    for name in ("-abc_30000_40000.wav", "13.flac"):
        (tmp_path / name).touch()
    corpus = retrieval.read("audiocaps", tmp_path / "test.csv", tmp_path)
    assert [(s.id, s.text) for s in corpus.samples] == [
        ("-abc_000030", ("Rain, falling", "Thunder")),
        ("def_000000", ("Wind",)),
    ]
    assert [m.id for m in corpus.missing] == ["ghi_000005"]


def test_clotho_and_vatex_as_published(tmp_path):
    captions = ",".join(f"caption_{i}" for i in range(1, 6))
    (tmp_path / "clotho.csv").write_text(f'file_name,{captions}\n"Rain, far.wav",a,b,c,d,e\n')
    (tmp_path / "Rain, far.wav").touch()
    corpus = retrieval.read("clotho", tmp_path / "clotho.csv", tmp_path)
    assert [(s.id, s.text) for s in corpus.samples] == [("Rain, far.wav", ("a", "b", "c", "d", "e"))]
    rows = [
        {"videoID": "-a_b_000030_000040", "enCap": ["one", "two"], "chCap": ["\u4e00"]},
        {"videoID": "def_000000_000010", "enCap": ["three"], "chCap": []},
        {"videoID": "ghi_000002_000012", "enCap": ["four"], "chCap": []},
    ]
    (tmp_path / "vatex.json").write_text(json.dumps(rows))
    for name in ("-a_b_000030_000040.mp4", "def_0_10.mp4"):
        (tmp_path / name).touch()
    corpus = retrieval.read("vatex", tmp_path / "vatex.json", tmp_path)
    assert [s.text for s in corpus.samples] == [("one", "two"), ("three",)]
    assert [m.id for m in corpus.missing] == ["ghi_000002_000012"]
    (tmp_path / "bad.csv").write_text("file_name,caption\na.wav,b\n")
    with pytest.raises(InputError, match="line 2: expected file_name and caption_1"):
        retrieval.read("clotho", tmp_path / "bad.csv", tmp_path)
    (tmp_path / "bad.json").write_text('[{"videoID": "a"}]')
    with pytest.raises(InputError, match="row 1: expected videoID and enCap"):
        retrieval.read("vatex", tmp_path / "bad.json", tmp_path)


FIVE = ",".join(f"caption_{i}" for i in range(1, 6))
PUBLISHED = {  # corpus -> its file of captions, and what its two clips are called on the disk
    "clotho": ("a.csv", f"file_name,{FIVE}\none.wav,rain,drops,water,wet,storm\ntwo.wav,dog,bark,puppy,growl,yap\n", "one two"),
    "audiocaps": ("a.csv", "audiocap_id,youtube_id,start_time,caption\n1,abc,30,rain\n2,def,0,dog\n", "abc_000030 def_000000"),
    "vatex": (
        "a.json",
        '[{"videoID": "abc_000030_000040", "enCap": ["rain", "drops"]}, {"videoID": "def_000000_000010", "enCap": ["dog"]}]',
        "abc_000030_000040 def_000000_000010",
    ),
    "msrvtt": (
        "a.json",
        '[{"video_id": "video1", "desc": ["rain"]}, {"video_id": "video2", "desc": ["dog"]}]',
        "video1 video2",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_from_the_published_file_to_the_table(name, tmp_path):
    file, text, clips = PUBLISHED[name]
    (tmp_path / file).write_text(text)
    kind = "video" if name in retrieval.KEYS else "audio"
    for i, clip in enumerate(clips.split()):
        if kind == "video":
            write_video(tmp_path / f"{clip}.mp4", 0.5)
        else:
            write_wav(tmp_path / f"{clip}.wav", tone(1.0, 16000, 300.0 * (i + 1)), 16000)
    (tmp_path / "extract.yaml").write_text(
        f"corpus: {{kind: {name}, root: {tmp_path}, annotations: {tmp_path / file}}}\n"
        f"encoders: {{text: starter, {kind}: starter}}\nout: {tmp_path / 'cache'}\n"
    )
    for command in (
        ["extract", tmp_path / "extract.yaml"],
        ["eval", "retrieval", "--features", tmp_path / "cache", "--out", tmp_path / "r"],
    ):
        done = CliRunner().invoke(app, [str(part) for part in command])
        assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "r" / "result.json").read_text())["about"]
    assert (about["dataset"], about["clips"], about["modalities"]) == (name, 2, ["text", kind])
    assert about["captions"]["all"]["captions"] == {"clotho": 10, "vatex": 3}.get(name, 2)


def test_bad_annotations_are_named(tmp_path):
    (tmp_path / "a.json").write_text('[{"video_id": "a", "desc": "b"}, {"video_id": "c"}]')
    with pytest.raises(InputError, match="row 2: expected video_id and desc"):
        retrieval.read("msrvtt", tmp_path / "a.json", tmp_path)
    with pytest.raises(InputError, match="unknown retrieval corpus 'msvd'"):
        retrieval.read("msvd", tmp_path / "a.json", tmp_path)
    (tmp_path / "a.csv").write_text("audiocap_id,youtube_id,start_time,caption\n1,x,soon,y\n")
    with pytest.raises(InputError, match="line 2: expected audiocap_id"):
        retrieval.read("audiocaps", tmp_path / "a.csv", tmp_path)


def test_lists_that_are_not_in_utf_8_are_one_line(tmp_path):
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).write_bytes("id,text\n1,caf\u00e9\n".encode("latin-1"))
        with pytest.raises(InputError, match="is not in UTF-8"):
            list(captions.rows(tmp_path / name))
    (tmp_path / "vggsound.csv").write_bytes('abc,30,"caf\u00e9",test\n'.encode("latin-1"))
    with pytest.raises(InputError, match="is not in UTF-8"):
        list(vggsound.rows(tmp_path / "vggsound.csv"))
