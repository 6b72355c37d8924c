"""What the page opens on: pictures and a film of the samples, drawn when the server starts, so that they are this model's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from .api import answer_of, film_answer
from .context import AppContext
from .create import Create
from .engine import CancelledError, Progress
from .film import Animate

CARD = (1200, 630)  # pixels of a social preview


@dataclass(frozen=True)
class Example:
    """Words and a sample of the package, by its kind, with the weight of the words."""

    label: str
    text: str = ""
    kind: str = ""
    file: str = ""
    weight: float = 1.0
    film: bool = False


EXAMPLES = (
    Example("words", "a smiling cat"),
    Example("a sound", kind="audio", file="cow.flac"),
    Example("a mix", "a robot", "audio", "cow.flac", 0.6),
    Example("a video", kind="video", file="sheep.mp4"),
    Example("a film", kind="audio", file="train.flac", film=True),
)


@dataclass
class Opening:
    """The answers so far; `changed` tells whoever waits for more. `card` is the picture that a link to the page shows."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    done: bool = False

    def draw(self, context: AppContext) -> None:
        """Draws the examples one by one; one that fails is left out."""
        try:
            for example in EXAMPLES:
                with suppress(Exception):
                    self.add(drawn(example, context, self.pictures))
        finally:
            with self.changed:
                self.done = True
                self.changed.notify_all()

    def add(self, answer: dict[str, Any]) -> None:
        with self.changed:
            self.answers.append(answer)
            self.changed.notify_all()

    def wait(self, seconds: float = 120.0) -> Iterator[list[dict[str, Any]]]:
        """The answers each time there are more, until all are there."""
        sent = -1
        while True:
            with self.changed:
                if not self.changed.wait_for(lambda: self.done or len(self.answers) > sent, seconds):
                    return
                sent, done = len(self.answers), self.done
                found = list(self.answers)
            if found or done:
                yield found
            if done:
                return

    def card(self) -> Image.Image:
        """The pictures side by side, on white."""
        page = Image.new("RGB", CARD, "white")
        side = CARD[0] // max(2, len(self.pictures))
        for i, picture in enumerate(self.pictures):
            page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (i * side, (CARD[1] - side) // 2))
        return page


def drawn(example: Example, context: AppContext, pictures: list[Image.Image]) -> dict[str, Any]:
    """An answer as `/create` or `/animate` gives it, with the example's label."""
    engine, worker, model = context.engine, context.decode_worker, next(iter(context.engine.models))
    about = {"label": example.label, "sample": example.file, "text": example.text, "film": example.film}
    file = context.sample(example.file) if example.file else None
    if example.film:
        for made in Animate(model, sound=file, rate=2).run(engine, worker, context.folder(), "opening"):
            if not isinstance(made, Progress):
                answer = film_answer(made, 2)
                return {**about, "film": {"video": {"path": answer["film"]}}, "stage": answer["stage"], "path": file}
        raise CancelledError
    weights = {"text": example.weight, example.kind: round(1 - example.weight, 2) or 1.0}
    *_, last = Create(model, text=example.text, files={example.kind: file} if file else {}, weights=weights).run(
        engine, worker, "opening"
    )
    assert not isinstance(last, Progress)
    pictures.append(last.pictures[0])
    answer = answer_of(last, context)
    return {**about, **answer, "pictures": [{"image": {"path": path}, "caption": said} for path, said in answer["pictures"]]}
