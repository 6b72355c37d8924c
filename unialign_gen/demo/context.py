"""What every tab works with: the engine, the decode_worker, the limits, and folders for what is handed out."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..loading import shipped_folder
from .decode_worker import DecodeWorker
from .engine import Engine
from .limits import Limits

DRAWING: dict[str, Any] = {"concurrency_id": "drawing"}  # of every event that draws: `Limits.together` of them at a time


@dataclass
class AppContext:
    engine: Engine
    decode_worker: DecodeWorker
    limits: Limits
    cache: Path

    def folder(self) -> Path:
        """A new folder, with a name that nobody guesses, among the files that are removed when they are old."""
        place = self.cache / secrets.token_hex(16)
        place.mkdir(parents=True)
        return place

    def sample(self, name: str | None) -> str | None:
        """A copy of a sample of the package among the page's files: the package's own folder is not served."""
        if name is None:
            return None
        copy = self.cache / "samples" / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shipped_folder() / "samples" / name, copy)
        return str(copy)


def session_of(request: Any) -> str:
    """Who asks: the browser tab, or the client."""
    return str(getattr(request, "session_hash", None) or "")
