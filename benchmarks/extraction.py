"""Clips a second: decoding, filter banks and a whole extraction, side by side in one run with the obvious alternatives.

    python benchmarks/extraction.py --json
    python benchmarks/extraction.py --clips 48 --seconds 10 --width 640 --height 360

Builds its own clips (H.264 with a keyframe every 2 s in one half and one in all in the other, AAC) in a temporary folder. Every
figure is the median of the repeats, which alternate between the contenders. Nothing else should run meanwhile.

Decoding gives 8 frames as RGB pictures and the sound at 16 kHz. The alternative is PyAV without seeking: all frames decoded and
8 kept, then the file opened again for the sound. torchvision is measured where it still reads videos. Filter banks are
ours and kaldi-native-fbank's, 80 bands of 10 s, since it refuses 128. A whole extraction is the starter's encoders;
the alternative decodes that way, one clip after the other, and runs the encoders on each.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer

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
    return sorted(root.glob("*.mp4"))


def ours(path: Path, rate: int = RATE) -> tuple[list[Any], torch.Tensor]:
    clip = load_clip(path, FRAMES, rate)
    assert clip.sound is not None
    return clip.frames, clip.sound


def ours_as_arrays(path: Path) -> int:
    """What a worker process would send back; the return stands for a queue in shared memory and costs nothing."""
    frames, sound = ours(path)
    return sum(np.asarray(f).nbytes for f in frames) + sound.nbytes


def ours_pickled(path: Path) -> tuple[list[Any], Any]:
    """What a worker process sends back through a pipe, as a pool of processes does."""
    frames, sound = ours(path)
    return [np.asarray(f) for f in frames], sound.numpy()


def plain(path: Path, rate: int = RATE) -> tuple[list[Any], torch.Tensor]:
    """PyAV without seeking: all frames decoded, 8 of them made pictures; the file opened again for the sound."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        pictures = [frames[int((i + 0.5) * len(frames) / FRAMES)].to_image() for i in range(FRAMES)]
    resampler = av.AudioResampler("fltp", "mono", rate)
    with av.open(str(path)) as container:
        pieces = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
        pieces += [p.to_ndarray()[0] for p in resampler.resample(None)]
    return pictures, torch.from_numpy(np.concatenate(pieces))


def torchvision_reader() -> Callable[[Path], Any] | None:
    """torchvision's reader of whole videos, which its newer versions no longer have."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    import torchvision.io

    read = getattr(torchvision.io, "read_video", None)
    return None if read is None else lambda path: read(str(path), pts_unit="sec")


def alternate(contenders: dict[str, Callable[[], object]], count: int, repeats: int) -> dict[str, float]:
    """Items a second of each, the median of runs that take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: count / statistics.median(spent) for name, spent in times.items()}


def decoding_speeds(paths: list[Path], repeats: int) -> dict[str, float]:
    """One thread, then as many threads and processes as there are cores."""
    workers = cores()

    def all_of(read: Callable[[Path], Any]) -> Callable[[], None]:
        def work() -> None:
            for path in paths:
                read(path)

        return work

    contenders: dict[str, Callable[[], object]] = {"ours": all_of(ours), "PyAV without seeking": all_of(plain)}
    read = torchvision_reader()
    if read is not None:
        contenders["torchvision"] = all_of(read)
    with decoders(workers) as pool, ProcessPoolExecutor(workers) as processes:
        list(processes.map(ours_as_arrays, paths[:workers]))
        contenders[f"ours, {workers} threads"] = lambda: list(ordered(pool, ours, paths, 4 * workers))
        contenders[f"ours, {workers} processes"] = lambda: list(processes.map(ours_pickled, paths))
        contenders[f"PyAV without seeking, {workers} threads"] = lambda: list(ordered(pool, plain, paths, 4 * workers))
        return alternate(contenders, len(paths), repeats)


def fbank_speeds(repeats: int, count: int = 20) -> dict[str, float]:
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


def extraction_speeds(root: Path, paths: list[Path], repeats: int) -> dict[str, float]:
    """Whole runs with the starter's encoders, loading them included in neither."""
    which = CorpusConfig("vggsound", root, captions=LABELS)
    config = ExtractConfig(which, ENCODERS, Path("unused"), shard_size=max(8, len(paths) // 2))
    encoders = open_encoders(config)
    rate = int(getattr(encoders["audio"], "rate"))  # noqa: B009

    def one_by_one() -> None:
        with torch.inference_mode():
            for path in paths:
                frames, sound = plain(path, rate)
                encoders["video"](encoders["video"].prepare(frames))
                encoders["audio"](encoders["audio"].prepare([sound]))
                encoders["text"](encoders["text"].prepare(["A video of something."]))

    def whole() -> None:
        with tempfile.TemporaryDirectory() as out:
            config.out = Path(out)
            extract(config, progress=False)

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
    contenders = {"extract": whole, "one by one, PyAV without seeking": one_by_one, "encoders alone": encoders_alone}
    return alternate(contenders, len(paths), repeats)


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
        result = {
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "clips": clips,
            "seconds": seconds,
            "size": [width, height],
            "decode": decoding_speeds(paths, repeats),
            "fbank": fbank_speeds(repeats),
            "extraction": extraction_speeds(Path(folder), paths, repeats),
        }
    speeds = {k: result[k] for k in ("decode", "extraction")}
    base = "PyAV without seeking"
    result["ratios"] = {
        "decode, ours / PyAV without seeking": speeds["decode"]["ours"] / speeds["decode"][base],
        "extraction, ours / one by one": speeds["extraction"]["extract"] / speeds["extraction"][f"one by one, {base}"],
        "extraction / encoders alone": speeds["extraction"]["extract"] / speeds["extraction"]["encoders alone"],
    }
    if as_json:
        json.dump(result, sys.stdout, indent=1)
        return
    for part in ("decode", "fbank", "extraction", "ratios"):
        for name, value in result[part].items():
            typer.echo(f"{part:<12}{name:<44}{value:>9.2f}")


if __name__ == "__main__":
    typer.run(main)
