"""A page's inputs as prompts: checked and decoded, so that each can be mixed, kept and explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..request.request import Mix, Prompt, checked, read_prompts
from .decode_worker import DecodeWorker
from .limits import Limits, decimal, words

FILES = ("audio", "video", "image")


def prompts_of_page(
    decode_worker: DecodeWorker,
    limits: Limits,
    text: Any,
    files: dict[str, Any],
    weights: dict[str, Any],
    kept: Sequence[Prompt],
    rate: int,
) -> tuple[Prompt, ...]:
    """What was filled in, in the order of the library's arguments.

    Args:
        files, weights: by kind. kept: what a picture restored; a file that is given takes its place.

    Raises:
        InputError: nothing given, or something that cannot be used.
    """
    prompts = []
    said = words(text, "text", limits.text)
    if said:
        prompts.append(checked(Prompt, kind="text", value=said, weight=weight_of(weights, "text", limits)))
    stored = {p.kind: p for p in kept if p.kind != "text"}
    for kind in FILES:
        if files.get(kind) is not None:
            weight = weight_of(weights, kind, limits)
            prompts.append(decoded(decode_worker, kind, files[kind], rate, weight))
        elif kind in stored:
            weight = weight_of(weights, kind, limits)
            prompts.append(Prompt(kind, stored[kind].value, weight, stored[kind].embedding))
    if not prompts:
        raise InputError("nothing to draw: write a prompt, or add a sound, a video or a picture")
    return tuple(prompts)


def kept_prompts(kept: Any) -> tuple[Prompt, ...]:
    """The prompts whose files a picture stands for, in their JSON form, as `/restore` gave them; none for an empty one.

    Raises:
        InputError: they are no such prompts.
    """
    try:
        return read_prompts(kept) if kept else ()
    except InputError as error:
        raise InputError(f"what is kept of a picture cannot be used: {error}") from error


def given_parts(parts: Any, limits: Limits) -> tuple[Prompt, ...]:
    """Encoded prompts in their JSON form, as `/read` gave them, and texts beside them; those of weight 0 are left out.

    Raises:
        InputError: they are no such prompts, or a text or weight is beyond the limits.
    """
    found = read_prompts(parts)
    for prompt in found:
        decimal(prompt.weight, f"the weight of {prompt.kind}", -limits.weight, limits.weight)
        if prompt.kind == "text":
            words(prompt.value, "text", limits.text)
    if not any(p.weight for p in found):
        raise InputError("all weights are zero: at least one prompt must count")
    return tuple(p for p in found if p.weight)


def words_and_file(decode_worker: DecodeWorker, said: str, file: Any, name: str, rate: int) -> tuple[Prompt, ...]:
    """Words, a file of any kind, or both."""
    prompts = [Prompt("text", said)] if said else []
    if file is not None:
        prompts.append(decoded(decode_worker, "any", file, rate, name=name))
    return tuple(prompts)


def decoded(
    decode_worker: DecodeWorker, kind: str, file: Any, rate: int, weight: float = 1.0, name: str | None = None
) -> Prompt:
    """An upload as a prompt of what it holds."""
    media = decode_worker.decode(kind, upload(file, name or kind), rate)
    return Prompt(media.kind, media.value, weight, label=media.name)


def weight_of(weights: dict[str, Any], kind: str, limits: Limits) -> float:
    return decimal(weights.get(kind, 1.0), f"the weight of {kind}", -limits.weight, limits.weight)


def upload(path: Any, name: str) -> str:
    """The path of an upload, which the page's file components have checked to be one."""
    if not isinstance(path, str | Path):
        raise InputError(f"{name} must be a file")
    return str(path)


def method_for(asked: str, prompts: Sequence[Prompt]) -> Mix:
    """`lerp`; for `slerp` its own form for two prompts, the spherical mean for more, nothing for one."""
    if asked == "lerp" or len(prompts) == 1:
        return "lerp"
    return "slerp" if len(prompts) == 2 else "spherical_mean"


def nearest(table: Any, vector: Tensor, count: int = 6) -> list[tuple[str, float]]:
    """The concepts nearest to a unit vector (d,), with the table's cosines; none without a table of this width."""
    if table is None or table.points.shape[1] != len(vector):
        return []
    cosines = table.cosines(vector.cpu().unsqueeze(0))[0]
    best = cosines.topk(min(count, len(cosines)))
    return [(table.names[i], float(v)) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
