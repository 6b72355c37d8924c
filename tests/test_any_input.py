"""What datasets, transformers, gradio and torchcodec hand over, each against the file itself."""

import io

import numpy as np
import pytest
import torch
from conftest import tone, write_video, write_wav
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.media import Excerpt, Frames, Sound, is_one, load_image, load_sound, load_video, sound_blocks
from unialign_gen.notes import collected

RATE = 16000
WAVE = (np.round(tone(1, 44100)[:, 0] * 32767) / 32768).astype(np.float32)


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("sound") / "a.wav", tone(1, 44100), 44100)


SOUNDS = {
    "text path": lambda p: str(p),
    "bytes": lambda p: p.read_bytes(),
    "bytearray": lambda p: bytearray(p.read_bytes()),
    "file object": lambda p: p.open("rb"),
    "BytesIO": lambda p: io.BytesIO(p.read_bytes()),
    "gradio, int16": lambda p: (44100, (WAVE * 32768).astype(np.int16)),
    "gradio, stereo": lambda p: (44100, np.stack([(WAVE * 32768).astype(np.int16)] * 2, 1)),
    "(rate, list)": lambda p: (44100.0, WAVE.tolist()),
    "datasets, decoded": lambda p: {"array": WAVE, "sampling_rate": 44100, "path": "a.wav"},
    "datasets, bytes": lambda p: {"bytes": p.read_bytes(), "path": None},
    "datasets, path": lambda p: {"bytes": None, "path": str(p)},
    "transformers": lambda p: {"raw": WAVE.astype(np.float64), "sampling_rate": 44100},
    "torch, channels first": lambda p: (44100, torch.from_numpy(WAVE).expand(2, -1)),
    "bfloat16 has 8 bits": lambda p: (44100, torch.from_numpy(WAVE).to(torch.bfloat16)),
    "int32": lambda p: (44100, (WAVE.astype(np.float64) * 2**31).astype(np.int32)),
    "Sound": lambda p: Sound(torch.from_numpy(WAVE), 44100),
    "excerpt of all": lambda p: Excerpt(p),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(wav, name):
    expected = load_sound(wav, RATE)
    tolerance = 5e-3 if "bfloat16" in name else 1e-5
    torch.testing.assert_close(load_sound(SOUNDS[name](wav), RATE), expected, atol=tolerance, rtol=0)
    blocks = torch.cat(list(sound_blocks(SOUNDS[name](wav), RATE)), 1)[0]
    torch.testing.assert_close(blocks[: len(expected)], expected[: len(blocks)], atol=tolerance, rtol=0)


def test_torchcodec_sounds(wav):
    decoders = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError))
    decoder = decoders.AudioDecoder(str(wav))
    for source in (decoder, decoder.get_all_samples()):
        torch.testing.assert_close(load_sound(source, RATE), load_sound(wav, RATE), atol=1e-5, rtol=0)


def test_bytes_of_unsigned_samples():
    found = load_sound((RATE, np.full(RATE, 128, np.uint8)), RATE)
    assert float(found.abs().max()) == 0


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_whole_numbers_as_a_list_has_them_are_samples_of_16_bits(kind):
    small = (WAVE * 32000).astype(kind)
    with collected() as notes:
        found = load_sound((RATE, small), RATE)
    assert torch.equal(found, load_sound((RATE, small.astype(np.int16)), RATE))
    assert [note.kind for note in notes] == ["whole numbers"]
    with collected() as notes:
        load_sound((RATE, (WAVE * 2.0**30).astype(np.int32)), RATE)
        load_sound((RATE, np.zeros(RATE, kind)), RATE)
    assert [note.kind for note in notes] == ["silent"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (WAVE, r"\(rate, array\)"),
        (7, "a sound must be"),
        (None, "a sound must be"),
        ({"array": WAVE}, "sampling_rate"),
        ({"a": 1}, "path or bytes"),
        ((0, WAVE), "sampling rate"),
        ((float("nan"), WAVE), "sampling rate"),
        ((16000, np.zeros((3, 4, 5))), "shape"),
        ((16000, np.zeros(0)), "non-empty"),
        ((16000, np.array(["a", "b"])), "numbers"),
        ((16000, WAVE.astype(complex)), "numbers"),
        (b"", "empty"),
        (io.StringIO("text"), "rb"),
    ],
)
def test_what_is_no_sound(source, words):
    with pytest.raises(InputError, match=words) as caught:
        load_sound(source, RATE)
    assert "\n" not in str(caught.value)


def test_one_sound_is_not_two():
    assert is_one("audio", (16000, WAVE))
    assert is_one("audio", "a.wav")
    assert is_one("audio", Excerpt("a.wav"))
    assert not is_one("audio", ("a.wav", "b.wav"))
    assert not is_one("image", [Image.new("L", (2, 2))])


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def png(pixels=PIXELS):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {
    "bytes": png,
    "file object": lambda: io.BytesIO(png()),
    "PIL": lambda: Image.fromarray(PIXELS),
    "array": lambda: PIXELS,
    "channels first": lambda: np.moveaxis(PIXELS, 2, 0),
    "tensor": lambda: torch.from_numpy(PIXELS).permute(2, 0, 1),
    "floats": lambda: PIXELS.astype(np.float32) / 255,
    "half floats": lambda: torch.from_numpy(PIXELS).permute(2, 0, 1).half() / 255,
    "uint16": lambda: PIXELS.astype(np.uint16) * 257,
    "int64": lambda: PIXELS.astype(np.int64),
    "datasets": lambda: {"bytes": png(), "path": "a.png"},
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name):
    assert np.array_equal(np.asarray(load_image(PICTURES[name]())), PIXELS)


def test_grey_and_clear_arrays():
    assert load_image(PIXELS[..., 0]).getpixel((1, 0)) == (int(PIXELS[0, 1, 0]),) * 3
    assert load_image(np.zeros((4, 4, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(np.array([[True, False]])).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((5, 5, 7)), "shape"),
        (np.zeros((0, 4, 3)), "shape"),
        (np.full((4, 4, 3), 2.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"\[0, 1\]"),
        (np.full((4, 4, 3), -5), "0 to 255"),
        (3, "a picture must be"),
        ([PIXELS], "a picture must be"),
    ],
)
def test_what_is_no_picture(source, words):
    with pytest.raises(InputError, match=words):
        load_image(source)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", 2.0)


def frames_of(video):
    import av

    with av.open(str(video)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


VIDEOS = {
    "bytes": lambda p: p.read_bytes(),
    "file object": lambda p: p.open("rb"),
    "datasets": lambda p: {"bytes": p.read_bytes(), "path": None},
    "gradio": lambda p: {"video": str(p), "subtitles": None},
    "array": frames_of,
    "tensor": lambda p: torch.from_numpy(frames_of(p)).permute(0, 3, 1, 2),
    "list of PIL": lambda p: [Image.fromarray(f) for f in frames_of(p)],
    "tuple of arrays": lambda p: tuple(frames_of(p)),
    "floats": lambda p: frames_of(p) / 255,
}


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(video, name):
    expected = [np.asarray(f) for f in load_video(video, 4).frames]
    found = load_video(VIDEOS[name](video), 4, rate=RATE)
    assert np.array_equal([np.asarray(f) for f in found.frames], expected)
    assert (found.sound is not None) == (name in ("bytes", "file object", "datasets", "gradio"))


def test_torchcodec_videos(video):
    decoders = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError))
    expected = [np.asarray(f).astype(int) for f in load_video(video, 4).frames]
    for source in (decoders.VideoDecoder(str(video)), Excerpt(decoders.VideoDecoder(str(video)))):
        found = [np.asarray(f).astype(int) for f in load_video(source, 4).frames]
        assert np.abs(np.subtract(found, expected)).max() <= 3
    late = load_video(Excerpt(decoders.VideoDecoder(str(video)), 1.0), 2).frames
    assert np.asarray(late[0]).mean() > 120


def test_a_clip_stays_a_clip_and_parts_need_a_rate(video):
    clip = load_video(video, 4)
    assert load_video(clip) is clip
    part = load_video(Excerpt(Frames(frames_of(video), 8.0), 1.0, 0.5), 2)
    assert np.asarray(part.frames[0]).mean() > 120
    with pytest.raises(InputError, match="rate"):
        load_video(Excerpt(frames_of(video), 1.0))


@pytest.mark.parametrize("source", [3, None, [], np.zeros((4, 4, 3)), {"x": 1}])
def test_what_is_no_video(source):
    with pytest.raises(InputError, match="a video"):
        load_video(source)


def test_files_that_are_no_files(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    cases = [
        (tmp_path / "pipe", "not a regular file"),
        ("a\0b", r"no such file|cannot be read"),
        ("x" * 5000, "cannot be read"),
    ]
    for path, words in cases:
        with pytest.raises(InputError, match=words):
            load_sound(path, RATE)
