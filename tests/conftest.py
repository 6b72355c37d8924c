"""Fixtures: the shipped starter, loaded once, and small media files made on the spot."""

from __future__ import annotations

import gc
import math
import multiprocessing.util
import os
import shutil
import tempfile
import wave
from pathlib import Path

import numpy as np
import processes
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
CORES = len(os.sched_getaffinity(0))
MEMORY = Path("/dev/shm")  # temporary files lie in it where it has room: a disk takes a tenth of the tests' time
if "TMPDIR" not in os.environ and MEMORY.is_dir():
    held = os.statvfs(MEMORY)
    if held.f_bavail * held.f_frsize > 8e9 and not held.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="unialign_gen-", dir=MEMORY)
        # after what multiprocessing itself clears away, which it does at -100
        multiprocessing.util.Finalize(None, shutil.rmtree, [tempfile.tempdir, True], exitpriority=-200)
gc.set_threshold(20_000, 20, 50)  # with all that the tests import, Python's collector takes a tenth of their time at its own


def pytest_configure(config):
    """Processes beside each other share the cores; more threads, theirs or of what they start, would wait for one another."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if beside := getattr(config.option, "numprocesses", None):
            os.environ.setdefault(name, str(max(1, CORES // beside)))
    if hasattr(config, "workerinput") or not beside:  # the process that only hands tests out starts without torch, in no time
        import torch

        torch.set_num_threads(max(1, CORES // WORKERS))


def pytest_collection_modifyitems(items):
    """The file that takes long and would come last comes first, so that no process ends long before the other."""
    items.sort(key=lambda item: item.path.name != "test_wheel.py")


def pytest_unconfigure(config):
    processes.end()
    if not hasattr(config, "workerinput"):  # workers of pytest-xdist wait for each other
        processes.exit_within(120)


def pytest_assertrepr_compare(op, left, right):
    """Of long bytes and lists only that they differ: pytest's own, line by line, takes minutes and ends the test."""
    if op == "==" and type(left) is type(right) and isinstance(left, bytes | list) and max(len(left), len(right)) > 10_000:
        apart = sum(a != b for a, b in zip(left, right, strict=False))
        return [f"{len(left)} and {len(right)} values, of which {apart} differ"]
    return None


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    yield
    processes.end()


@pytest.fixture(scope="session")
def starter():
    import unialign_gen

    pipeline = unialign_gen.load("starter")
    pipeline.set_progress_bar_config(disable=True)
    gc.freeze()
    return pipeline


@pytest.fixture
def enlarging(starter):
    """The starter with an upscaler that only repeats pixels."""
    import torch

    from unialign_gen.pipelines import Upscaler

    upscaler = Upscaler(scale=8, width=4, depth=1)
    with torch.no_grad():
        upscaler.body[-1].weight.zero_()
        upscaler.body[-1].bias.zero_()
    before = starter.upscaler
    starter.register_modules(upscaler=upscaler)
    yield starter
    starter.register_modules(upscaler=before)


def said(stderr: str) -> list[str]:
    """Lines that a command wrote to stderr, without those that say what it is about to do."""
    return [line for line in stderr.strip().splitlines() if not line.endswith(" ...")]


def tone(seconds: float, rate: int, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    """Samples (n, channels) in [-0.5, 0.5]."""
    t = np.arange(int(seconds * rate)) / rate
    return np.repeat(0.5 * np.sin(2 * math.pi * hertz * t)[:, None], channels, axis=1)


def write_wav(path: Path, samples: np.ndarray, rate: int, width: int = 2) -> Path:
    """PCM of 1, 2, 3 or 4 bytes a sample."""
    scale = 2 ** (8 * width - 1) - 1
    if width == 1:
        raw = (samples * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(samples * scale).astype("<i4")
        raw = whole.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as f:
        f.setnchannels(samples.shape[1])
        f.setsampwidth(width)
        f.setframerate(rate)
        f.writeframes(raw)
    return path


def write_video(path: Path, seconds: float = 2.0, fps: int = 8, sound: bool = True) -> Path:
    """Frames go from black to white, so that a frame's brightness tells its time; a tone if asked for."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=fps)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        count = int(seconds * fps)
        for i in range(count):
            pixels = np.full((64, 64, 3), round(255 * i / max(1, count - 1)), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            samples = tone(seconds, 44100).astype(np.float32).T
            for at in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1024]), "fltp", "mono")
                frame.rate, frame.pts = 44100, at
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="session")
def served(starter):
    """The page, served for all tests that ask it; after the fixture's pipeline, since loading two at a time is not safe."""
    from unialign_gen.demo.server import start

    page = start()
    page.context.decode_worker.warm()
    yield page
    page.close()
