"""A folder of media files, on the disk or in a store, listed once, so that finding a clip's file costs no look there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .storage import File, file_at, on_disk, place, reached

VIDEO = frozenset(["mp4", "mkv", "webm", "avi", "mov", "m4v", "mpg", "mpeg", "wmv", "flv", "3gp", "ogv", "ts"])
AUDIO = frozenset(["wav", "flac", "mp3", "m4a", "aac", "ogg", "opus", "wma", "aiff", "aif"])
PARTIAL = frozenset(["part", "ytdl", "tmp", "crdownload"])
CLIP_SECONDS = 10


class MediaFolder:
    """Video and sound files below `root`, by name without suffix; of several alike the one with the shortest path.

    Raises:
        InputError: no such folder.
    """

    def __init__(self, root: str | Path):
        self.root = place(root)
        self.root = self.root.resolve() if on_disk(self.root) else self.root
        with reached(root):
            if not self.root.is_dir():
                raise InputError(f"no such folder of media files: {root}")
        self.videos: dict[str, str] = {}
        self.sounds: dict[str, str] = {}
        self.partial: set[str] = set()
        for path in files_below(self.root):
            stem, _, suffix = os.path.basename(path).rpartition(".")
            suffix = suffix.lower()
            if suffix in PARTIAL:
                self.partial.add(stem.partition(".")[0])
            for kinds, table in ((VIDEO, self.videos), (AUDIO, self.sounds)):
                if suffix in kinds and (stem not in table or (len(path), path) < (len(table[stem]), table[stem])):
                    table[stem] = path

    def find(self, names: Iterable[str]) -> tuple[File | None, File | None]:
        """(video, sound) under the first of the names that has each. A video's sound track stands in for a sound file."""
        video = next((self.videos[n] for n in names if n in self.videos), None)
        sound = next((self.sounds[n] for n in names if n in self.sounds), None)
        found = {path: file_at(path) for path in (video, sound or video) if path}
        return found.get(video or ""), found.get(sound or video or "")

    def reason(self, names: Iterable[str]) -> str:
        """Why `find` found nothing."""
        first, *_ = names = list(names)
        if any(n in self.partial for n in names):
            return f"only a part of {first} was downloaded"
        return f"no file named {first} below {self.root}"


def files_below(root: Path) -> Iterator[str]:
    """The paths or URLs of all files at any depth."""
    if on_disk(root):  # links to files are followed, those to folders not, so that no ring of links is walked for ever
        found = os.walk(root, onerror=refuse)
        return (os.path.join(folder, name) for folder, _, names in found for name in names)
    store: Any = root
    with reached(root):
        return (f"{store.protocol}://{name.lstrip('/')}" for name in store.fs.find(store.path))


def refuse(error: OSError) -> None:
    raise error


def clip_names(youtube: str, start: float) -> list[str]:
    """The names, without suffix, under which a ten second clip of YouTube is kept by one or another download script."""
    whole, ms = int(start), round(1000 * start)
    end = ms + 1000 * CLIP_SECONDS
    return [
        f"{youtube}_{whole:06d}",
        f"{youtube}_{ms}_{end}",
        f"{youtube}_{whole}_{whole + CLIP_SECONDS}",
        f"{youtube}_{start:.3f}_{start + CLIP_SECONDS:.3f}",
        f"{youtube}_{whole}",
        youtube,
        f"Y{youtube}",
    ]


def without_suffix(name: str) -> str:
    """A name without the suffix of a media file, if it has one; dots elsewhere are left alone."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in VIDEO | AUDIO else name
