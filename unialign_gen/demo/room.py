"""What every tab works with: the engine, the sandbox, the limits, and folders for what is handed out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engine import Engine
from .limits import Limits
from .sandbox import Sandbox

DRAWING = {"concurrency_limit": 1, "concurrency_id": "drawing"}  # of every event that draws: one at a time, in turn


@dataclass
class Room:
    engine: Engine
    sandbox: Sandbox
    limits: Limits
    cache: Path

    def folder(self) -> Path:
        """A new folder, with a name that nobody guesses, among the files that are removed when they are old."""
        place = self.cache / secrets.token_hex(16)
        place.mkdir(parents=True)
        return place


def session_of(request: Any) -> str:
    """Who asks: the browser tab, or the client."""
    return str(getattr(request, "session_hash", None) or "")
