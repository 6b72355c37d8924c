"""The labelled sheet of examples that `unialign-gen showcase` draws, from the samples that come with the package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..concepts import ConceptTable, concept_table
from ..loading import shipped_folder
from ..media.text import with_article
from .sheets import sheet

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 7
SAMPLES = shipped_folder() / "samples"  # recordings and a clip


def draw_sheet(pipeline: Any, seed: int = 0, best_of: int | None = None) -> Image.Image:
    """What the checkpoint can draw, as `samples/showcase.json` lists it: words, one thing in seven colours, seven seeds of one
    prompt, several things, sounds and a video, mixes, a way between two prompts.

    All from one seed, but for the row of seeds; `best_of` as in a call.
    Where the checkpoint has a concept table, a sound's label says what it was heard as.
    """
    plan = json.loads((SAMPLES / "showcase.json").read_text())
    from tqdm import tqdm

    bar = tqdm(unit="picture", disable=None, leave=False)

    def cell(label: str, number: int = seed, **prompt: Any) -> tuple[Image.Image, str]:
        picture = pipeline(seed=number, best_of=best_of, **prompt).images[0]
        bar.update()
        return picture, label

    concepts = concept_table(pipeline)
    thing, colours = plan["colours"]["thing"], plan["colours"]["colours"]
    coloured = [cell(name, text=name) for name in (with_article(f"{colour} {thing}") for colour in colours)]
    prompt = plan["seeds"]["text"]
    seeds = [cell(f"seed {n}", n, text=prompt) for n in range(seed, seed + plan["seeds"]["count"])]
    heard = [cell(f + heard_as(pipeline, f, concepts), audio=path(f)) for f in plan["audio"]]
    mixes = []
    for entry in plan["mix"]:
        words, sound, share = entry["text"], entry["audio"], entry["text_weight"]
        weights = {"text": share, "audio": 1 - share}
        how = entry.get("mix", "lerp") if pipeline.strips_drawn else "lerp"
        label = f"{words} {share:.1f} + {sound} {1 - share:.1f}" + (", beside" if how == "beside" else "")
        mixes.append(cell(label, text=words, audio=path(sound), weights=weights, mix=how))
    start, end = plan["between"]
    ends = pipeline.embed(text=[start, end])
    way = pipeline.interpolate(ends[0], ends[1], COLUMNS, seed=seed).images
    labels = [start, *[f"{i / (COLUMNS - 1):.2f}" for i in range(1, COLUMNS - 1)], end]
    sections = [
        ("Words", [cell(t, text=t) for t in plan["text"]]),
        (f"A {thing} in seven colours", coloured),
        (f"Seven seeds of {prompt}", seeds),
        ("Several things", [cell(t, text=t) for t in plan["several"]]),
        ("Sounds and a video", heard + [cell(f, video=path(f)) for f in plan["video"]]),
        ("Mixes of words and sounds", mixes),
        ("From one prompt to another", list(zip(way, labels, strict=True))),
    ]
    bar.close()
    return sheet(sections, columns=COLUMNS)


def heard_as(pipeline: Any, name: str, concepts: ConceptTable | None) -> str:
    """The concept that a recording's embedding, as it is drawn, lies nearest to, for its label."""
    return "" if concepts is None else f", heard as {concepts.nearest(pipeline.embed(audio=path(name)), 1)[0][0]}"


def path(name: str) -> str:
    return str(SAMPLES / name)
