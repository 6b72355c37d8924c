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


@contextmanager
def muted() -> Iterator[None]:
    """What the block notes is told to nobody: of inputs that nobody gave, say."""
    token = _collecting.set(([],))
    try:
        yield
    finally:
        _collecting.reset(token)


# Every kind that reading a prompt gives, with its sentence, so that the words are the same wherever they are shown.
SENTENCES = {
    "silent": "{name} is silent",
    "too short": "{name} is {seconds:.3g} s long: that is too short to mean much",
    "part heard": "of the {length:.1f} s of {name} {heard:.1f} s are heard, at its start, middle and end",
    "loud channel": "the channels of {name} cancel out when mixed: the loudest, {channel} of {channels}, is heard alone",
    "dropped samples": "samples of {name} that are not finite or absurdly loud are taken as 0 ({count} of them)",
    "dropped pixels": "pixels of {name} that are not finite are shown black, or white where infinite ({count} of them)",
    "clipped": "{share:.0%} of the samples of {name} are above full scale: they are clipped",
    "track": "{name} has {count} tracks of {what}: number {track}, counted from 0, is used",
    "skipped track": "{name}: its first track of {what} has no decoder here ({codec}): number {track}, counted from 0, is used",
    "cut": "{name} is cut off: {there} of {stated} are there",
    "damaged": "{name} is damaged: packets that cannot be decoded are left out ({count} of them)",
    "no sound": "{reason}; the pictures of the video are used alone",
    "colour profile": "the colour profile of {name} cannot be used: its colours are taken as sRGB",
    "first picture": "{name} has {count} pictures: the first is used; given as a video, all are",
    "blank": "{name} is of one colour all over: there is nothing to see",
    "still": "{name} is one picture, not a moving one",
    "unknown words": "the text encoder has no word for {words}: what that means may be lost",
    "read as": "{said} is read as {meant}, which this checkpoint was taught",
    "weights in words": "{what} is read as words: weights go with whole texts, not with words of one",
    "whole numbers": "{name} holds small whole numbers: they are taken as samples of 16 bits",
    "one point": "{name} names several things: here they are one point, the mean of them",
    "not understood": "{name} is like nothing that this checkpoint knows: the nearest it knows are {guesses}",
    "drawn as": "{name} is drawn as the nearest that this checkpoint knows: {guess}",
    "left out": "of {name} {what} may be missing: it is drawn as {thing}",
    "colour": "hardly anything of {name} is drawn {colour}{times}",
    "distilled": "this decoder was distilled to draw in {own} steps: in {steps} its pictures are worse",
    "truncated": "the text is longer than the encoder's {limit} tokens: not read is {rest}",
    "other noise": "settings hold no {what}: they draw from other noise",
    "settings not kept": "{name} has no settings inside: {reason}",
}


def tell(kind: str, **facts: object) -> None:
    """A note of one of the kinds in `SENTENCES`."""
    note(kind, SENTENCES[kind].format(**facts))
