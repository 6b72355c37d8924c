"""Uploads are decoded in a process of their own: a file that hangs, crashes or bloats its decoder costs one message."""

from __future__ import annotations

import json
import multiprocessing
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from ..media import Clip, Sound
from .limits import Limits

MODULE = "unialign_gen.demo.decode"
SLACK = 10.0  # seconds for a process to start, beyond the time for decoding


@dataclass
class Media:
    """A decoded upload: `value` as a pipeline takes it; stereo int16 (n, 2) at `decode.FILM_RATE` Hz for a track."""

    kind: str
    name: str
    value: Image.Image | Sound | Clip | np.ndarray
    seconds: float | None = None


class Sandbox:
    """Decodes files, `limits.decoders` at a time; each in a fresh process that is forked from a prepared one."""

    def __init__(self, limits: Limits):
        self.limits = limits
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload([MODULE])
        self.places = threading.BoundedSemaphore(limits.decoders)

    def warm(self) -> None:
        """Starts the process that the others are forked from, which takes seconds; any failure will show at the first file."""
        child = self.context.Process(target=threading.active_count, daemon=True)
        child.start()
        child.join(60)

    def decode(self, kind: str, path: str, rate: int = 44100) -> Media:
        """An upload as `image`, `audio`, `video`, `any` of them, or `track`; sound at `rate` Hz.

        Raises:
            InputError: it cannot be read, or not within the limits.
        """
        from . import decode

        name = Path(path).name
        with self.places:
            ours, theirs = self.context.Pipe(duplex=False)
            child = self.context.Process(target=decode.work, args=(theirs, kind, path, rate, self.limits), daemon=True)
            child.start()
            theirs.close()
            clock = threading.Timer(self.limits.decode_seconds + SLACK, child.kill)
            clock.start()
            try:
                header, arrays = receive(ours)
            except (EOFError, OSError, ValueError) as error:
                raise InputError(f"{name} cannot be decoded within this page's limits of time and memory") from error
            finally:
                clock.cancel()
                ours.close()
                child.kill()
                child.join()
                child.close()
        if "error" in header:
            raise InputError(str(header["error"]))
        return Media(header["kind"], name, assemble(header, arrays, rate), header.get("seconds"))


def receive(connection: Connection) -> tuple[dict[str, Any], list[np.ndarray]]:
    header = json.loads(connection.recv_bytes())
    arrays = []
    for shape, dtype in header.get("arrays", []):
        arrays.append(np.frombuffer(bytearray(connection.recv_bytes()), np.dtype(dtype)).reshape(shape))
    return header, arrays


def assemble(header: dict[str, Any], arrays: list[np.ndarray], rate: int) -> Image.Image | Sound | Clip | np.ndarray:
    if header["kind"] == "image":
        return Image.fromarray(arrays[0])
    if header["kind"] == "audio":
        return Sound(torch.from_numpy(arrays[0]), rate)
    if header["kind"] == "track":
        return arrays[0]
    frames = arrays[:-1] if header["sound"] else arrays
    return Clip([Image.fromarray(f) for f in frames], torch.from_numpy(arrays[-1]) if header["sound"] else None)
