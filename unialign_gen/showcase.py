"""The labelled sheet of examples that `unialign-gen showcase` draws, from the samples that come with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .concepts import ConceptTable, concept_table
from .film.sheets import Cell, sheet
from .loading import shipped_folder

if TYPE_CHECKING:
    from PIL import Image

STEPS_BETWEEN = 5


def samples() -> Path:
    """The folder of the sample recordings and the sample clip."""
    return shipped_folder() / "samples"


def draw_sheet(pipeline: Any, seed: int = 0, best_of: int = 1) -> Image.Image:
    """Words, sounds, mixes of both, a video, and a way between two prompts, as `samples/showcase.json` lists them.

    But for the way between, every picture is the nearest to its prompt of `best_of`. Where the checkpoint has a concept table,
    a sound's label says what it was heard as.
    """
    plan = json.loads((samples() / "showcase.json").read_text())
    from tqdm import tqdm

    bar = tqdm(total=sum(len(plan[k]) for k in ("text", "audio", "mix", "video")), unit="picture", disable=None, leave=False)
    draw = drawer(pipeline, seed, best_of, bar.update)
    texts = [Cell(draw(text=t), t) for t in plan["text"]]
    concepts = concept_table(pipeline)
    sounds = [Cell(draw(audio=path(f)), f + heard_as(pipeline, f, concepts)) for f in plan["audio"]]
    mixes = []
    for entry in plan["mix"]:
        weights = {"text": entry["text_weight"], "audio": 1 - entry["text_weight"]}
        picture = draw(text=entry["text"], audio=path(entry["audio"]), weights=weights)
        mixes.append(Cell(picture, f"{entry['text']} {weights['text']:.1f} + {entry['audio']} {weights['audio']:.1f}"))
    video = [Cell(draw(video=path(f)), f) for f in plan["video"]]
    start, end = plan["between"]
    ends = pipeline.embed(text=[start, end])
    way = pipeline.interpolate(ends[0], ends[1], STEPS_BETWEEN, seed=seed).images
    bar.close()
    labels = [start, *[f"{i / (STEPS_BETWEEN - 1):.2f}" for i in range(1, STEPS_BETWEEN - 1)], end]
    return sheet(
        [
            ("Text", texts),
            ("Sound", sounds),
            ("Text + sound, and a video", mixes + video),
            ("From one prompt to another", [Cell(p, label) for p, label in zip(way, labels, strict=True)]),
        ]
    )


def heard_as(pipeline: Any, name: str, concepts: ConceptTable | None) -> str:
    """The concept that a recording's embedding, as it is drawn, lies nearest to, for its label."""
    return "" if concepts is None else f", heard as {concepts.nearest(pipeline.embed(audio=path(name)), 1)[0][0]}"


def path(name: str) -> str:
    return str(samples() / name)


def drawer(pipeline: Any, seed: int, best_of: int, drawn: Callable[[], object]) -> Callable[..., Image.Image]:
    def draw(**prompt: Any) -> Image.Image:
        picture = pipeline.best_of(best_of, seed=seed, **prompt).images[0]
        drawn()
        return picture

    return draw
