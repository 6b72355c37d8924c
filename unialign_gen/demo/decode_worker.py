"""Uploads are decoded in processes of their own: a file that hangs, crashes or bloats its decoder costs one message."""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from ..media import Clip, Sound, check_file
from ..notes import note
from ..request import Prompt
from .limits import Limits

CODE = "from unialign_gen.demo.decode import main; main()"
START_SECONDS = 300.0
FILES = 500  # that one process decodes before a fresh one takes its place


@dataclass
class Media:
    """A decoded upload: `value` as a pipeline takes it. `settings` is the text that this program left in a picture."""

    kind: str
    name: str
    value: Image.Image | Sound | Clip
    seconds: float | None = None
    settings: str | None = None

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.kind, self.value, label=self.name)


class Worker:
    """A process that decodes, see `decode.main`.

    Raises:
        ConnectionError, TimeoutError: it does not start, or not in time.
    """

    def __init__(self, limits: Limits):
        paths = os.pathsep.join(p for p in sys.path if p)
        self.files = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, json.dumps(asdict(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        )
        self.into, self.out = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        with self.killed_after(START_SECONDS):
            json.loads(self.out.readline())

    @contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        end, clock = time.monotonic() + seconds, threading.Timer(seconds, self.process.kill)
        clock.start()
        try:
            yield
        except (OSError, ValueError) as error:
            raise (ConnectionError if time.monotonic() < end else TimeoutError) from error
        finally:
            clock.cancel()

    def ask(self, kind: str, path: Path, rate: int, seconds: float) -> tuple[dict[str, Any], list[np.ndarray]]:
        """A header and its arrays; a `ConnectionError` if the process ends, a `TimeoutError` after so many seconds."""
        self.files += 1
        data = path.read_bytes()
        with self.killed_after(seconds):
            self.into.write(json.dumps({"kind": kind, "name": path.name, "size": len(data), "rate": rate}).encode() + b"\n")
            self.into.write(data)
            self.into.flush()
            header, arrays = json.loads(self.out.readline()), []
            for shape, name in header.get("arrays", []):
                raw = self.out.read(math.prod(shape) * np.dtype(name).itemsize)
                arrays.append(np.frombuffer(bytearray(raw), np.dtype(name)).reshape(shape))
        return header, arrays

    def end(self) -> None:
        with suppress(OSError), self.process:  # what was still to be written has no reader any more
            self.process.kill()


class DecodeWorker:
    """Decodes files, `limits.decoders` at a time."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.places: queue.Queue[Worker | None] = queue.Queue()  # of idle processes; None is one to be started
        for _ in range(limits.decoders):
            self.places.put(None)

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """A process of one's own; one that died, or has opened `FILES` files, leaves its place to a fresh one."""
        found, kept = self.places.get(), None
        try:
            found = found or Worker(self.limits)
            yield found
            kept = found if found.files < FILES else None
        finally:
            if found is not None and kept is None:
                found.end()
            self.places.put(kept)

    def warm(self) -> None:
        """Has the processes ready, which takes seconds; where that fails, the first file will say so."""
        for _ in range(self.limits.decoders):  # the next place is the one that was not used for longest
            with suppress(OSError, ValueError), self.worker():
                pass

    def decode(self, kind: str, path: str, rate: int = 44100) -> Media:
        """An upload as `image`, `audio`, `video`, `any` of them, or `track`, stereo for a film. Its notes are noted here.

        Sound comes at `rate` Hz. A process that dies is replaced, and the file tried once more.

        Raises:
            InputError: it cannot be read, or not within the limits.
        """
        name = Path(path).name
        if not os.path.exists(path):
            raise InputError(f"{name} is no longer on the server, which keeps files for a while only: add it again")
        try:
            file = check_file(path)
        except InputError as error:
            raise InputError(str(error).replace(path, name)) from error
        for last in (False, True):
            try:
                with self.worker() as worker:
                    header, arrays = worker.ask(kind, file, rate, self.limits.decode_seconds)
                break
            except TimeoutError as error:
                raise InputError(f"{name} takes longer to decode than the {self.limits.decode_seconds:g} s it may") from error
            except ConnectionError as error:
                if last:
                    raise InputError(f"{name} cannot be decoded: its decoder broke down twice") from error
        for found in header.get("notes", []):
            note(found["kind"], found["text"])
        if "error" in header:
            raise InputError(str(header["error"]))
        value = assemble(header, arrays, rate, name)
        return Media(header["kind"], name, value, header.get("seconds"), header.get("settings"))

    def close(self) -> None:
        for _ in range(self.limits.decoders):
            with suppress(queue.Empty):
                if worker := self.places.get_nowait():
                    worker.end()
                self.places.put(None)


def assemble(header: dict[str, Any], arrays: list[np.ndarray], rate: int, name: str) -> Image.Image | Sound | Clip:
    if header["kind"] == "image":
        return Image.fromarray(arrays[0])
    if header["kind"] == "audio":
        return Sound(torch.from_numpy(arrays[0]), rate, name)
    sound = torch.from_numpy(arrays.pop()) if header["sound"] else None
    return Clip([Image.fromarray(f) for f in arrays], sound, name=name)
