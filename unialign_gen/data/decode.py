"""One sample: its files opened and decoded once, prepared for the encoders. Runs in worker threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError
from ..media import Clip, load_clip, load_image
from ..notes import collected
from .corpus import Sample
from .storage import File, in_memory

if TYPE_CHECKING:
    from torch import Tensor

    from ..encoders.base import Encoder

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Prepared:
    """What encoders take of a sample.

    Attributes:
        inputs: by modality, a batch of the encoder's own form: 1 sound, 1 picture, `frames` frames.
        problems: rows of the report: `id`, `modality`, `path`, `kind`, `reason`. Of the kinds `broken` and `absent` nothing
            is in the cache; `noted` says what is wrong with a file that was used, and `note` is the kind of that note.
    """

    sample: Sample
    inputs: dict[str, Tensor] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)

    def blame(self, modality: str, kind: str, reason: str, **more: str) -> None:
        path = str(self.sample.file(modality) or "")
        line = " ".join(reason.split())
        self.problems.append({"id": self.sample.id, "modality": modality, "path": path, "kind": kind, "reason": line, **more})


def prepare(sample: Sample, encoders: Mapping[str, Encoder], frames: int, patience: float) -> Prepared:
    """Decodes what the encoders need of a sample, each file once. Nothing that a file does raises: it is a problem."""
    out = Prepared(sample)
    downmix = encoders["audio"].downmix if "audio" in encoders else "mean"
    clips: dict[File, Clip | str] = {}  # a file that cannot be opened has a reason in place of a clip
    for path in dict.fromkeys(sample.file(m) for m in ("video", "audio") if m in encoders):
        if path is None:
            continue
        rate = getattr(encoders["audio"], "rate", None) if "audio" in encoders and path == sample.audio else None
        framed = "video" in encoders and not encoders["video"].whole_clips
        count = frames if framed and path == sample.video else 0
        if not count and rate is None:
            continue
        try:
            clips[path] = load_clip(in_memory(path), count, rate, patience, downmix)
        except Exception as error:
            clips[path] = described(error)
    for modality, encoder in encoders.items():
        path = sample.file(modality)
        if modality == "text" or path is None:
            continue
        try:
            with collected() as notes:  # here, since a thread has no other list
                given = inputs(modality, path, clips, out, encoder.whole_clips)
                if given:
                    out.inputs[modality] = encoder.prepare(given)
            for found in notes:
                out.blame(modality, "noted", found.text, note=found.kind)
        except Exception as error:
            out.blame(modality, "broken", described(error))
    return out


def inputs(modality: str, path: File, clips: Mapping[File, Clip | str], out: Prepared, whole: bool) -> list[Any]:
    """What an encoder's `prepare` takes of a file, the file itself where it reads `whole` clips; nothing where the file has no
    such stream, which is then a problem.
    """
    if modality == "image":
        return [load_image(path)]
    if whole or modality not in ("audio", "video"):
        # its encoder opens the file, or reads what is not on the disk
        return [Path(path) if isinstance(path, str) else in_memory(path)]
    clip = clips[path]
    if isinstance(clip, str):
        raise InputError(clip)
    if modality in clip.problems:
        raise InputError(clip.problems[modality])
    while clip.notes:  # once, though both modalities are of the same file
        found = clip.notes.pop(0)
        out.blame(modality, "noted", found.text, note=found.kind)
    if modality == "video":
        return clip.frames
    if clip.sound is None:
        out.blame(modality, "absent", "has no sound")
        return []
    return [clip.sound]


def described(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


@contextmanager
def decoders(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for decoding: PyAV, Pillow and torch let go of the interpreter, and nothing is copied between processes.

    Each computes on one core, whatever torch is set to elsewhere.
    """
    import torch

    before = torch.get_num_threads()
    together = Barrier(workers)

    def start() -> None:
        torch.get_num_threads()  # torch sets a thread up when it first asks, which must not come after
        torch.set_num_threads(1)
        together.wait()

    with ThreadPoolExecutor(workers, "decode") as pool:
        for begun in [pool.submit(start) for _ in range(workers)]:
            begun.result()
        torch.set_num_threads(before)  # what was set there holds for OpenMP in those threads, for MKL everywhere
        yield pool


def ordered(pool: ThreadPoolExecutor, run: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Results in the order of the items, computed by the pool; at most `ahead` of them wait, so memory is bounded."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(run, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
