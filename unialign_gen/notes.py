"""Notes: what was lost or guessed on the way from a prompt to a result, said to whoever asked.

    with collected() as notes:
        sound = load_sound("rain.wav", 16000)
    [str(n) for n in notes]                     # ["silent: rain.wav is silent"]

A note that nobody collects is a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass

_collecting: ContextVar[tuple[list[Note], ...]] = ContextVar("collecting", default=())


@dataclass(frozen=True)
class Note:
    """One thing to know of a result.

    Attributes:
        kind: one or two words a program can compare, such as `silent`, `cut`, `unknown words`.
        text: a sentence for a person, which names the input.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def note(kind: str, text: str) -> None:
    """Tells every open `collected` of a fact, once each; without one it becomes a `UserWarning`."""
    found = Note(kind, text)
    open_lists = _collecting.get()
    for notes in open_lists:
        if found not in notes:
            notes.append(found)
    if not open_lists:
        warnings.warn(text, stacklevel=3)


@contextmanager
def collected() -> Iterator[list[Note]]:
    """A list that fills with the notes of the block, also with those of blocks inside it. Threads start without it."""
    notes: list[Note] = []
    token = _collecting.set((*_collecting.get(), notes))
    try:
        yield notes
    finally:
        _collecting.reset(token)
