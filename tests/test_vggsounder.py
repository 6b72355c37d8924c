"""VGGSound's clips whose label annotators heard and saw, chosen by hash, and what counts as right for each."""

from types import SimpleNamespace

import pytest
from conftest import tone, write_wav

from unialign_gen.cli.evaluate_corpora import choose
from unialign_gen.data import vggsounder
from unialign_gen.data.sources import read_corpus
from unialign_gen.errors import InputError
from unialign_gen.eval.study import Study

LISTED = """video_id,label,modality,background_music,static_image,voice_over
aaaaaaaaaaa_000001,"dog barking, loud",AV,False,False,False
aaaaaaaaaaa_000001,cat meowing,AV,False,False,False
aaaaaaaaaaa_000001,wind,A,False,False,False
bbbbbbbbbbb_000002,rain,A,False,False,False
ccccccccccc_000003,rain,AV,False,False,False
-dddddddddd_000004,rain,AV,False,True,False
-dddddddddd_000004,sea,V,False,True,False
"""
PUBLISHED = """aaaaaaaaaaa,1,"dog barking, loud",test
bbbbbbbbbbb,2,rain,test
ccccccccccc,3,wind,test
-dddddddddd,4,rain,test
eeeeeeeeeee,5,rain,test
fffffffffff,6,rain,train
"""


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "vggsound"
    folder.mkdir()
    (folder / "vggsound.csv").write_text(PUBLISHED)
    (folder / "vggsounder.csv").write_text(LISTED)
    for line in PUBLISHED.splitlines():
        name, start = line.split(",")[:2]
        write_wav(folder / f"{name}_{int(start):06d}.wav", tone(0.1, 8000), 8000)
    return folder


def test_classes_are_those_that_were_heard_and_seen(root):
    found = vggsounder.heard_and_seen(root / "vggsounder.csv")
    assert found == {
        "aaaaaaaaaaa_000001": {"dog barking, loud", "cat meowing"},
        "ccccccccccc_000003": {"rain"},
        "-dddddddddd_000004": {"rain"},
    }


def test_the_set_has_the_clips_whose_own_label_was_heard_and_seen(root, tmp_path):
    config = choose("vggsound-av", root, None, 1024, 0, tmp_path / "out")
    corpus = read_corpus(config)
    assert {s.id: s.label for s in corpus.samples} == {"aaaaaaaaaaa_000001": "dog barking, loud", "-dddddddddd_000004": "rain"}
    assert corpus.digest() == read_corpus(choose("vggsound-av", root, "test", 1024, 0, tmp_path / "again")).digest()
    one = {read_corpus(choose("vggsound-av", root, None, 1, seed, tmp_path / "out")).ids[0] for seed in range(8)}
    assert one == set(corpus.ids)  # another seed, another choice
    plain = read_corpus(choose("vggsound", root, None, 1024, 0, tmp_path / "out"))
    assert len(plain.samples) == 5
    elsewhere = tmp_path / "list.csv"
    (root / "vggsounder.csv").rename(elsewhere)
    assert read_corpus(choose("vggsound-av", root, None, 9, 0, tmp_path, None, None, elsewhere)).digest() == corpus.digest()


def test_a_picture_may_show_any_of_a_clips_classes(root):
    ids = ["aaaaaaaaaaa_000001", "zzzzzzzzzzz_000009"]
    corpus = SimpleNamespace(name="vggsound test")

    def study(annotations):
        plan = SimpleNamespace(annotations=annotations)
        return Study(plan, None, ids, ["dog barking, loud", None], ["", ""], None, {}, [], corpus)

    both = study(root / "vggsounder.csv")
    assert both.classes == [{"dog barking, loud", "cat meowing"}, frozenset()]
    assert both.name == "vggsound test, heard and seen"
    assert study(None).classes == [{"dog barking, loud"}, frozenset()]


def test_what_is_wrong_with_a_list_is_one_line(root, tmp_path, monkeypatch):
    other = tmp_path / "other.csv"
    other.write_text("id,name\n1,2\n")
    none = tmp_path / "none.csv"
    none.write_text(LISTED.replace(",AV,", ",V,"))
    for path, words in ((other, "its columns are"), (tmp_path / "gone.csv", "no .*gone.csv"), (none, "no clip's label")):
        with pytest.raises(InputError, match=words):
            choose("vggsound-av", root, None, 9, 0, tmp_path / "out", None, None, path)
    with pytest.raises(InputError, match="has no split"):
        choose("vggsound-av", root, "train", 9, 0, tmp_path / "out")
    monkeypatch.setattr(vggsounder, "find_spec", lambda _: None)
    (root / "vggsounder.csv").unlink()
    with pytest.raises(InputError, match="pip install vggsounder"):
        choose("vggsound-av", root, None, 9, 0, tmp_path / "out")


def test_the_installed_package_has_the_published_list(tmp_path):
    pytest.importorskip("vggsounder", reason="vggsounder is not installed: pip install 'unialign_gen[eval]'")
    found = vggsounder.heard_and_seen(vggsounder.find_list(None, tmp_path))
    assert len(found) == 9889  # of 12,014 clips of version 1.0
    assert sum(map(len, found.values())) > 15_000
