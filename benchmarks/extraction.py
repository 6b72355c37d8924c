"""Clips a second a core: decoding, filter banks and a whole extraction, side by side in one run with the obvious alternatives.

    python benchmarks/extraction.py --json
    python benchmarks/extraction.py --clips 48 --seconds 10 --width 640 --height 360

Builds its own clips (H.264 with a keyframe every 2 s in one half and one in all in the other, AAC) in a temporary folder, as
files and as one WebDataset tar. Every figure is the median of the repeats, which alternate between the contenders. What is a
second needs an idle machine; what is a core second, the processor's time over all threads, hardly depends on what else runs.

Decoding gives 8 frames as RGB pictures and the sound at 16 kHz. The alternatives: PyAV without seeking (all frames decoded and
8 kept, then the file opened again for the sound), TorchCodec, and the webdataset package's reader with PyAV as its decoder. The
last two are left out where they are not installed. Filter banks are ours and kaldi-native-fbank's, 80 bands of 10 s, since it
refuses 128. A whole extraction is the starter's encoders, from files and from the tar; the alternative decodes that way, one
clip after the other, and runs the encoders on each. `costs` are seconds of one core for a clip, and what ten million take.
"""

from __future__ import annotations

import importlib.util
import io
import json
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer
from timing import spent, turns

from unialign_gen.data.cache import FeatureCache, Shard, shard_path, write_shard
from unialign_gen.data.decode import decoders, ordered
from unialign_gen.data.extract import run as extract
from unialign_gen.data.extract_config import ExtractConfig, cores, open_encoders
from unialign_gen.data.sources import LABELS, CorpusConfig
from unialign_gen.encoders.kaldi import fbank
from unialign_gen.media import load_clip

FRAMES, RATE = 8, 16000
ENCODERS: dict[str, Any] = {"text": "starter", "audio": "starter", "video": "starter"}


def write_clip(path: Path, seconds: float, width: int, height: int, fps: int, keyframes: int, seed: int) -> None:
    """Coloured blobs that drift over a textured ground, with a chord."""
    dice = np.random.default_rng(seed)
    ground = np.kron(dice.integers(30, 220, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    spots = dice.uniform(0, 1, (6, 4))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"g": str(keyframes), "crf": "26", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = ground.shape[1], ground.shape[0], "yuv420p"
        audio = container.add_stream("aac", rate=44100, layout="mono")
        for i in range(int(seconds * fps)):
            pixels = np.roll(ground, i // 2, axis=1)
            for x, y, dx, dy in spots:
                left, top = (int((a + i / fps * d / 4) % 1 * (n - 60)) for a, d, n in ((x, dx, width), (y, dy, height)))
                pixels[top : top + 50, left : left + 50] = (int(255 * x), int(255 * y), int(255 * dx))
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        t = np.arange(int(seconds * 44100)) / 44100
        sound = (sum(np.sin(2 * np.pi * f * t) for f in dice.uniform(100, 2000, 3)) / 4).astype(np.float32)
        for at in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(sound[None, at : at + 1024].copy(), format="fltp", layout="mono")
            piece.rate, piece.pts, piece.time_base = 44100, at, Fraction(1, 44100)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def corpus(root: Path, clips: int, seconds: float, width: int, height: int, fps: int = 25) -> list[Path]:
    """VGGSound's layout."""
    lines = []
    for i in range(clips):
        write_clip(root / f"clip{i}_000000.mp4", seconds, width, height, fps, 2 * fps if i % 2 else int(seconds * fps), i)
        lines.append(f"clip{i},0,synthetic number {i},train\n")
    (root / "vggsound.csv").write_text("".join(lines))
    paths = sorted(root.glob("*.mp4"))
    with tarfile.open(root / "0000.tar", "w") as tar:
        for path in paths:
            words = f"A video of synthetic number {path.stem}.".encode()
            entry = tarfile.TarInfo(f"{path.stem}.txt")
            entry.size = len(words)
            tar.addfile(entry, io.BytesIO(words))
            tar.add(path, path.name)
    return paths


def ours(path: Path, rate: int = RATE) -> tuple[list[Any], torch.Tensor]:
    clip = load_clip(path, FRAMES, rate)
    assert clip.sound is not None
    return clip.frames, clip.sound


def plain(file: Path | bytes, rate: int = RATE) -> tuple[list[Any], torch.Tensor]:
    """PyAV without seeking: all frames decoded, 8 of them made pictures; the file opened again for the sound."""

    def source() -> Any:
        return io.BytesIO(file) if isinstance(file, bytes) else str(file)

    with av.open(source()) as container:
        frames = list(container.decode(video=0))
        pictures = [frames[int((i + 0.5) * len(frames) / FRAMES)].to_image() for i in range(FRAMES)]
    resampler = av.AudioResampler("fltp", "mono", rate)
    with av.open(source()) as container:
        pieces = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
        pieces += [p.to_ndarray()[0] for p in resampler.resample(None)]
    return pictures, torch.from_numpy(np.concatenate(pieces))


def torchcodec_reader() -> Callable[[Path], Any] | None:
    """TorchCodec on one thread, as ours: frames on the screen at the same times, and the sound."""
    try:
        from torchcodec.decoders import AudioDecoder, VideoDecoder
    except (ImportError, RuntimeError):  # not installed, or it does not find FFmpeg's libraries
        return None

    def read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        video = VideoDecoder(str(path), seek_mode="approximate", num_ffmpeg_threads=1)
        length = video.metadata.duration_seconds
        frames = video.get_frames_played_at([length * (i + 0.5) / FRAMES for i in range(FRAMES)])
        return frames.data, AudioDecoder(str(path), sample_rate=RATE, num_channels=1).get_all_samples().data[0]

    return read


def webdataset_reader(tar: Path, rate: int = RATE) -> Callable[[], Iterator[tuple[list[Any], torch.Tensor]]] | None:
    """The webdataset package over a tar, with PyAV as the decoder."""
    if importlib.util.find_spec("webdataset") is None:
        return None
    import webdataset

    return lambda: (plain(sample["mp4"], rate) for sample in webdataset.WebDataset(str(tar), shardshuffle=False))


Speeds = dict[str, dict[str, float]]


def alternate(contenders: dict[str, Callable[[], object]], count: int, repeats: int) -> Speeds:
    """Items of each `a second`, and `a core second`: of the processor's time over all threads, whatever else the machine does.

    The medians of runs that take turns.
    """
    return {
        name: {
            "a second": count / statistics.median(one.clock for one in calls),
            "a core second": count / statistics.median(one.core for one in calls),
        }
        for name, calls in turns(contenders, repeats).items()
    }


def decoding_speeds(paths: list[Path], repeats: int) -> Speeds:
    """One thread, then as many threads as there are cores."""
    workers = cores()

    def all_of(read: Callable[[Path], Any]) -> Callable[[], None]:
        def work() -> None:
            for path in paths:
                read(path)

        return work

    contenders: dict[str, Callable[[], object]] = {"ours": all_of(ours), "PyAV without seeking": all_of(plain)}
    read = torchcodec_reader()
    if read is not None:
        contenders["TorchCodec"] = all_of(read)
        pairs = zip(ours(paths[0])[0], read(paths[0])[0], strict=True)
        assert all(np.array_equal(np.asarray(a), b.permute(1, 2, 0).numpy()) for a, b in pairs)  # the same pictures
    stream = webdataset_reader(paths[0].parent / "0000.tar")
    if stream is not None:
        contenders["WebDataset reader"] = lambda: sum(1 for _ in stream())
    with decoders(workers) as pool:
        contenders[f"ours, {workers} threads"] = lambda: list(ordered(pool, ours, paths, 4 * workers))
        contenders[f"PyAV without seeking, {workers} threads"] = lambda: list(ordered(pool, plain, paths, 4 * workers))
        return alternate(contenders, len(paths), repeats)


def fbank_speeds(repeats: int, count: int = 20) -> Speeds:
    """10 s at 16 kHz, 80 bands."""
    sound = 2**15 * 0.1 * torch.randn(10 * RATE, generator=torch.Generator().manual_seed(0))
    contenders: dict[str, Callable[[], object]] = {"ours": lambda: [fbank(sound, RATE, 80) for _ in range(count)]}
    if importlib.util.find_spec("kaldi_native_fbank") is not None:
        import kaldi_native_fbank as knf

        options = knf.FbankOptions()
        options.frame_opts.dither, options.mel_opts.num_bins = 0, 80

        def port() -> np.ndarray:
            made = knf.OnlineFbank(options)
            made.accept_waveform(RATE, sound.numpy())
            made.input_finished()
            return np.stack([made.get_frame(i) for i in range(made.num_frames_ready)])

        assert np.allclose(port(), fbank(sound, RATE, 80).numpy(), atol=2e-3)
        contenders["kaldi-native-fbank"] = lambda: [port() for _ in range(count)]
    return alternate(contenders, count, repeats)


def extraction_speeds(root: Path, paths: list[Path], repeats: int) -> tuple[Speeds, dict[str, float]]:
    """Whole runs with the starter's encoders, loading them included in none; and seconds of one core for a clip's parts."""
    which = CorpusConfig("vggsound", root, captions=LABELS)
    config = ExtractConfig(which, ENCODERS, Path("unused"), shard_size=max(8, len(paths) // 2))
    encoders = open_encoders(config)
    rate = int(getattr(encoders["audio"], "rate"))  # noqa: B009

    def one_by_one(clips: Iterator[tuple[list[Any], torch.Tensor]]) -> None:
        with torch.inference_mode():
            for frames, sound in clips:
                encoders["video"](encoders["video"].prepare(frames))
                encoders["audio"](encoders["audio"].prepare([sound]))
                encoders["text"](encoders["text"].prepare(["A video of something."]))

    def whole(corpus: CorpusConfig) -> None:
        with tempfile.TemporaryDirectory() as out:
            extract(replace(config, corpus=corpus, out=Path(out)), progress=False)

    def encoders_alone() -> None:
        with torch.inference_mode():
            for at in range(0, len(inputs), 4):
                group = inputs[at : at + 4]
                encoders["video"](encoders["video"].collate([frames for frames, _ in group]))
                encoders["audio"](encoders["audio"].collate([sound for _, sound in group]))
                encoders["text"](encoders["text"].prepare(["A video of something."] * len(group)))

    inputs = [
        (encoders["video"].prepare(frames), encoders["audio"].prepare([sound]))
        for frames, sound in map(partial(ours, rate=rate), paths)
    ]
    contenders: dict[str, Callable[[], object]] = {
        "extract": lambda: whole(which),
        "extract, from the tar": lambda: whole(CorpusConfig("webdataset", root / "0000.tar")),
        "one by one, PyAV without seeking": lambda: one_by_one(plain(path, rate) for path in paths),
    }
    stream = webdataset_reader(root / "0000.tar", rate)
    if stream is not None:
        contenders["one by one, WebDataset reader"] = lambda: one_by_one(stream())
    return alternate(contenders | {"encoders alone": encoders_alone}, len(paths), repeats), {
        "decode and prepare": spent(lambda: [prepared(encoders, path, rate) for path in paths]).core / len(paths),
        "encode": spent(encoders_alone).core / len(paths),
        **writing(replace(config, out=root / "cache"), len(paths)),
    }


def prepared(encoders: dict[str, Any], path: Path, rate: int) -> None:
    frames, sound = ours(path, rate)
    encoders["video"].prepare(frames)
    encoders["audio"].prepare([sound])


def writing(config: ExtractConfig, clips: int) -> dict[str, float]:
    """Seconds and bytes of a clip in the cache."""
    extract(config, progress=False)
    cache = FeatureCache.open(config.out)
    features = {name: cache.features(name) for name in cache.modalities}
    held = {name: type(rows)(rows.values[:].clone(), rows.offsets) for name, rows in features.items()}
    shard = Shard(cache.ids, cache.labels, held)
    return {
        "write": spent(lambda: write_shard(config.out, 0, shard)).core / clips,
        "bytes": shard_path(config.out, 0).stat().st_size / clips,
    }


def main(
    clips: Annotated[int, typer.Option(min=2, help="How many are built.")] = 24,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each.")] = 10.0,
    width: int = 640,
    height: int = 360,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prints clips (or sounds) a second."""
    with tempfile.TemporaryDirectory() as folder:
        paths = corpus(Path(folder), clips, seconds, width, height)
        speeds, costs = extraction_speeds(Path(folder), paths, repeats)
        core = costs["decode and prepare"] + costs["encode"] + costs["write"]
        costs["core hours of 10 million clips"] = 1e7 * core / 3600
        costs["GB of 10 million clips"] = 1e7 * costs["bytes"] / 1e9
        result: dict[str, Any] = {
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "clips": clips,
            "seconds": seconds,
            "size": [width, height],
            "decode": decoding_speeds(paths, repeats),
            "fbank": fbank_speeds(repeats),
            "extraction": speeds,
            "costs": costs,
        }
    if as_json:
        json.dump(result, sys.stdout, indent=1)
        return
    for part in ("decode", "fbank", "extraction"):
        for name, speed in result[part].items():
            typer.echo(f"{part:<12}{name:<44}" + "".join(f"{value:>10.2f} {unit}" for unit, value in speed.items()))
    for name, value in costs.items():
        typer.echo(f"{'costs':<12}{name:<44}{value:>10.3f}")


if __name__ == "__main__":
    typer.run(main)
