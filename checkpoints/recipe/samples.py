"""The sample recordings and the sample clip that come with the project: tier A, held out from training."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unialign_gen.media import load_sound

from .clips import RATE, moving, repeated, write_clip
from .manifest import Row

SOUNDS = {  # file name: row
    "cow.flac": "sound-like-cow-a12ffa96",
    "pig.flac": "sound-like-pig-502b7314",
    "guitar.flac": "sonic-pi-guitar-ef0ef226",
    "drum.flac": "sonic-pi-drum-47552691",
    "chicken.flac": "pekka-kana-chicken-fdf6b221",
    "train.flac": "simutrans-train-746acd29",
}
CLIP = ("sheep.mp4", "sheep", "sound-like-sheep-b36ab0bd")
SHOWCASE = {
    "text": ["a red car", "a green frog", "pizza", "a sailing ship on the sea", "a smiling cat", "fireworks at night"],
    "audio": list(SOUNDS),
    "mix": [
        {"text": "a robot", "audio": "cow.flac", "text_weight": 0.6},
        {"text": "fire", "audio": "chicken.flac", "text_weight": 0.5},
    ],
    "video": [CLIP[0]],
    "between": ["a cat", "a lion"],
}


def write(root: Path, rows: Sequence[Row], out: Path) -> None:
    """Writes the samples, their table of attribution and the demo's list."""
    import av

    out.mkdir(parents=True, exist_ok=True)
    by_id = {r.id: r for r in rows}
    table = ["file\tsource\tkey\tlicence\n"]
    for name, row_id in SOUNDS.items():
        row = by_id[row_id]
        samples = load_sound(root / row.path, RATE)[: 6 * RATE]
        with av.open(str(out / name), "w") as container:
            stream = container.add_stream("flac", rate=RATE, layout="mono")
            stream.format = "s16"
            whole = (samples.clamp(-1, 1) * 32767).short().numpy()
            for at in range(0, len(whole), 4096):
                frame = av.AudioFrame.from_ndarray(whole[None, at : at + 4096], format="s16", layout="mono")
                frame.rate, frame.pts = RATE, at
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        table.append(f"{name}\t{row.source}\t{row.key}\t{row.licence}\n")
    name, concept, row_id = CLIP
    stills = [r for r in rows if r.kind == "picture" and r.tier == "A" and concept in r.concepts and r.split == "test"]
    stills = stills or [r for r in rows if r.kind == "picture" and r.tier == "A" and concept in r.concepts][:1]
    dice = random.Random(name)
    still, row = stills[0], by_id[row_id]
    sound = repeated(load_sound(root / row.path, RATE).numpy(), dice, seconds=4)
    write_clip(out / name, moving([Image.open(root / still.path).convert("RGB")], dice, seconds=4), sound)
    table.append(f"{name} (sound)\t{row.source}\t{row.key}\t{row.licence}\n")
    table.append(f"{name} (still)\t{still.source}\t{still.key}\t{still.licence}\n")
    (out / "ATTRIBUTION.tsv").write_text("".join(table))
    (out / "showcase.json").write_text(json.dumps(SHOWCASE, indent=2) + "\n")
