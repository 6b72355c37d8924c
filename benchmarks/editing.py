"""Whether an edit draws the prompt where it should: the judge looks at what was redrawn.

Each of 40 photographs that come with the package gets one of 40 things by words, inside a square of three quarters of its
sides (inpainting) and over all of it (img2img). Counted: how often the judge names the thing among its first five, and that
outside the mask no pixel changed.

    python benchmarks/editing.py
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw

import unialign_gen
from unialign_gen.eval.judge import Judge
from unialign_gen.loading import shipped_folder


def main(count: int = 40, steps: int | None = None, strength: float | None = None, threads: int = 2) -> None:
    """Writes one line of JSON."""
    torch.set_num_threads(threads)
    generate, judge = unialign_gen.load("starter"), Judge.from_folder()
    generate.set_progress_bar_config(disable=True)
    photographs = sorted((shipped_folder() / "samples" / "pictures").glob("*.webp"))[:count]
    things = judge.concepts[:: max(1, len(judge.concepts) // count)][:count]
    found = {"inpaint": 0, "img2img": 0}
    for i, (path, thing) in enumerate(zip(photographs, things, strict=True)):
        photograph = Image.open(path).convert("RGB").resize((128, 128))
        box, mask = (16, 16, 112, 112), Image.new("L", (128, 128))
        ImageDraw.Draw(mask).rectangle((16, 16, 111, 111), fill=255)
        options = {"text": thing, "seed": i, "num_inference_steps": steps}
        inside = generate.edit(photograph, mask, **options).images[0]
        kept = np.asarray(mask) == 0
        assert np.array_equal(np.asarray(inside)[kept], np.asarray(photograph)[kept])
        whole = generate.edit(photograph, strength=strength, **options).images[0]
        for name, drawn in (("inpaint", inside.crop(box)), ("img2img", whole)):
            found[name] += thing in judge.top([drawn], 5)[0]
    sys.stdout.write(json.dumps({"of": count, "within five": found}) + "\n")


if __name__ == "__main__":
    typer.run(main)
