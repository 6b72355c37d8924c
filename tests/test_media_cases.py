"""Files as they come from cameras, browsers, phones and laboratories: each kind with its siblings."""

import io
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import tone, write_video, write_wav
from PIL import Image, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from unialign_gen.data.corpus import Sample
from unialign_gen.data.decode import prepare
from unialign_gen.encoders.base import Encoder
from unialign_gen.errors import InputError
from unialign_gen.media import Excerpt, Frames, Sound, load_clip, load_image, load_sound, load_video, sound_blocks
from unialign_gen.media.pictures import CutTails
from unialign_gen.notes import collected

FILES = Path(__file__).parent / "media"
RATE = 16000


def write_audio(path, pieces, container=None, codec="aac", rate=RATE, layout="mono", options=None, default=0):
    """A file with one sound track for each of `pieces`, float arrays (channels, n); number `default` is the default one."""
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        streams = []
        for i, _ in enumerate(pieces):
            stream = out.add_stream(codec, rate=rate, layout=layout)
            stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
            streams.append(stream)
        for stream, samples in zip(streams, pieces, strict=True):
            for at in range(0, samples.shape[1], 960):
                block = np.ascontiguousarray(samples[:, at : at + 960].astype(np.float32))
                frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
                frame.sample_rate, frame.pts = rate, at
                resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate)
                for piece in resampler.resample(frame):
                    out.mux(stream.encode(piece))
            out.mux(stream.encode(None))
    return path


def wave(seconds, hertz=440.0, rate=RATE):
    return tone(seconds, rate, hertz).T.astype(np.float32)


def kinds(call):
    """The kinds of the notes of a call, and what it gives."""
    with collected() as notes:
        found = call()
    return [n.kind for n in notes], found


def hertz_of(samples, rate=RATE):
    return float(torch.fft.rfft(samples).abs().argmax()) * rate / len(samples)


# streams


def test_a_stream_without_a_decoder_is_passed_over_or_named():
    assert hertz_of(load_sound(FILES / "unkvid_okaudio.mp4", RATE)) > 0
    with pytest.raises(InputError, match=r"no decoder for its video .*zzz1"):
        load_video(FILES / "unkvid_okaudio.mp4")
    with pytest.raises(InputError, match=r"no decoder for its sound .*A_XYZWV"):
        load_sound(FILES / "unkaudio.webm", RATE)
    with pytest.raises(InputError, match="svg"):
        load_video(FILES / "svg.svg")


def test_the_first_track_that_can_be_decoded_is_taken(tmp_path):
    path = write_audio(tmp_path / "a.mov", [wave(1, 300), wave(1, 900)], codec="pcm_s16le")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"sowt", raw.index(b"stsd"))
    raw[at : at + 4] = b"zzz1"
    path.write_bytes(raw)
    said, samples = kinds(lambda: load_sound(path, RATE))
    assert said == ["skipped track"]
    assert hertz_of(samples) == pytest.approx(900, abs=5)


def test_no_track_can_be_decoded(tmp_path):
    path = write_audio(tmp_path / "a.mov", [wave(1, 300), wave(1, 900)], codec="pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"sowt", b"zzz1"))
    with pytest.raises(InputError, match=r"no decoder for its sound .*zzz1"):
        load_sound(path, RATE)


class Rate(Encoder):
    dim, rate = 1, RATE
    config = {"encoder": "rate"}  # noqa: RUF012

    def prepare(self, inputs):
        return torch.zeros(len(inputs), 1)


@pytest.mark.parametrize("name", ["unkvid_okaudio.mp4", "unkaudio.webm", "svg.svg", "notes.txt"])
def test_a_corpus_survives_such_files_and_names_them(name):
    path = str(FILES / name)
    made = prepare(Sample(id="a", text="a", audio=path, video=path), {"audio": Rate(), "video": Rate()}, 2, 60.0)
    named = {p["modality"] for p in made.problems if p["kind"] == "broken"}
    assert named >= ({"video"} if name.endswith("mp4") else {"audio"})
    assert all(name in p["path"] and "\n" not in p["reason"] for p in made.problems)


def test_the_default_track_and_another():
    said, samples = kinds(lambda: load_sound(FILES / "multi.m4a", RATE))
    assert said == ["track"]
    assert float(samples.abs().max()) > 0.1
    said, samples = kinds(lambda: load_sound(Excerpt(FILES / "multi.m4a", track=0), RATE))
    assert said == ["silent"]
    with pytest.raises(InputError, match="2 tracks of sound"):
        load_sound(Excerpt(FILES / "multi.m4a", track=2), RATE)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_the_default_track_of_two_tones(tmp_path, container):
    path = write_audio(tmp_path / "a", [wave(1, 300), wave(1, 900)], container, default=1)
    assert hertz_of(load_sound(path, RATE)) == pytest.approx(900, abs=5)
    assert hertz_of(load_sound(Excerpt(path, track=0), RATE)) == pytest.approx(300, abs=5)
    assert hertz_of(torch.cat(list(sound_blocks(Excerpt(path, track=0), RATE)), 1)[0]) == pytest.approx(300, abs=5)


@pytest.mark.parametrize("name", ["2024-01-01T10:30:15.wav", "http:a.wav", "concat:a|b.wav", "%03d.wav", "a?b#c.wav", "-i.wav"])
def test_a_local_name_is_a_local_file(tmp_path, monkeypatch, name):
    write_wav(tmp_path / name, tone(1, RATE), RATE)
    monkeypatch.chdir(tmp_path)
    assert hertz_of(load_sound(name, RATE)) == pytest.approx(440, abs=3)
    assert sum(b.shape[1] for b in sound_blocks(name, RATE)) == RATE


def test_names_for_writing_are_local_too(tmp_path, monkeypatch):
    from unialign_gen.film import save_sequence

    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "http:x.mp4", "tcp:1.gif"):
        save_sequence([Image.new("RGB", (32, 32), c) for c in ("red", "blue")], Path(name))
        assert len(load_video(name, 2).frames) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a:b.mp4", "http:x.mp4", "tcp:1.gif"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", (FILES / "notes.txt").read_bytes()),
        ("a.nfo", b"\x1b[31mred\x1b[0m and other words " * 50),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\ncow.ts\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", b"ffconcat version 1.0\nfile cow.flac\n"),
        ("a.sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nwords\n"),
        ("a.g722", bytes(range(256)) * 40),
        ("picture.png", (FILES / "after.png").read_bytes()),
    ],
)
def test_what_is_neither_sound_nor_video_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for load in (load_video, lambda p: load_sound(p, RATE)):
        with pytest.raises(InputError) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("start", "seconds"), [(1.0, 1.0), (2.5, None), (0.5, 0.3)])
@pytest.mark.parametrize("form", ["wav", "mka", "memory"])
def test_a_part_of_a_sound(tmp_path, start, seconds, form):
    samples = np.concatenate([wave(1, 300), wave(1, 600), wave(1, 1200)], 1)
    if form == "memory":
        source = (RATE, samples)
    elif form == "wav":
        source = write_wav(tmp_path / "a.wav", samples.T.astype(np.float64), RATE)
    else:
        source = write_audio(tmp_path / "a.mka", [samples], "matroska", "flac")
    found = load_sound(Excerpt(source, start, seconds), RATE)
    wanted = samples[0, round(start * RATE) :][: None if seconds is None else round(seconds * RATE)]
    assert len(found) == len(wanted)
    assert np.corrcoef(found.numpy(), wanted)[0, 1] > 0.999
    blocks = torch.cat(list(sound_blocks(Excerpt(source, start, seconds), RATE)), 1)[0]
    assert np.corrcoef(blocks.numpy()[: len(wanted)], wanted[: len(blocks)])[0, 1] > 0.999


def test_a_part_of_a_video(tmp_path):
    path = write_video(tmp_path / "v.mp4", 4.0)
    late = [np.asarray(f).mean() for f in load_video(Excerpt(path, 2.0, 1.0), 2).frames]
    assert late == pytest.approx([255 * t for t in (0.5625, 0.6875)], abs=25)
    with pytest.raises(InputError, match="no part of it can begin at 9 s"):
        load_video(Excerpt(path, 9.0))
    with pytest.raises(InputError, match="start must be"):
        Excerpt(path, -1.0)


# display

PICTURE = np.zeros((48, 64, 3), np.uint8)
PICTURE[:24, :32], PICTURE[:24, 32:], PICTURE[24:, :32], PICTURE[24:, 32:] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
)
# a, b, c, d of the display matrix, and what it does to an array
GEOMETRIES = {
    "as it is": ((1, 0, 0, 1), lambda x: x),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "transposed": ((0, 1, 1, 0), lambda x: np.swapaxes(x, 0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda x: np.rot90(np.swapaxes(x, 0, 1), 2)),
}


def write_still(path, pixels, pixel=None, codec="mpeg4", pixels_as="yuv420p", count=3, container=None):
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=5, options={"auto-alt-ref": "0"} if codec.startswith("libvpx") else {})
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], pixels_as
        if pixel:
            stream.codec_context.sample_aspect_ratio = pixel
        for _ in range(count):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            out.mux(stream.encode(frame.reformat(format=pixels_as)))
        out.mux(stream.encode(None))
    return path


def turned(path, matrix):
    """Writes a display matrix into an MP4's track header (ISO 14496-12, 8.3.2)."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    a, b, c, d = (v << 16 for v in matrix)
    raw[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(raw)
    return path


def same(picture, expected, tolerance=20):
    found = np.asarray(picture).astype(int)
    assert found.shape == expected.shape
    inner = np.abs(found - expected.astype(int)).max(2)
    assert np.quantile(inner, 0.9) < tolerance


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("pixel", [None, Fraction(2, 1)])
def test_the_eight_geometries(tmp_path, name, pixel):
    matrix, expected = GEOMETRIES[name]
    path = turned(write_still(tmp_path / "v.mp4", PICTURE, pixel), matrix)
    wide = PICTURE if pixel is None else np.repeat(PICTURE, 2, axis=1)
    for frame in load_video(path, 2).frames:
        same(frame, expected(wide))


@pytest.mark.parametrize("name", ["hflip.mp4", "smirror.mp4", "ssar.mp4"])
def test_cameras_of_others_are_shown_as_ffmpeg_shows_them(name, tmp_path):
    import subprocess

    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not installed")
    out = tmp_path / "first.png"
    shape = ["-vf", "scale=iw*sar:ih,setsar=1"] if name == "ssar.mp4" else []
    subprocess.run(["ffmpeg", "-v", "error", "-i", FILES / name, *shape, "-frames:v", "1", out], check=True)
    same(load_video(FILES / name, 50).frames[0], np.asarray(Image.open(out).convert("RGB")))


@pytest.mark.parametrize("pixel", [Fraction(1, 2), Fraction(16, 15), Fraction(8, 9)])
def test_pixels_that_are_no_squares(tmp_path, pixel):
    (frame,) = load_video(write_still(tmp_path / "v.mkv", PICTURE, pixel), 1).frames
    assert frame.size == (round(64 * pixel), 48)


def half_clear():
    """Left half clear over black, right half blue."""
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:, 32:] = (0, 0, 255, 255)
    return pixels


ON_WHITE = np.where(np.arange(64)[None, :, None] < 32, 255, np.array([0, 0, 255])).repeat(48, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "codec", "pixels_as"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.mkv", "ffv1", "bgra"),
    ],
)
def test_transparent_video_is_on_white(tmp_path, name, codec, pixels_as):
    path = write_still(tmp_path / name, half_clear(), codec=codec, pixels_as=pixels_as)
    for frame in load_video(path, 2).frames:
        same(frame, ON_WHITE)


def test_the_transparent_video_of_others_is_on_white():
    (frame,) = load_video(FILES / "alpha_vp9.webm", 1).frames
    assert (np.asarray(frame) > 200).all(2).mean() > 0.2


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_animated_pictures_are_video(tmp_path, form):
    clear = half_clear()
    clear[0, 0] = clear[-1, -1] = (255, 255, 255, 128)  # or WebP's encoder leaves the clear half out, and says it is opaque
    steps = [Image.fromarray(clear, "RGBA").rotate(90 * i) for i in range(3)]
    path = tmp_path / "a.bin"
    steps[0].save(
        path, form, save_all=True, append_images=steps[1:], duration=[100, 100, 800], loop=0, lossless=True, disposal=2
    )
    frames = load_video(path, 10).frames
    same(frames[0], ON_WHITE)
    # the first 100 ms of 1000, then 100, then 800
    assert [f.tobytes() == frames[0].tobytes() for f in frames] == [True] + [False] * 9
    assert len({f.tobytes() for f in frames}) == 3
    assert load_image(path).tobytes() == frames[0].tobytes()


def test_a_palette_of_the_first_packet_serves_all(tmp_path):
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0], palette[:, 1], palette[:, 3] = 255, np.arange(256), np.arange(256)
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("rawvideo", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for i in range(10):
            frame = av.VideoFrame.from_ndarray((np.full((48, 64), 20 * i, np.uint8), palette), format="pal8")
            out.mux(stream.encode(frame))
    with av.open(str(path)) as container:
        expected = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert expected[9].any()
    (late,) = load_video(Excerpt(path, 1.6), 1).frames
    assert any(np.array_equal(np.asarray(late), e) for e in expected[8:])


# sound


def test_silence_is_told(tmp_path):
    for channels in (1, 2):
        path = write_wav(tmp_path / "a.wav", np.zeros((RATE, channels)), RATE)
        assert kinds(lambda p=path: load_sound(p, RATE))[0] == ["silent"]
    silent = write_audio(tmp_path / "c.m4a", [np.zeros((1, RATE))])
    assert kinds(lambda: load_sound(silent, RATE))[0] == ["silent"]
    assert kinds(lambda: load_sound((RATE, np.zeros(RATE)), RATE))[0] == ["silent"]


@pytest.mark.parametrize("other", [-1.0, -0.9])
@pytest.mark.parametrize("form", ["wav", "aac", "memory"])
def test_channels_that_cancel_out(tmp_path, other, form):
    samples = np.concatenate([wave(1), other * wave(1)])
    if form == "wav":
        source = write_wav(tmp_path / "a.wav", samples.T.astype(np.float64), RATE)
    elif form == "aac":
        source = write_audio(tmp_path / "a.m4a", [samples], layout="stereo")
    else:
        source = {"array": samples, "sampling_rate": RATE}
    said, found = kinds(lambda: load_sound(source, RATE))
    assert said == ["loud channel"]
    assert float(found.abs().max()) == pytest.approx(0.5, abs=0.05)
    said, found = kinds(lambda: torch.cat(list(sound_blocks(source, RATE)), 1))
    assert said == ["loud channel"]
    assert float(found.abs().max()) == pytest.approx(0.5, abs=0.05)


def test_wide_stereo_and_a_single_speaker_do_not_cancel_out(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE, 6))
    one = np.zeros((RATE, 6))
    one[:, 2] = tone(1, RATE)[:, 0]
    for samples in (noise, one):
        said, found = kinds(lambda s=samples: load_sound((RATE, s), RATE))
        assert said == []
        torch.testing.assert_close(found, torch.from_numpy(samples.mean(1)).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [2, 3, 6, 8, 12])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_mean_of_equal_channels_is_the_one(tmp_path, channels, width):
    loud = 2 * tone(0.5, 44100)
    one = load_sound(write_wav(tmp_path / "a.wav", loud, 44100, width), RATE)
    all_of_them = load_sound(write_wav(tmp_path / "b.wav", np.repeat(loud, channels, 1), 44100, width), RATE)
    torch.testing.assert_close(all_of_them, one, atol=1e-6, rtol=0)
    assert float(all_of_them.abs().max()) <= 1


def test_the_left_channel_where_an_encoder_wants_it(tmp_path):
    samples = np.concatenate([wave(1, 300), wave(1, 900)])
    path = write_wav(tmp_path / "a.wav", samples.T.astype(np.float64), RATE)
    assert hertz_of(load_sound(path, RATE, "left")) == pytest.approx(300, abs=3)
    torch.testing.assert_close(load_clip(path, 0, RATE, downmix="left").sound, torch.from_numpy(samples[0]), atol=1e-3, rtol=0)


def test_which_encoders_want_it():
    from unialign_gen.encoders.beats import BEATs
    from unialign_gen.encoders.imagebind_audio import ImageBindAudio

    assert ImageBindAudio.downmix == "left"
    assert Encoder.downmix == "mean"
    small = {"encoder_layers": 1, "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 8, "encoder_attention_heads": 1}
    with torch.device("meta"):
        assert BEATs({**small, "slices": 1}).downmix == "left"
        assert BEATs(small).downmix == "mean"


def joined(tmp_path, container, codec, forms):
    """Files of several forms one after the other, as playlists are joined."""
    data = b""
    for i, (rate, layout, hertz) in enumerate(forms):
        samples = np.repeat(wave(2, hertz, rate), 2 if layout == "stereo" else 1, 0)
        options = {"write_xing": "0", "id3v2_version": "0"} if container == "mp3" else {}
        data += write_audio(tmp_path / f"{i}", [samples], container, codec, rate, layout, options).read_bytes()
    (tmp_path / "joined").write_bytes(data)
    return tmp_path / "joined"


@pytest.mark.parametrize("container", ["mp3", "adts"])
@pytest.mark.parametrize(
    "forms",
    [
        [(44100, "mono", 400), (22050, "mono", 800)],
        [(48000, "stereo", 400), (32000, "mono", 800)],
        [(44100, "mono", 400), (44100, "stereo", 800)],
    ],
)
def test_the_form_changes_in_mid_stream(tmp_path, container, forms):
    codec = "libmp3lame" if container == "mp3" else "aac"
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = joined(tmp_path, container, codec, forms)
    for found in (load_sound(path, RATE), torch.cat(list(sound_blocks(path, RATE)), 1)[0]):
        assert len(found) == pytest.approx(4 * RATE, rel=0.06)
        assert hertz_of(found[: RATE + RATE // 2]) == pytest.approx(400, abs=3)
        assert hertz_of(found[-RATE - RATE // 2 :]) == pytest.approx(800, abs=3)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e30])
def test_samples_that_are_no_sound_are_dropped(tmp_path, bad):
    samples = wave(1)
    samples[0, 5000] = bad
    path = write_audio(tmp_path / "a.wav", [samples], "wav", "pcm_f32le")
    said, found = kinds(lambda: load_sound(path, RATE))
    assert said == ["dropped samples"]
    assert float((found - torch.from_numpy(wave(1)[0])).abs().max()) < 0.51
    assert kinds(lambda: load_sound((44100, samples[0]), RATE))[0] == ["dropped samples"]
    assert kinds(lambda: torch.cat(list(sound_blocks(path, RATE, 2)), 1))[0] == ["dropped samples"]


def test_too_short_is_called_so(tmp_path):
    with pytest.raises(InputError, match=r"too short to be heard: 0\.0"):
        load_sound(FILES / "one.wav", RATE)
    with pytest.raises(InputError, match="too short"):
        load_sound((RATE, np.zeros(3)), RATE)
    with pytest.raises(InputError, match="too short"):
        load_sound(write_wav(tmp_path / "b.wav", np.zeros((0, 1)), RATE), RATE)
    assert kinds(lambda: load_sound(write_wav(tmp_path / "c.wav", tone(0.05, RATE), RATE), RATE))[0] == ["too short"]
    assert kinds(lambda: load_sound(write_wav(tmp_path / "d.wav", tone(0.2, RATE), RATE), RATE))[0] == []


@pytest.mark.parametrize("seconds", [5, 45])
def test_a_recording_without_a_duration_is_heard_as_one_with(tmp_path, seconds):
    samples = np.concatenate([wave(seconds / 3, f) for f in (300, 600, 1200)], 1)
    with_it = write_audio(tmp_path / "a.mka", [samples], "matroska", "flac")
    without = write_audio(tmp_path / "b.mka", [samples], "matroska", "flac", options={"live": "1"})
    with av.open(str(without)) as container:
        assert container.duration is None
    expected = load_sound(with_it, RATE)
    for found in (load_sound(without, RATE), load_clip(without, 0, RATE).sound):
        assert len(found) == pytest.approx(len(expected), abs=RATE // 50)
        assert hertz_of(found[-RATE:]) == pytest.approx(1200, abs=3)


def test_the_same_of_a_large_file(tmp_path, monkeypatch):
    from unialign_gen.media import reading

    samples = np.concatenate([wave(15, f) for f in (300, 600, 1200)], 1)
    path = write_audio(tmp_path / "b.mka", [samples], "matroska", "flac", options={"live": "1"})
    monkeypatch.setattr(reading, "KEEP_BYTES", 0)
    assert hertz_of(load_sound(path, RATE)[-RATE:]) == pytest.approx(1200, abs=3)


# pictures


@pytest.mark.parametrize("name", ["g16be.tif", "const16.png", "lowcontrast16.png"])
def test_deep_pictures_of_others(name):
    expected = np.asarray(Image.open(FILES / name)).astype(float) / 257
    assert np.abs(np.asarray(load_image(FILES / name))[..., 0] - expected).max() <= 0.5
    eight = np.asarray(load_image(FILES / "lowcontrast8.png")).astype(int)
    assert np.abs(np.asarray(load_image(FILES / "lowcontrast16.png")).astype(int) - eight).max() <= 1


RAMP = np.linspace(0, 65535, 64 * 32).reshape(32, 64)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_in_both_byte_orders(tmp_path, mode, form):
    raw = RAMP.astype("<u2" if mode == "I;16" else ">u2").tobytes()
    picture = Image.frombytes(mode, (64, 32), raw)
    if form != "TIFF":
        picture = Image.fromarray(RAMP.astype(np.uint16))
    picture.save(tmp_path / "a", form)
    assert np.abs(np.asarray(load_image(tmp_path / "a"))[..., 0] - RAMP / 257).max() <= 0.51


def test_sixteen_bits_with_transparency(tmp_path):
    values = RAMP.astype(np.uint16)
    values[values == 1000] = 1001
    values[:, :8] = 1000
    Image.fromarray(values).save(tmp_path / "a.png", transparency=1000)
    found = np.asarray(load_image(tmp_path / "a.png"))[..., 0]
    assert (found[:, :8] == 255).all()
    assert np.abs(found[:, 8:] - values[:, 8:] / 257).max() <= 0.51


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 700.0), (2e-3, 0.7)])
def test_floats_by_what_is_finite(tmp_path, bad, low, high):
    values = np.linspace(low, high, 64 * 32, dtype=np.float32).reshape(32, 64)
    values[3, 3] = bad
    Image.fromarray(values).save(tmp_path / "a.tif")
    said, picture = kinds(lambda: load_image(tmp_path / "a.tif"))
    assert said == ["dropped pixels"]
    inside = low >= 0 and high <= 1
    expected = values * 255 if inside else (values - low) / (high - low) * 255
    found = np.asarray(picture)[..., 0].astype(float)
    assert found[3, 3] == (255 if bad == np.inf else 0)
    good = np.isfinite(values)
    assert np.abs(found - expected)[good].max() <= 1


def test_one_wild_float_does_not_darken_the_rest(tmp_path):
    values = np.linspace(-3, 700, 64 * 32, dtype=np.float32).reshape(32, 64)
    values[0, 0] = 1e20
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.asarray(load_image(tmp_path / "a.tif")).std() > 50


@pytest.mark.parametrize(("mode", "plain"), [("La", "LA"), ("RGBa", "RGBA")])
def test_colours_that_are_multiplied_by_their_opacity(mode, plain):
    picture = Image.merge(plain, [Image.linear_gradient("L").resize((8, 8))] * len(plain))
    expected = np.asarray(load_image(picture), int)
    assert np.abs(np.asarray(load_image(picture.convert(mode)), int) - expected).max() <= 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_another_profile_become_srgb(tmp_path, mode):
    profile = wide_profile()
    picture = Image.new(mode, (8, 8), (200, 90, 40) if mode == "RGB" else (200, 90, 40, 255))
    picture.save(tmp_path / "a.png", icc_profile=profile)
    expected = ImageCms.profileToProfile(
        picture.convert("RGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(expected))
    assert load_image(tmp_path / "a.png").getpixel((4, 4)) != (200, 90, 40)


def wide_profile():
    """sRGB with red and blue exchanged, and another name: who ignores it is found out."""
    raw = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    raw = raw.replace(b"rXYZ", b"tmp ").replace(b"bXYZ", b"rXYZ").replace(b"tmp ", b"bXYZ")
    return raw.replace(b"s\0R\0G\0B", b"o\0t\0h\0r").replace(b"sRGB", b"othr")


def test_a_profile_that_cannot_be_used_is_noted(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png", icc_profile=b"nothing of a profile" * 20)
    said, picture = kinds(lambda: load_image(tmp_path / "a.png"))
    assert said == ["colour profile"]
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_heif():
    pytest.importorskip("pillow_heif")
    assert load_image(FILES / "heif.heif").size == (64, 64)
    with pytest.raises(InputError, match="is a picture, not a video"):
        load_video(FILES / "heif.heif")


def test_heif_without_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.setattr("unialign_gen.media.pictures.readable", lambda: ["PNG"])
    with pytest.raises(InputError, match=r"HEIF.*pip install pillow-heif"):
        load_image(FILES / "heif.heif")
    with pytest.raises(InputError, match="is a picture, not a video"):
        load_video(FILES / "heif.heif")


@pytest.mark.parametrize(("form", "cut"), [("JPEG", 2), ("JPEG", 900), ("PNG", 20), ("PNG", 2000), ("BMP", 100), ("TIFF", 50)])
def test_a_cut_tail_is_read_with_a_note(tmp_path, form, cut):
    noise = np.random.default_rng(0).integers(20, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a", form)
    whole = load_image(tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-cut])
    said, picture = kinds(lambda: load_image(tmp_path / "a"))
    assert said == ["cut"] or (form, cut) == ("PNG", 20)  # the checksum and the end mark alone
    there = slice(-16, None) if form == "BMP" else slice(0, 16)  # which goes from bottom to top
    assert np.array_equal(np.asarray(picture)[there], np.asarray(whole)[there])


def test_a_picture_that_is_mostly_missing_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(20, 255, (60, 80, 3), dtype=np.uint8)
    for form in ("PNG", "JPEG", "BMP"):
        Image.fromarray(noise).save(tmp_path / "a", form)
        raw = (tmp_path / "a").read_bytes()
        (tmp_path / "a").write_bytes(raw[: len(raw) // 4])
        with pytest.raises(InputError, match=r"missing|damaged"):
            load_image(tmp_path / "a")


def test_threads_do_not_mistake_a_cut_picture_for_a_whole_one(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    noise = np.random.default_rng(0).integers(20, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2])
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: kinds(lambda: load_image(tmp_path / "a.jpg"))[0], range(40)))
    assert said == [["cut"]] * 40


def test_a_cut_picture_is_told_where_another_was_let_through_when_it_began(tmp_path, monkeypatch):
    """The other thread's reading is over before this one's."""
    noise = np.random.default_rng(0).integers(20, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2])
    load = JpegImageFile.load

    def over(picture):
        found = load(picture)
        if ImageFile.LOAD_TRUNCATED_IMAGES and CutTails.lock.locked():
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            CutTails.lock.release()
            monkeypatch.undo()
        return found

    monkeypatch.setattr(JpegImageFile, "load", over)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    CutTails.lock.acquire()
    assert kinds(lambda: load_image(tmp_path / "a.jpg"))[0] == ["cut"]


def test_a_picture_that_was_only_opened_is_read_now(tmp_path):
    Image.effect_noise((200, 200), 80).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 4])
    with Image.open(tmp_path / "a.jpg") as opened, pytest.raises(InputError, match="damaged picture"):
        load_image(opened)


@pytest.mark.parametrize("form", ["int16", "gradient", "channels"])
def test_a_sound_in_memory_is_one_sound_in_blocks_too(form):
    samples = torch.from_numpy(tone(1, RATE).T.astype(np.float32).copy())
    given = {"int16": (samples * 32767).short(), "gradient": samples.requires_grad_(), "channels": samples[0]}[form]
    found = torch.cat(list(sound_blocks(Sound(given, RATE), RATE)), 1)[0]
    assert torch.allclose(found, load_sound(Sound(given, RATE), RATE), atol=1e-4)
    assert float(found.abs().max()) == pytest.approx(0.5, abs=0.01)


def test_a_part_that_begins_behind_pictures_in_memory_is_refused():
    frames = Frames([Image.new("RGB", (8, 8))] * 10, rate=10)
    with pytest.raises(InputError, match="no part of it can begin at 100 s"):
        load_video(Excerpt(frames, 100))
