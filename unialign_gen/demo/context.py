"""What every tab works with: the engine, the decode_worker, the limits, and folders for what is handed out."""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .decode_worker import DecodeWorker
from .engine import Engine
from .limits import Limits


@dataclass
class AppContext:
    engine: Engine
    decode_worker: DecodeWorker
    limits: Limits
    cache: Path
    keep: bool = False  # what is made, as long as the server runs

    def folder(self) -> Path:
        """A new folder, with a name that nobody guesses; those that were made so are removed when they are old."""
        for old in self.cache.glob("made-*"):
            with suppress(OSError):  # another request was faster
                if time.time() - old.stat().st_mtime > self.limits.cache_seconds:
                    shutil.rmtree(old)
        place = self.cache / f"{'kept' if self.keep else 'made'}-{secrets.token_hex(16)}"
        place.mkdir(parents=True)
        return place
