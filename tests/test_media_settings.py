"""Text inside pictures: what is written returns, also after other programs had the file."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from unialign_gen.errors import InputError
from unialign_gen.media.settings import KEYWORD, MOST_BYTES, read_settings, save_picture
from unialign_gen.notes import collected

FILES = Path(__file__).parent / "media"
PICTURE = Image.new("RGB", (16, 16), "red")
TEXTS = {"plain": '{"a": 1}', "other letters": '{"a": "café 猫 🐱"}', "long": '{"a": "' + "é" * 20000 + '"}'}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG"])
@pytest.mark.parametrize("name", TEXTS)
def test_what_is_written_returns(tmp_path, suffix, name):
    path = tmp_path / f"a{suffix}"
    save_picture(PICTURE, path, TEXTS[name])
    assert read_settings(path) == TEXTS[name]
    assert read_settings(path.read_bytes()) == TEXTS[name]
    with Image.open(path) as picture:
        assert picture.getpixel((8, 8))[0] > 245


def test_the_largest_that_is_written_is_read(tmp_path):
    text = '{"a": "' + "x" * (MOST_BYTES - 10) + '"}'
    for suffix in (".png", ".webp"):
        save_picture(PICTURE, tmp_path / f"a{suffix}", text[:1_500_000])
        assert read_settings(tmp_path / f"a{suffix}") == text[:1_500_000]
    save_picture(PICTURE, tmp_path / "a.png", text)
    assert read_settings(tmp_path / "a.png") == text
    with collected() as notes:
        save_picture(PICTURE, tmp_path / "a.png", text + "xxx")
    assert [n.kind for n in notes] == ["settings not kept"]
    assert read_settings(tmp_path / "a.png") is None


def test_what_jpeg_has_no_room_for_is_noted(tmp_path):
    with collected() as notes:
        save_picture(PICTURE, tmp_path / "a.jpg", "x" * 70_000)
    assert [n.kind for n in notes] == ["settings not kept"]
    assert read_settings(tmp_path / "a.jpg") is None
    with collected() as notes:
        save_picture(PICTURE, tmp_path / "a.jpg", "x" * 60_000)
    assert notes == []
    assert read_settings(tmp_path / "a.jpg") == "x" * 60_000


@pytest.mark.parametrize("name", ["re_zitxt.png", "after.png"])
def test_files_of_optimisers(name):
    assert '"seed"' in (read_settings(FILES / name) or "")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


TEXT = '{"a": 1}'
CHUNKS = {
    "iTXt": (b"iTXt", KEYWORD.encode() + b"\0\0\0\0\0" + TEXT.encode()),
    "iTXt, compressed": (b"iTXt", KEYWORD.encode() + b"\0\1\0\0\0" + zlib.compress(TEXT.encode())),
    "iTXt with a language": (b"iTXt", KEYWORD.encode() + b"\0\0\0en\0words\0" + TEXT.encode()),
    "zTXt": (b"zTXt", KEYWORD.encode() + b"\0\0" + zlib.compress(TEXT.encode())),
    "tEXt": (b"tEXt", KEYWORD.encode() + b"\0" + TEXT.encode()),
}


def with_chunk(kind: bytes, data: bytes, behind: bool) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    raw = buffer.getvalue()
    at = raw.index(b"IEND" if behind else b"IDAT") - 4
    return raw[:at] + chunk(kind, data) + raw[at:]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_every_kind_of_chunk_before_and_behind_the_pixels(name, behind):
    assert read_settings(with_chunk(*CHUNKS[name], behind)) == TEXT


def test_settings_survive_programs_that_copy_exif(tmp_path):
    for suffix, form in ((".jpg", "WEBP"), (".webp", "JPEG"), (".jpg", "PNG"), (".webp", "PNG")):
        save_picture(PICTURE, tmp_path / f"a{suffix}", TEXT)
        with Image.open(tmp_path / f"a{suffix}") as picture:
            buffer = io.BytesIO()
            picture.save(buffer, form, exif=picture.getexif())
        assert read_settings(buffer.getvalue()) == TEXT


def test_texts_of_others_are_not_ours(tmp_path):
    info = PngInfo()
    info.add_text("parameters", TEXT)
    PICTURE.save(tmp_path / "a.png", pnginfo=info)
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + TEXT.encode()
    PICTURE.save(tmp_path / "a.jpg", exif=exif)
    PICTURE.save(tmp_path / "a.webp")
    for suffix in (".png", ".jpg", ".webp"):
        assert read_settings(tmp_path / f"a{suffix}") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF....WAVE",
        b"\x89PNG\r\n\x1a\n",
        with_chunk(b"iTXt", KEYWORD.encode() + b"\0\1\0\0\0" + zlib.compress(b" " * 10**8), False),
        with_chunk(b"zTXt", KEYWORD.encode() + b"\0\0" + zlib.compress(b" " * 10**8), False),
        with_chunk(*CHUNKS["iTXt"], False).replace(TEXT.encode(), TEXT.encode()[:-1] + b"]"),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**31 - 1, b"iTXt") + KEYWORD.encode(),
    ],
)
def test_hostile_files_are_one_line_or_none(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    found: str | None = None
    with contextlib.suppress(InputError):
        found = read_settings(tmp_path / "a.png")
    assert found is None
