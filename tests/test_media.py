import io
import time

import numpy as np
import pytest
import torch
from conftest import tone, write_video, write_wav
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.media import Sound, load_image, load_sound, load_video
from unialign_gen.notes import collected


def peak_hertz(samples: torch.Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(samples).abs()
    return float(spectrum.argmax()) * rate / len(samples)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_any_rate_and_depth(tmp_path, rate, width):
    path = write_wav(tmp_path / "a.wav", tone(1.0, rate), rate, width)
    samples = load_sound(path, 44100)
    assert len(samples) == pytest.approx(44100, rel=0.01)
    assert peak_hertz(samples, 44100) == pytest.approx(440, abs=3)
    assert float(samples.abs().max()) == pytest.approx(0.5, abs=0.03)


def test_stereo_is_mixed_down(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.5, 44100, channels=2), 44100)
    assert load_sound(path, 44100).ndim == 1


def test_the_name_does_not_matter(tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(0.5, 44100), 44100)
    path = wav.rename(tmp_path / "a.jpg")
    assert len(load_sound(path, 44100)) > 20000
    Image.new("RGB", (10, 10), "red").save(tmp_path / "b.png")
    assert load_image((tmp_path / "b.png").rename(tmp_path / "b.mp3")).getpixel((5, 5)) == (255, 0, 0)


def test_of_an_hour_only_what_is_used_is_decoded(tmp_path):
    rate = 8000
    hour = np.zeros((3600 * rate, 1))
    hour[-8 * rate :] = tone(8, rate, 1000)
    path = write_wav(tmp_path / "long.wav", hour, rate)
    start = time.process_time()
    with collected() as notes:
        samples = load_sound(path, 44100)
    assert time.process_time() - start < 2
    assert [n.kind for n in notes] == ["part heard"]
    assert len(samples) == pytest.approx(30 * 44100, rel=0.02)
    assert peak_hertz(samples[-5 * 44100 :], 44100) == pytest.approx(1000, abs=5)


def test_silence_is_noted_and_stays_silence(tmp_path):
    path = write_wav(tmp_path / "s.wav", np.zeros((8000, 1)), 8000)
    with collected() as notes:
        assert float(load_sound(path, 44100).abs().max()) == 0
    assert [n.kind for n in notes] == ["silent"]


def test_sound_in_memory():
    samples = load_sound(Sound(torch.from_numpy(tone(1, 16000)[:, 0]), 16000), 44100)
    assert peak_hertz(samples, 44100) == pytest.approx(440, abs=3)


def test_transparency_is_laid_on_white():
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert load_image(picture).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (20, 10), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    picture.save(tmp_path / "r.png", exif=exif)
    upright = load_image(tmp_path / "r.png")
    assert upright.size == (10, 20)
    assert upright.getpixel((9, 0)) == (0, 0, 0)


def test_sixteen_bit_pictures_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)).save(tmp_path / "d.png")
    values = np.asarray(load_image(tmp_path / "d.png"))[..., 0]
    assert values.min() == 0
    assert values.max() == 255
    assert len(np.unique(values)) > 50


def test_frames_come_from_the_whole_video(tmp_path):
    clip = load_video(write_video(tmp_path / "v.mp4", 4.0), frames=4, rate=44100)
    brightness = [np.asarray(f).mean() for f in clip.frames]
    assert len(brightness) == 4
    assert brightness == pytest.approx([255 * t for t in (0.125, 0.375, 0.625, 0.875)], abs=20)
    assert peak_hertz(clip.sound, 44100) == pytest.approx(440, abs=3)


def test_a_video_without_sound(tmp_path):
    path = write_video(tmp_path / "mute.mp4", sound=False)
    assert load_video(path, rate=44100).sound is None
    with pytest.raises(InputError, match="has no sound"):
        load_sound(path, 44100)


def broken(kind: str) -> bytes:
    if kind == "empty":
        return b""
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()[:300]


@pytest.mark.parametrize("load", [load_image, lambda p: load_sound(p, 44100), load_video])
@pytest.mark.parametrize("kind", ["empty", "noise", "cut", "missing", "folder"])
def test_bad_files_are_one_clear_line(tmp_path, load, kind):
    path = tmp_path / "x.bin"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(broken(kind))
    with pytest.raises(InputError) as error:
        load(path)
    assert "x.bin" in str(error.value)
    assert "\n" not in str(error.value)


def test_cut_off_media_give_what_is_there(tmp_path):
    whole = write_wav(tmp_path / "a.wav", tone(2.0, 44100), 44100).read_bytes()
    (tmp_path / "b.wav").write_bytes(whole[: len(whole) // 2])
    assert 40000 < len(load_sound(tmp_path / "b.wav", 44100)) < 46000
    video = write_video(tmp_path / "v.mp4").read_bytes()
    (tmp_path / "w.mp4").write_bytes(video[: len(video) // 2])
    with pytest.raises(InputError):
        load_video(tmp_path / "w.mp4")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_the_first_is_used_and_said(tmp_path, kind):
    first, *rest = (Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue"))
    first.save(tmp_path / "two", kind, save_all=True, append_images=rest)
    with collected() as notes:
        found = load_image(tmp_path / "two")
    assert found.getpixel((8, 8))[0] > 200 > 50 > found.getpixel((8, 8))[1]
    (told,) = notes
    assert str(told) == f"first picture: {tmp_path / 'two'} has 3 pictures: the first is used; given as a video, all are"
    first.save(tmp_path / "one", kind)
    with collected() as notes:
        load_image(tmp_path / "one")
    assert notes == []
