import fcntl
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from unialign_gen.data.cache import (
    FeatureCache,
    Ragged,
    Shard,
    counted,
    create,
    first_difference,
    shard_path,
    write_descriptions,
    write_shard,
)
from unialign_gen.errors import InputError

INDEX = {"format": 1, "shards": 2, "encoders": {"text": {"dim": 3}, "video": {"dim": 2}}, "media": {"frames": 8}}


def shard(ids: list[str], captions: list[int], frames: list[int]) -> Shard:
    text = Ragged(torch.randn(sum(captions), 3), counted(torch.tensor(captions)))
    video = Ragged(torch.randn(sum(frames), 2).half(), counted(torch.tensor(frames)))
    problems = [{"id": i, "reason": "broken"} for i, n in zip(ids, frames, strict=True) if n == 0]
    return Shard(ids, [None if i == "c" else i.upper() for i in ids], {"text": text, "video": video}, problems)


@pytest.fixture
def cache(tmp_path):
    create(tmp_path, INDEX)
    shards = [shard(["a", "b"], [1, 3], [8, 0]), shard(["c"], [0], [8])]
    for number, part in enumerate(shards):
        write_shard(tmp_path, number, part)
    return tmp_path, shards


def test_what_is_written_is_read(cache):
    folder, shards = cache
    found = FeatureCache.open(folder)
    assert found.ids == ["a", "b", "c"]
    assert found.labels == ["A", "B", None]
    assert found.modalities == {"text": 3, "video": 2}
    assert found.problems() == [{"id": "b", "reason": "broken"}]
    text, video = found.features("text"), found.features("video")
    assert text.offsets.tolist() == [0, 1, 4, 4]
    assert video.offsets.tolist() == [0, 8, 8, 16]
    assert video.values.dtype == torch.float16
    assert torch.equal(text[1], shards[0].features["text"].values[1:])
    assert torch.equal(video[2], shards[1].features["video"].values)
    assert len(video[1]) == 0
    assert video.counts.tolist() == [8, 0, 8]


def test_equal_content_is_equal_bytes(cache):
    folder, shards = cache
    before = shard_path(folder, 0).read_bytes()
    for _ in range(5):
        write_shard(folder, 0, shards[0])
        assert shard_path(folder, 0).read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["index.json", "shard-00000.safetensors", "shard-00001.safetensors"]


def test_other_settings_are_refused_by_their_name(cache):
    folder, _ = cache
    create(folder, INDEX)
    with pytest.raises(InputError, match=r"was made with media.frames = 8, this run has 4"):
        create(folder, {**INDEX, "media": {"frames": 4}})
    with pytest.raises(InputError, match=r"encoders.audio = null, this run has"):
        create(folder, {**INDEX, "encoders": {**INDEX["encoders"], "audio": {"dim": 1}}})
    assert first_difference({"a": 1}, {"a": True}) == ("a", 1, True)


def test_of_writers_that_start_together_one_makes_the_cache(tmp_path):
    def make(number: int) -> bool:
        try:
            create(tmp_path, {**INDEX, "seed": number})
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert made.count(True) == 1
    assert json.loads((tmp_path / "index.json").read_text())["seed"] == made.index(True)
    assert [p.name for p in tmp_path.iterdir()] == ["index.json"]


def test_bad_caches_are_one_clear_line(cache, tmp_path):
    folder, _ = cache
    with pytest.raises(InputError, match="no feature cache in"):
        FeatureCache.open(tmp_path / "x")
    with pytest.raises(InputError, match="has no vidoe: it has text, video, did you mean video"):
        FeatureCache.open(folder).features("vidoe")
    path = shard_path(folder, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        FeatureCache.open(folder)
    path.unlink()
    with pytest.raises(InputError, match="1 of 2 shards are to be done"):
        FeatureCache.open(folder)
    (folder / "index.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        FeatureCache.open(folder)


def test_a_disk_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    create(tmp_path / "cache", INDEX)
    create(tmp_path / "cache", INDEX)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["index.json"]
    with pytest.raises(InputError, match=r"was made with media.frames = 8, this run has 4"):
        create(tmp_path / "cache", {**INDEX, "media": {"frames": 4}})


def test_a_description_that_says_the_same_is_not_written_again(tmp_path):
    """A process that finds the cache complete sweeps up what killed ones left; one that starts late must not write then."""
    write_descriptions(tmp_path, {"audio": {"encoder": "yamnet"}})
    before = (tmp_path / "encoders.json").stat().st_ino
    write_descriptions(tmp_path, {"audio": {"encoder": "yamnet"}})
    assert (tmp_path / "encoders.json").stat().st_ino == before
    write_descriptions(tmp_path, {"audio": {"encoder": "beats"}})
    assert json.loads((tmp_path / "encoders.json").read_text()) == {"audio": {"encoder": "beats"}}
