"""Live: what a microphone has just heard moves the picture on, a few pictures at a time.

Nothing is kept between two calls: the page sends the last seconds of sound and the point where the picture stands, and gets the
next pictures and their point. All start from one noise, in `STEPS` steps without guidance, so that only the point moves. The
starter's distilled decoder, which was trained to draw so, takes the place of its first one where it is installed.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..loading import DISTILLED
from ..media import Sound
from ..media.sound import SILENT
from ..mixing import mix, path, slerp
from ..request import Prompt
from ..request.request import read_vector, write_prompt
from . import html
from .action import Action, Work, nearest, watched
from .engine import AppContext, Job, Model
from .limits import decimal, whole

RATE = 16_000  # Hz of what the page sends
LONGEST = 3.0  # seconds
STEPS, GUIDANCE = 4, 1.0
MOST = 4  # pictures a call


@dataclass
class Live(Action):
    """The next pictures of what was just heard.

    Attributes:
        samples: base64 of mono int16 at `RATE` Hz. share: the weight of the prompts that stay. previous: where the picture
            stands, base64 of fp32. pictures: how many to draw. elapsed: seconds since the last call. smooth: seconds in
            which most of the way is gone.
    """

    samples: str = ""
    share: float = 0.3
    previous: str = ""
    pictures: int = 2
    elapsed: float = 0.4
    smooth: float = 0.6
    outputs: ClassVar[dict[str, Any]] = {"moment": dict}

    def chosen(self, context: AppContext) -> Model:
        own, models = super().chosen(context), context.engine.models.values()
        if own.decoder or (self.steps, self.guidance) != (None, None):
            return own
        return next((m for m in models if (m.checkpoint, m.decoder) == (own.checkpoint, DISTILLED)), own)

    def prepare(self, context: AppContext) -> Work:
        sound = read_samples(self.samples)
        share, count = decimal(self.share, "share", 0, 1), whole(self.pictures, "pictures", 1, MOST)
        moved = 1 - math.exp(-decimal(self.elapsed, "elapsed", 0, 60) / decimal(self.smooth, "smooth", 0.05, 10))
        before = torch.tensor(read_vector(self.previous)) if self.previous else None
        plain_steps = (("steps", STEPS), ("guidance", GUIDANCE)) if self.chosen(context).decoder != DISTILLED else ()
        own: dict[str, Any] = {n: v for n, v in plain_steps if getattr(self, n) is None}
        stay, plain = self.prompts(context), replace(self.request(context), **own)
        table = context.engine.concepts(self.chosen(context).label)

        def embedded(pipeline: Any, prompts: tuple[Prompt, ...]) -> Tensor:
            strength = None if {p.kind for p in prompts} == {"embeds"} else plain.prior_strength
            return pipeline.mixed(replace(plain, prompts=(prompts,), prior_strength=strength))[0][0].cpu()

        def work(pipeline: Any, job: Job) -> dict[str, Any]:
            base, heard, target = embedded(pipeline, stay) if stay else None, None, before
            if sound is not None and float(sound.abs().max()) >= SILENT:
                heard = embedded(pipeline, (Prompt("audio", Sound(sound, RATE)),))
                target = heard if base is None else mix([heard, base], [1 - share, share])
            if target is None:
                target = base
            near = [] if heard is None else nearest(table, heard, 3)
            stays = [] if base is None else [write_prompt(Prompt("embeds", base.tolist()))]
            found = {"pictures": [], "point": "", "base": stays, "heard": [name for name, _ in near]}
            if target is not None:
                points = target[None]  # (1, d)
                if before is not None:
                    points = path(before, slerp(before, target, moved), count + 1)[1:]  # (count, d)
                drawn = pipeline(embeds=points, seed=[int(self.seed)] * len(points), upscale=1, **watched(plain, job)).images
                found["pictures"] = [html.data_uri(p, 256) for p in drawn]
                found["point"] = write_prompt(Prompt("embeds", points[-1].tolist()))["embedding"]
            return {"moment": found}

        return work


def read_samples(text: Any) -> Tensor | None:
    """16-bit samples in base64 as (n,) in [-1, 1], None for none; an `InputError` for others, or for too many."""
    try:
        found = np.frombuffer(base64.b64decode(text, validate=True), "<i2").astype(np.float32) / 32768
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError("samples must be base64 of 16-bit numbers") from error
    if len(found) > LONGEST * RATE:
        raise InputError(f"a moment has at most {LONGEST:g} s of sound")
    return torch.from_numpy(found) if len(found) else None
