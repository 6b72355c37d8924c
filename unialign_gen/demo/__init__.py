"""The page: prompts of every kind in a browser, and the same actions as named endpoints."""

from __future__ import annotations

from typing import Any

__all__ = ["launch"]


def launch(**options: Any) -> None:
    """Serves the page until it is interrupted; see `server.serve`."""
    from .server import serve

    serve(**options)
