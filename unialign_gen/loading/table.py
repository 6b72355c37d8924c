"""What `unialign-gen models` lists."""

from __future__ import annotations

import json
from typing import Any

from . import description
from .folders import DECODERS, PUBLISHED, SHIPPED, calibration_folder, decoder_folder, shipped_folder


def describe() -> list[dict[str, Any]]:
    """A row for each known checkpoint: what it is, what it needs, and what of that is on this disk.

    Sizes are in bytes. Nothing is downloaded.

    >>> [row["name"] for row in describe()]
    ['starter', 'animatediff-vit-h', 'kandinsky', 'sd15-vit-h', 'sdxl-bigg', 'sdxl-vit-h', 'stable-unclip']
    """
    rows = []
    for name in SHIPPED:
        folder = shipped_folder() / name
        index = folder / "model_index.json"
        parts = json.loads(index.read_text()) if index.is_file() else {}
        rows.append(
            {
                "name": name,
                "on_disk": index.is_file(),
                "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0,
                "pipeline": parts.get("_class_name"),
                "decoders": [d for d in DECODERS if (decoder_folder(folder, d) / "model_index.json").is_file()],
                "folder": str(folder),
            }
        )
    for name in PUBLISHED:
        described = description.read(shipped_folder() / name)
        decoder = described["decoder"]
        only_edits = {mode["part"] for mode in decoder.get("modes", {}).values() if "part" in mode}
        parts = {part: entry for part, entry in decoder.get("parts", {}).items() if part not in only_edits}
        entries = {"decoder": decoder, **parts, **described["encoders"]}
        needs = {
            part: {
                "source": entry.get("source") or entry.get("checkpoint"),
                "revision": entry.get("revision"),
                "licence": entry["licence"],
                "bytes": entry.get("bytes"),
                "on_disk": description.on_disk(entry),
            }
            for part, entry in entries.items()
        }
        scale = calibration_folder(name)
        measured = (scale / "config.json").is_file()
        needs["embed_scale"] = {"source": str(scale), "licence": "your measurement", "on_disk": measured}
        ready = all(needs[part]["on_disk"] for part in ("decoder", *parts, "text"))
        rows.append(
            {
                "name": name,
                "on_disk": ready and (measured or needs["image"]["on_disk"]),  # then it is measured on the way
                "pipeline": described["pipeline"],
                "moving": described["pipeline"] == "MovingPipeline",
                "needs": needs,
                "fetch": fetched(name, needs),
                "folder": str(shipped_folder() / name),
            }
        )
    return rows


def fetched(name: str, needs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What drawing words would download: the command, its sources, and their bytes in all, None where one is unknown.

    The image encoder is wanted only where the decoder's scale was not measured; image and text often are one repository.
    """
    measured = needs["embed_scale"]["on_disk"]
    unused = {"audio", "embed_scale", *(["image"] if measured else [])}
    missing = {need["source"]: need["bytes"] for p, need in needs.items() if p not in unused and not need["on_disk"]}
    sizes = [max(size.values()) if size else None for size in missing.values()]
    first = "" if measured or needs["image"]["on_disk"] else f"unialign-gen calibrate --checkpoint {name} && "
    command = f'{first}unialign-gen generate --checkpoint {name} --text "a dog"'
    return {"command": command, "sources": list(missing), "bytes": None if None in sizes else sum(size or 0 for size in sizes)}
