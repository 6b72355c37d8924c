"""The checkpoints of this disk, and the jobs that draw with them, each in a thread of its own; one thread computes for all."""

from __future__ import annotations

import queue
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ..concepts import ConceptTable
from ..errors import InputError
from ..loading import DECODERS, describe, find, own_prior, own_settings, quiet
from ..notes import Note
from ..serving import BatchingEngine, SharedPipeline
from .decode_worker import DecodeWorker
from .limits import Limits

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A checkpoint that is on this disk, with one of its decoders, and the numbers that it draws with.

    `prior` is the strength, None where there is no prior.
    """

    label: str
    checkpoint: str
    decoder: str | None
    steps: int
    guidance: float
    best_of: int = 1
    prior: float | None = None

    @classmethod
    def of(cls, label: str, checkpoint: str, decoder: str | None = None) -> Model:
        return cls(label, checkpoint, decoder, *own_settings(checkpoint, decoder), own_prior(checkpoint))


def on_disk(extra: str | None = None) -> list[Model]:
    """What can be drawn with, without a download; `extra` comes first: one of these, or a folder."""
    found = []
    for row in describe():
        if not row["on_disk"] or row.get("moving"):  # the page shows pictures
            continue
        for decoder in row.get("decoders", [None]):
            label = row["name"] if decoder in (None, DECODERS[0]) else f"{row['name']}, {decoder} decoder"
            found.append(Model.of(label, row["name"], None if decoder == DECODERS[0] else decoder))
    if extra is not None and extra not in {m.checkpoint for m in found}:
        name = Path(extra).name
        found.append(Model.of(f"{name}, from a folder" if name in {m.label for m in found} else name, extra))
    return sorted(found, key=lambda m: m.checkpoint != extra)


@dataclass
class Progress:
    """How far a job is, and what can be seen of it."""

    done: int
    total: int
    what: str
    pictures: list[Image.Image] = field(default_factory=list)


class Job:
    """One request's work under way."""

    def __init__(self, limits: Limits, session: str):
        self.events: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.limits, self.session = limits, session
        self.notes: list[Note] = []
        self.deadline = float("inf")

    def check(self) -> None:
        """Raises `CancelledError` once the job is stopped, `InputError` when it has taken too long."""
        if self.stopped.is_set():
            raise CancelledError
        if time.monotonic() > self.deadline:
            raise InputError(f"this took longer than {self.limits.job_seconds:.0f} s and was stopped: ask for less")

    def report(self, progress: Progress) -> None:
        self.check()
        self.events.put(progress)


class Engine:
    """The checkpoints of this disk, loaded when first asked for, and the jobs that draw with them.

    Args:
        device, dtype: for every pipeline, as in `unialign_gen.load`.
    """

    def __init__(self, limits: Limits, device: str = "cpu", dtype: Any = None, extra: str | None = None):
        self.limits = limits
        self.options = {"device": device, "dtype": dtype}
        self.batching = BatchingEngine(limits.together)
        self.workers = ThreadPoolExecutor(limits.together, thread_name_prefix="job")
        self.pipelines: OrderedDict[str, Any] = OrderedDict()
        self.models = {m.label: m for m in on_disk(extra)}
        self.jobs: set[Job] = set()
        self.rates: dict[str, int] = {}

    def model(self, label: Any) -> Model:
        """By its label; an `InputError` if there is none of this name here."""
        if not isinstance(label, str) or label not in self.models:
            raise InputError(f"model must be one of {', '.join(self.models)}")
        return self.models[label]

    def pipeline(self, label: str, check: Callable[[], None] = lambda: None) -> SharedPipeline:
        """A model's pipeline, for any thread: several jobs' drawings are one batch. `check` as in `SharedPipeline`."""
        return SharedPipeline(self.batching.call(lambda: self.loaded(label)), self.batching, check)

    def loaded(self, label: str) -> Any:
        """A model's own pipeline, on the thread that computes. The starter's decoders share their encoders."""
        from .. import load

        model = self.model(label)
        if label not in self.pipelines:
            quiet()
            while len(self.pipelines) >= self.limits.loaded:
                self.pipelines.popitem(last=False)
            pipeline = load(model.checkpoint, decoder=model.decoder, **self.options)
            pipeline.set_progress_bar_config(disable=True)
            for other, loaded in self.pipelines.items():
                if self.models[other].checkpoint == model.checkpoint:
                    pipeline.register_modules(aligner=loaded.aligner)
            self.pipelines[label] = pipeline
        self.pipelines.move_to_end(label)
        return self.pipelines[label]

    def health(self) -> dict[str, Any]:
        """For `/health`: `ok` once a checkpoint is loaded and for as long as there is a thread that computes."""
        state = "ok" if self.pipelines and self.batching.alive else "loading" if self.batching.alive else "stopped"
        counts = {"waiting": self.batching.waiting, "drawn": self.batching.drawn, "batches": self.batching.batches}
        return {"status": state, "jobs": len(self.jobs), **counts}

    def concepts(self, label: str) -> ConceptTable | None:
        """The model's named concepts, where it has a table."""
        with suppress(InputError):
            return ConceptTable.from_checkpoint(find(self.model(label).checkpoint))
        return None

    def rate(self, label: str) -> int:
        """The sampling rate in Hz of the model's sound encoder; 44.1 kHz where it has none."""
        with suppress(InputError):
            if label not in self.rates:
                self.rates[label] = int(self.pipeline(label).aligner.sound_rate)
        return self.rates.get(label, 44100)

    def run(self, work: Callable[[Job], T], session: str = "") -> Iterator[Progress | T]:
        """Does `work` in a thread: its reports as they come, its result last.

        Closing the iterator stops the job, and so does `cancel(session)`.

        Raises:
            CancelledError: it was stopped.
            InputError: as the work raised it.
        """
        job = Job(self.limits, session)
        self.jobs.add(job)

        def do() -> T:
            job.deadline = time.monotonic() + self.limits.job_seconds
            job.check()
            return work(job)

        done = self.workers.submit(do)
        done.add_done_callback(lambda _: job.events.put(None))
        try:
            yield from iter(job.events.get, None)  # type: ignore[misc]
        finally:
            job.stopped.set()
            self.jobs.discard(job)
        yield done.result()

    def cancel(self, session: str) -> int:
        """Stops the session's jobs; how many there were."""
        found = [job for job in list(self.jobs) if job.session == session]
        for job in found:
            job.stopped.set()
        return len(found)

    def close(self) -> None:
        for job in list(self.jobs):
            job.stopped.set()
        self.workers.shutdown(wait=False, cancel_futures=True)
        self.batching.close()
        self.workers.shutdown()


@dataclass
class AppContext:
    """What every action works with: the engine, the decode_worker, the limits, and folders for what is handed out."""

    engine: Engine
    decode_worker: DecodeWorker
    limits: Limits
    cache: Path

    def folder(self) -> Path:
        """A new folder, with a name that nobody guesses; those that were made so are removed when they are old."""
        for old in self.cache.glob("made-*"):
            with suppress(OSError):  # another request was faster
                if time.time() - old.stat().st_mtime > self.limits.cache_seconds:
                    shutil.rmtree(old)
        place = self.cache / f"made-{secrets.token_hex(16)}"
        place.mkdir(parents=True)
        return place
