"""Frames and sound against decoding everything."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from conftest import tone, write_video
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.media import files, load_clip, load_sound, load_video
from unialign_gen.media import reading as decoding

CODECS = [
    ("mp4", "libx264", {"bf": "3", "b-pyramid": "normal"}),
    ("mp4", "libx264", {"bf": "2", "g": "12", "x264-params": "open-gop=1"}),
    ("matroska", "libx264", {"bf": "2", "g": "25"}),
    ("mp4", "mpeg4", {"g": "12"}),
    ("avi", "mpeg4", {"g": "30"}),
    ("webm", "libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}),
    ("mpegts", "libx264", {"g": "20"}),
    ("mov", "mjpeg", {}),
    ("h264", "libx264", {"g": "15", "bf": "0"}),
]


def write(path, container, codec, options, times, sound_seconds=0.0):
    """A video whose frames are shown at `times` in milliseconds, noise with a moving block."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    dice = np.random.default_rng(0)
    ground = dice.integers(0, 60, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", format=container) as out:
        video = out.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if container not in ("avi", "h264"):
            video.codec_context.time_base = Fraction(1, 1000)
        audio = out.add_stream("aac", rate=16000, layout="mono") if sound_seconds else None
        for i, at in enumerate(times):
            pixels = ground.copy()
            pixels[8:40, (i * 3) % 48 : (i * 3) % 48 + 16] = 100 + (i * 37) % 155
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if container not in ("avi", "h264"):
                frame.pts, frame.time_base = at, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            samples = tone(sound_seconds, 16000).astype(np.float32).T
            for at in range(0, samples.shape[1], 1024):
                piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1024]), "fltp", "mono")
                piece.rate, piece.pts = 16000, at
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
    return path


def everything(path):
    """(times in seconds or numbers, pictures) of all frames, in the order they are shown."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [f.time if f.time is not None else i for i, f in enumerate(frames)], [np.asarray(f.to_image()) for f in frames]


def on_screen(times, wants):
    return [max((i for i, t in enumerate(times) if t <= want + 1e-6), default=0) for want in wants]


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "sought"])
@pytest.mark.parametrize(("container", "codec", "options"), CODECS)
def test_frames_are_those_that_decoding_everything_gives(tmp_path, monkeypatch, container, codec, options, keep):
    if not keep:
        if container == "h264":
            pytest.skip("a bare stream does not say how long it is")
        monkeypatch.setattr(decoding, "KEEP_BYTES", 0)
    path = write(tmp_path / "v", container, codec, options, range(0, 4000, 40))
    times, pictures = everything(path)
    step = times[1] - times[0]
    wants = [times[0] + (times[-1] + step - times[0]) * (i + 0.5) / 8 for i in range(8)]
    found = [np.asarray(f) for f in load_video(path, 8).frames]
    which = [next(i for i, p in enumerate(pictures) if np.array_equal(p, f)) for f in found]
    expected = on_screen(times, wants)
    assert np.abs(np.subtract(which, expected)).max() <= (0 if keep else 2)  # a stated length may differ by a frame
    assert len(set(which)) == 8


def test_a_variable_frame_rate_shows_what_is_on_the_screen(tmp_path):
    times = [0, 40, 80, 3000, 3040, 3100, 9000]
    path = write(tmp_path / "v.mkv", "matroska", "libx264", {"bf": "2"}, times)
    _, pictures = everything(path)
    found = [np.asarray(f) for f in load_video(path, 9).frames]
    span = 9000 + 9000 / 6  # nobody says how long the last frame is shown: as long as frames are on average
    with av.open(str(path)) as container:
        last = [p for p in container.demux(video=0) if p.size][-1]
        span = 9000 + last.duration if last.duration else span
    expected = on_screen(times, [span * (i + 0.5) / 9 for i in range(9)])
    assert [next(k for k, p in enumerate(pictures) if np.array_equal(p, f)) for f in found] == expected


def test_one_frame_is_on_the_screen_all_the_time(tmp_path):
    path = write(tmp_path / "v.mp4", "mp4", "libx264", {}, [0])
    frames = load_video(path, 8).frames
    assert len(frames) == 8
    assert len({f.tobytes() for f in frames}) == 1


def test_fewer_packets_are_decoded(tmp_path, monkeypatch):
    fed = []
    monkeypatch.setattr(decoding.Reading, "count", lambda self: fed.append(1))
    load_video(write(tmp_path / "v.mp4", "mp4", "libx264", {"g": "10"}, range(0, 8000, 40)), 4)
    assert len(fed) < 4 * 16  # of 200


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "sought"])
def test_sound_is_the_same_alone_and_beside_the_pictures(tmp_path, monkeypatch, keep):
    monkeypatch.setattr(decoding, "KEEP_BYTES", 10**9 if keep else 0)
    path = write(tmp_path / "v.mp4", "mp4", "mpeg4", {}, range(0, 4000, 40), sound_seconds=4.0)
    clip = load_clip(path, 4, 16000)
    assert torch.equal(clip.sound, load_sound(path, 16000))
    assert clip.notes == []
    assert clip.problems == {}


@pytest.mark.parametrize("keep", [True, False])
def test_long_sound_beside_pictures(tmp_path, monkeypatch, keep):
    monkeypatch.setattr(decoding, "KEEP_BYTES", 10**9 if keep else 0)
    path = write(tmp_path / "v.mp4", "mp4", "mpeg4", {}, range(0, 60000, 500), sound_seconds=60.0)
    sound = load_clip(path, 2, 16000).sound
    assert 30 * 16000 - 1100 < len(sound) <= 30 * 16000
    assert sound[20 * 16000 + 2000 :].abs().max() > 0.3


def test_one_of_the_two_may_fail(tmp_path):
    mute = load_clip(write_video(tmp_path / "mute.mp4", sound=False), 4, 16000)
    assert (len(mute.frames), mute.sound, mute.problems) == (4, None, {})
    heard = write(tmp_path / "a.mp4", "mp4", "mpeg4", {}, [], sound_seconds=1.0)
    clip = load_clip(heard, 4, 16000)
    assert "video" in clip.problems
    assert len(clip.sound) > 15000


def test_a_cut_off_file_says_so(tmp_path):
    path = write(tmp_path / "v.mkv", "matroska", "libx264", {"g": "25"}, range(0, 8000, 40), sound_seconds=8.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip = load_clip(path, 8, 16000)
    assert len(clip.frames) == 8
    assert clip.notes
    assert clip.notes[0].kind == "cut"


def test_damage_inside_a_file_is_noted(tmp_path):
    path = write(tmp_path / "v.mkv", "matroska", "mpeg4", {"g": "5"}, range(0, 4000, 40))
    whole = load_clip(path, 8)
    assert whole.notes == []
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    for packet in packets[30:60]:
        at = data.find(packet)
        data[at : at + len(packet)] = bytes(len(packet))
    path.write_bytes(data)
    clip = load_clip(path, 8)
    assert clip.notes[0].kind == "damaged"
    assert np.array_equal(clip.frames[0], whole.frames[0])


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("mp3", rate=16000, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), "red"))))
        piece = av.AudioFrame.from_ndarray(tone(1.0, 16000).astype(np.float32).T.copy(), "fltp", "mono")
        piece.rate = 16000
        out.mux(audio.encode(piece))
        out.mux(audio.encode(None))
    clip = load_clip(path, 4, 16000)
    assert clip.problems["video"].endswith("has no video")
    assert clip.sound is not None


def test_patience_ends(tmp_path):
    path = write_video(tmp_path / "v.mp4", 4.0)
    with pytest.raises(InputError, match="takes more than 0 s to decode"):
        load_clip(path, 8, 16000, patience=0)


def test_pictures_that_are_too_large_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setattr(files, "MAX_FRAME_PIXELS", 63 * 64)
    with pytest.raises(InputError):
        load_video(path)


def test_too_few_keyframes_end(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mp4", "mp4", "mpeg4", {"g": "600"}, range(0, 8000, 40))
    monkeypatch.setattr(decoding, "MAX_PACKETS", 50)
    with pytest.raises(InputError, match="too few keyframes"):
        load_video(path)
