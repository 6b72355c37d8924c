"""What the page opens on: pictures and a film of the samples, drawn at the server's start: this model's own."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..film import grid
from ..loading import shipped_folder
from .action import Action
from .create import Create
from .engine import AppContext
from .film import Animate

CARD = (1200, 630)  # pixels of a social preview
EXAMPLES: tuple[tuple[str, type[Action], dict[str, Any]], ...] = (  # a name, an action, its fields; samples by their names
    ("words", Create, {"text": "a red car"}),
    ("a sound", Create, {"audio": "cow.flac"}),
    ("a mix", Create, {"text": "a robot", "text_weight": 0.6, "audio": "cow.flac", "audio_weight": 0.4}),
    ("a video", Create, {"video": "sheep.mp4"}),
    ("a film", Animate, {"sound": "train.flac", "pictures": 2}),
)


@dataclass
class Opening:
    """The answers so far, in the endpoints' own form, each with its `label` and the `sample` that it is made of."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    def draw(self, context: AppContext) -> None:
        """Draws the examples one by one; one that fails is left out, its first request will say why."""
        context = replace(context, cache=context.cache / "kept")  # where nothing grows old
        # the package's own folder is not served
        samples = Path(shutil.copytree(shipped_folder() / "samples", context.cache / "samples"))
        for label, action, values in EXAMPLES:
            while context.engine.jobs:  # visitors first
                time.sleep(0.1)
            with suppress(Exception):
                files = {k: str(samples / v) for k, v in values.items() if k in ("audio", "video", "sound")}
                *_, answer = action(**{**values, **files}).run(context)
                self.answers.append({**answer, "label": label, "sample": next(iter(files.values()), None)})
        self.done = True

    def card(self) -> Image.Image:
        """The pictures side by side, on white."""
        pictures = [Image.open(answer["pictures"][0]["image"]["path"]) for answer in self.answers if "pictures" in answer]
        row = grid(pictures) if pictures else Image.new("RGB", CARD, "white")
        return ImageOps.pad(row, CARD, Image.Resampling.LANCZOS, "white")
