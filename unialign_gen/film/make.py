"""A recording's embeddings drawn as pictures, and written as a film."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..media.files import Excerpt
from ..mixing import mix
from ..output import check_output, written
from ..request import Prompt, Request
from .plan import Plan
from .track import Track, listen
from .writer import FilmWriter

if TYPE_CHECKING:
    from PIL import Image


def draw_track(
    pipeline: Any,
    track: Track,
    plan: Plan,
    seed: int = 0,
    base: Tensor | None = None,
    share: float = 0.3,
    **options: Any,
) -> Iterator[list[Image.Image]]:
    """Pictures at `plan.pictures` a second, in batches, all from one noise; by AnimateDiff as frames of one clip.

    `base` (d,) is a prompt that stays: it has weight `share` beside the sound's `1 - share`. Points are drawn where
    they are; `make_film` moves them by the prior before. `options` are those of a call.
    """
    moments = torch.arange(picture_count(track.seconds, plan)) / plan.pictures
    path = track.at(moments, plan.smooth)
    if base is not None:
        path = mix([path, base.cpu().expand_as(path)], [1 - share, share])
    if pipeline.moving:  # a clip is drawn as a whole
        yield pipeline.along(path, seed, **options)
        return
    for part in path.split(plan.batch):
        yield pipeline(embeds=part, seed=[seed] * len(part), **options).images


def picture_count(seconds: float, plan: Plan) -> int:
    """How many pictures a film of so many seconds takes, the last one at or after its end."""
    return math.ceil(seconds * plan.pictures - 1e-6) + 1


def make_film(
    pipeline: Any,
    source: Any,
    out: str | Path,
    plan: Plan | None = None,
    seed: int = 0,
    base: Tensor | None = None,
    share: float = 0.3,
    progress: Callable[[int, int, list[Image.Image]], None] | None = None,
    check: Callable[[], None] | None = None,
    prior_strength: float | None = None,
    **options: Any,
) -> dict[str, float]:
    """Writes the film of a recording to `out`, an MP4 with H.264 and the recording as AAC.

    Args:
        base, share: a prompt's unit embedding (d,) that stays in the mix, and its weight; see `draw_track`.
        progress: called after each batch with pictures drawn, pictures in all, and the batch.
        check: called between windows; may raise to stop; what stood at `out` stays then.
        prior_strength: how far windows move towards what the decoder knows; the checkpoint's own by default.
        options: those of a call of the pipeline, such as `num_inference_steps`.

    Returns:
        `seconds` of the film, `pictures` drawn, `windows` heard.

    Raises:
        InputError: the recording cannot be read, is silent or too long, or is `out` itself; or a bad option.
    """
    from ..pipelines.prior import check_prior, temperature_of
    from ..pipelines.prompts import moved_prompts, picture_seeds

    out = Path(out)
    file = Excerpt.of(source).source
    files = [file] if isinstance(file, str | Path) else []
    check_output(out, (".mp4",), files, option="the film")
    plan = plan or Plan()
    check_prior(pipeline.prior, prior_strength)  # before the recording is heard
    asked = Request(prior_strength=prior_strength, prior_temperature=temperature_of(pipeline.prior, prior_strength))
    track = listen(pipeline.aligner, source, plan, check)
    windows = [[Prompt("audio", "", embedding=point)] for point in track.points]
    # what a moment leaves open is drawn anew for each, so that the picture moves while the sound stays alike
    moved = moved_prompts(windows, asked, pipeline.prior, picture_seeds(seed, len(windows), 1))
    track.points = torch.stack([point for (point,) in moved])
    total, done = picture_count(track.seconds, plan), 0
    with written(out) as path, FilmWriter(path, source, track.seconds, plan) as writer:
        for batch in draw_track(pipeline, track, plan, seed, base, share, **options):
            writer.add(batch)
            done += len(batch)
            if progress is not None:
                progress(done, total, batch)
    return {"seconds": round(track.seconds, 3), "pictures": total, "windows": len(track.times)}
