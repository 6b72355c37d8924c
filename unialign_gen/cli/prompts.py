"""Prompt and weight options, as the request that they ask for; checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..media.text import clean_text
from ..request import MODALITIES, Request
from ..request.arguments import ask
from .options import Part, Prompts


def parse_weights(entries: list[str] | None) -> dict[str, tuple[float, ...] | float]:
    """`["text=0.7", "audio=1,-0.5"]` -> `{"text": 0.7, "audio": (1.0, -0.5)}`."""
    out: dict[str, tuple[float, ...] | float] = {}
    for entry in entries or []:
        kind, equals, numbers = entry.partition("=")
        try:
            values = tuple(float(n) for n in numbers.split(","))
        except ValueError:
            values = ()
        if not equals or not values:
            raise InputError(f"--weight {entry!r}: write text=0.7, audio=0.3, video=... or image=...")
        if kind in out:
            raise InputError(f"--weight {kind} is given twice")
        out[kind] = values if len(values) > 1 else values[0]
    return out


def request_of(given: Prompts, part: Part, **options: Any) -> Request:
    """What the options ask for; options of one kind that are repeated are mixed.

    Raises:
        InputError: no prompt, a file that is not there, or a number that cannot be used.
    """
    prompts: dict[str, Any] = {kind: tuple(map(str, values)) for kind in MODALITIES if (values := getattr(given, kind))}
    if not prompts:
        raise InputError("nothing to draw: give --text, --audio, --video or --image")
    from ..media import Excerpt, check_file

    for kind, values in prompts.items():
        for value in values:
            clean_text(value) if kind == "text" else check_file(value)
    if part != Part():
        if not {"audio", "video"} & set(prompts):
            raise InputError("--start, --seconds and --track are of a sound or a video, and there is none: leave them out")
        for kind in {"audio", "video"} & set(prompts):
            prompts[kind] = tuple(Excerpt(value, *astuple(part)) for value in prompts[kind])
    return ask(**prompts, weights=parse_weights(given.weight), **options)


def request_of_one(option: str, entry: str, part: Part, **options: Any) -> Request:
    """`text:a cat` -> a request for it."""
    kind, colon, value = entry.partition(":")
    if not colon or kind not in MODALITIES:
        raise InputError(f"{option} {entry!r}: write text:WORDS, audio:FILE, video:FILE or image:FILE")
    given: dict[str, Any] = {kind: [value]}
    return request_of(Prompts(**given), part, **options)


def files_of(request: Request) -> list[str]:
    """The files that a request reads."""
    found = [
        getattr(p.value, "source", p.value) for prompt in request.prompts for p in prompt if p.kind not in ("text", "embeds")
    ]
    return [str(f) for f in found if isinstance(f, str | Path)]
