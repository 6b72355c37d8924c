"""The starter's decoders by name."""

from __future__ import annotations

from enum import StrEnum


class Which(StrEnum):
    kandinsky = "kandinsky"
    unclip = "stable-unclip"

    @property
    def folder(self) -> str:
        """Where the recipe keeps it, below the data folder."""
        return "decoder" if self is Which.kandinsky else "unclip"
