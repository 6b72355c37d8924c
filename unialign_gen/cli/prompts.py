"""Prompt and weight options, checked before anything heavy is imported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import InputError


def parse_weights(entries: list[str] | None) -> dict[str, tuple[float, ...] | float]:
    """`["text=0.7", "audio=1,-0.5"]` -> `{"text": 0.7, "audio": (1.0, -0.5)}`."""
    out: dict[str, tuple[float, ...] | float] = {}
    for entry in entries or []:
        kind, equals, numbers = entry.partition("=")
        try:
            values = tuple(float(n) for n in numbers.split(","))
        except ValueError:
            values = ()
        if not equals or not values or kind not in ("text", "audio", "video", "image"):
            raise InputError(f"--weight {entry!r}: write text=0.7, audio=0.3, video=... or image=...")
        if kind in out:
            raise InputError(f"--weight {kind} is given twice")
        out[kind] = values if len(values) > 1 else values[0]
    return out


def check_weights(weights: dict[str, tuple[float, ...] | float], given: dict[str, tuple[Any, ...]]) -> None:
    """Whether the weights fit the prompts, before anything is loaded; the pipeline would say the same, later."""
    for kind, value in weights.items():
        values = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(v) for v in values):
            raise InputError(f"--weight {kind}: weights must be finite numbers")
        if kind not in given:
            raise InputError(f"--weight {kind}: no such prompt was given")
        if len(values) not in (1, len(given[kind])):
            raise InputError(
                f"--weight {kind}: {len(values)} weights for {len(given[kind])} inputs: give one for each, or one for all"
            )


def prompts(
    text: list[str] | None, audio: list[Path] | None, video: list[Path] | None, image: list[Path] | None
) -> dict[str, tuple[Any, ...]]:
    """The prompt options that were given, as tuples, which a pipeline mixes."""
    given = {"text": text, "audio": audio, "video": video, "image": image}
    found = {kind: tuple(str(v) for v in values) for kind, values in given.items() if values}
    if not found:
        raise InputError("nothing to draw: give --text, --audio, --video or --image")
    for kind, values in found.items():
        for value in values:
            check_prompt(kind, value)
    return found


def check_prompt(kind: str, value: str) -> None:
    """What can be seen to be wrong before anything heavy is loaded."""
    from ..media import check_file

    if kind == "text":
        if not value.strip():
            raise InputError("a text prompt is empty")
    else:
        check_file(value)
