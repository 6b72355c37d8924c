"""Live: what a microphone has just heard moves the picture on, a few pictures at a time.

Nothing is kept between two calls: the page sends the last seconds of sound and the point where the picture stands, and gets the
next pictures and their point. All start from one noise, in `STEPS` steps without guidance, so that only the point moves.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..media import Sound
from ..media.sound import SILENT
from ..mixing import mix, path, slerp
from ..notes import Note
from ..request import Prompt, Request
from ..request.request import read_vector
from .engine import Engine, Job, Progress
from .limits import decimal, whole
from .prompts import given_parts, nearest
from .runner import Action

RATE = 16_000  # Hz of what the page sends
LONGEST = 3.0  # seconds
STEPS, GUIDANCE = 4, 1.0
MOST = 4  # pictures a call


@dataclass
class Moment:
    """The next pictures, the points (d,) of the last of them and of the words, and what was heard."""

    pictures: list[Image.Image]
    point: Tensor | None
    base: Tensor | None
    heard: list[tuple[str, float]]
    notes: list[Note] = field(default_factory=list)


@dataclass
class Live(Action):
    """A request, as it came; `run` checks it.

    Attributes:
        samples: base64 of mono int16 at `RATE` Hz.
        parts: prompts that stay in the mix with weight `share`. previous: where the picture stands, base64 of fp32.
        pictures: how many to draw. elapsed: seconds since the last call. smooth: seconds in which most of the way is gone.
    """

    samples: Any = ""
    parts: Any = None
    share: Any = 0.3
    previous: Any = None
    pictures: Any = 2
    elapsed: Any = 0.4
    smooth: Any = 0.6

    def run(self, engine: Engine, session: str = "") -> Iterator[Progress | Moment]:
        """The moment, last.

        Raises:
            InputError: something that cannot be used.
        """
        sound = read_samples(self.samples)
        share, count = decimal(self.share, "share", 0, 1), whole(self.pictures, "pictures", 1, MOST)
        moved = 1 - math.exp(-decimal(self.elapsed, "elapsed", 0, 60) / decimal(self.smooth, "smooth", 0.05, 10))
        before = torch.tensor(read_vector(self.previous)) if isinstance(self.previous, str) and self.previous else None
        parts = given_parts(self.parts, engine.limits) if self.parts else ()
        plain = self.request(engine)
        table = engine.concepts(self.chosen(engine).label)

        def embedded(pipeline: Any, prompts: tuple[Prompt, ...]) -> Tensor:
            strength = None if {p.kind for p in prompts} == {"embeds"} else plain.prior_strength
            return pipeline.mixed(Request((prompts,), prior_strength=strength))[0][0].cpu()

        def work(pipeline: Any, _: Job[Moment]) -> Moment:
            base = embedded(pipeline, parts) if parts else None
            audible = sound is not None and float(sound.abs().max()) >= SILENT
            heard = embedded(pipeline, (Prompt("audio", Sound(sound, RATE, "the sound")),)) if audible else None
            near = [] if heard is None else nearest(table, heard, 3)
            if heard is None:
                target = before if before is not None else base
            else:
                target = heard if base is None else mix([heard, base], [1 - share, share])
            if target is None:
                return Moment([], None, base, near)
            points = target[None]
            if before is not None:
                points = path(before, slerp(before, target, moved), count + 1)[1:]
            drawn = pipeline.draw(
                Request(
                    image_embeds=pipeline.embed_scale(points),
                    seed=(plain.seed,) * len(points),
                    steps=STEPS if self.steps is None else plain.steps,
                    guidance=GUIDANCE if self.guidance is None else plain.guidance,
                )
            )
            return Moment(drawn.images, points[-1], base, near)

        yield from self.do(engine, session, work)


def read_samples(text: Any) -> Tensor | None:
    """Samples (n,) in [-1, 1]; None for none.

    Raises:
        InputError: no base64 of 16-bit samples, or more than `LONGEST` seconds of them.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        found = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError("samples must be base64 of 16-bit numbers") from error
    if len(found) > LONGEST * RATE:
        raise InputError(f"a moment has at most {LONGEST:g} s of sound")
    return torch.from_numpy(found) if len(found) else None
