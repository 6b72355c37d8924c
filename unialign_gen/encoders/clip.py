"""`clip_image` and `clip_text`: a CLIP in whichever layout its source has, open_clip's or transformers'.

Folders that the first edition saved under these names hold transformers' network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from . import hf, open_clip
from .published import source_folder

KINDS = {"clip_image": "image", "clip_text": "text"}
LAYOUTS = {"open_clip": "open_clip", "transformers": "hf"}


def by_layout(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a `clip_image` or `clip_text` as one of `open_clip` or `hf`.

    `format` says which layout, where a source has both; open_clip's is taken otherwise.

    Raises:
        InputError: `format` is not one of the two, or the source cannot be had.
    """
    modality = KINDS[config["encoder"]]
    made = {k: v for k, v in config.items() if k != "format"} | {"modality": modality}
    layout = config.get("format")
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"unknown format {layout!r}: choose from {', '.join(LAYOUTS)}")
    if "architecture" in config:  # saved by the first edition
        side = {"model_type": f"clip_{hf.SIDES[modality]}_model"}
        return made | {"encoder": "hf", "architecture": side | config["architecture"]}
    if layout is None and "source" in config and not Path(config["source"]).expanduser().is_file():
        place = source_folder(config, [*hf.SMALL, open_clip.CONFIG])
        layout = (
            "open_clip" if (place / open_clip.CONFIG).is_file() or not (place / "config.json").is_file() else "transformers"
        )
    return made | {"encoder": LAYOUTS[layout or "open_clip"]}
