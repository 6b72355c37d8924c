"""Settings in a PNG file: what Pillow reads back, what returns, and that nothing else is accepted."""

import contextlib
import json
import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.settings_png import Prompt, Settings, pack, parse, read_png, save_png

FULL = Settings(
    (Prompt("text", "a café, <b> \u4e2d", 0.7), Prompt("audio", "rain.wav", -0.3, pack(torch.arange(4.0)))),
    "lerp", 2**60, 12, 2.5, 4, 3, "starter", "stable-unclip", "0.1.0", 0.4,
)  # fmt: skip


def write(path, what=FULL):
    save_png(Image.new("RGB", (4, 4), "red"), path, what)
    return path


def with_chunk(body: bytes, kind: bytes = b"iTXt", check: int | None = None) -> bytes:
    """A small PNG file with one more chunk after its header."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (kind, body), (b"IDAT", zlib.compress(b"\0\0\0\0")), (b"IEND", b"")):
        crc = zlib.crc32(name + data) if check is None or name != kind else check
        out += struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)
    return out


def test_settings_return(tmp_path):
    path = write(tmp_path / "a.png")
    assert read_png(path) == FULL
    torch.testing.assert_close(read_png(path).prompts[1].vector(), torch.arange(4.0))


def test_another_reader_finds_the_same_text_and_the_same_picture(tmp_path):
    with Image.open(write(tmp_path / "a.png")) as picture:
        assert json.loads(picture.text["unialign_gen"])["seed"] == 2**60
        assert picture.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"extra": 1}, {"prompts": []}, {"prompts": "text"}, {"prompts": [FULL.to_json()]},
        {"prompts": [{"kind": "text", "value": ""}]}, {"prompts": [{"kind": "embeds", "value": "x"}]},
        {"prompts": [{"kind": "audio", "value": "x", "embedding": "%%%"}]}, {"prompts": [{"kind": "audio", "value": "x"}]},
        {"prompts": [{"kind": "audio", "value": "x", "embedding": "AAAA"}]},
        {"prompts": [{"kind": "audio", "value": "x", "embedding": pack(torch.tensor([float("nan")]))}]},
        {"prompts": [{"kind": "text", "value": "x", "path": "/etc/passwd"}]},
        {"prompts": [{"kind": "text", "value": "x" * 2001}]}, {"prompts": [{"kind": "text", "value": "x", "weight": True}]},
        {"prompts": [{"kind": "text", "value": ["x"]}]}, {"prompts": [{"kind": ["text"], "value": "x"}]},
        {"mix": "add"}, {"mix": ["lerp"]}, {"seed": -1}, {"seed": 2**63}, {"seed": 1.0}, {"seed": True}, {"steps": 0},
        {"steps": 10**6}, {"guidance": "3"}, {"guidance": 1e9}, {"pictures": 0}, {"pictures": "2"}, {"index": 4},
        {"checkpoint": None}, {"checkpoint": "x" * 101}, {"decoder": {}}, {"version": 1},
        {"prior_strength": -0.1}, {"prior_strength": 1.5}, {"prior_strength": True}, {"prior_strength": None},
    ],
)  # fmt: skip
def test_anything_else_is_refused(change):
    with pytest.raises(InputError) as caught:
        parse(json.dumps({**json.loads(FULL.to_json()), **change}))
    assert len(str(caught.value).splitlines()) == 1


def test_files_from_before_there_was_a_prior_are_drawn_without():
    older = json.loads(FULL.to_json())
    del older["prior_strength"]
    assert parse(json.dumps(older)).prior_strength == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "[" * 100_000, '{"format": 1}', '{"format": NaN}'])
def test_texts_that_are_no_settings(text):
    with pytest.raises(InputError):
        parse(text)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x89PNG\r\n\x1a\n", b"RIFF....WAVE", with_chunk(b"other\0\0\0\0\0{}"),
        with_chunk(b"unialign_gen\0"), with_chunk(b"unialign_gen\0\0\0\0\0\xff\xfe"),
        with_chunk(b"unialign_gen\0\1\0\0\0" + zlib.compress(b" " * 10**7)),
        with_chunk(b"unialign_gen\0\0\0\0\0" + FULL.to_json().encode(), check=1),
        with_chunk(b"unialign_gen\0\0\0\0\0" + b" " * 300_000),
        with_chunk(b"unialign_gen\0" + FULL.to_json().encode(), b"tEXt"),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**31 - 1, b"iTXt") + b"unialign_gen",
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 10, b"iTXt") + b"unialign",
    ],
)  # fmt: skip
def test_files_that_hold_no_settings(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_png(tmp_path / "a.png")
    assert str(tmp_path) not in str(caught.value)


def test_settings_by_hand(tmp_path):
    (tmp_path / "a.png").write_bytes(with_chunk(b"unialign_gen\0\0\0en\0\0" + FULL.to_json().encode()))
    assert read_png(tmp_path / "a.png") == FULL


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_never_does_more_than_complain(tmp_path_factory, changes):
    path = write(tmp_path_factory.mktemp("png") / "a.png")
    raw = bytearray(path.read_bytes())
    for at, value in changes:
        raw[at % len(raw)] = value
    path.write_bytes(raw)
    with contextlib.suppress(InputError):
        assert read_png(path) == FULL  # the change was elsewhere: the checksum covers the settings
