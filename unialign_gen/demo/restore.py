"""Settings out of a picture, as the page's controls can show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..request.picture_settings import PictureSettings, parse
from ..request.request import write_prompt
from .decode_worker import DecodeWorker
from .engine import Engine
from .limits import decimal, whole

KINDS = {"audio": "sound", "video": "video", "image": "picture"}


@dataclass
class Restored:
    """Values of the controls, the prompts whose files the picture stands for, and what to say."""

    text: str
    weights: dict[str, float]
    mix: str
    seed: int
    steps: int
    guidance: float
    prior: float
    pictures: int
    model: str
    kept: list[dict[str, Any]]
    said: str


def restore(settings: PictureSettings, engine: Engine, name: str) -> Restored:
    """The controls for these settings.

    Raises:
        InputError: the page cannot draw this: several prompts of a kind, a number beyond the limits, a model that is not here.
    """
    limits, request = engine.limits, settings.request
    prompts = request.prompts[0] if len(request.prompts) == 1 else ()
    kinds = [p.kind for p in prompts]
    if not kinds or len(set(kinds)) < len(kinds) or set(kinds) - {"text", *KINDS}:
        raise InputError(f"{name} mixes prompts in a way that this page cannot: use the command line")
    weights: dict[str, float] = {
        p.kind: decimal(p.weight, f"{name}: the weight of {p.kind}", -limits.weight, limits.weight) for p in prompts
    }
    wanted = (settings.checkpoint, settings.decoder)
    model = next((m for m in engine.models.values() if (m.checkpoint, m.decoder or "") == wanted), None)
    if model is None:
        raise InputError(f"{name} was drawn with a model that is not here")
    steps = whole(request.steps or model.steps, f"{name}: steps", 1, limits.steps)
    guidance = decimal(
        model.guidance if request.guidance is None else request.guidance, f"{name}: guidance", 0, limits.guidance
    )
    prior = model.prior or 0.0 if request.prior_strength is None else request.prior_strength
    if prior and model.prior is None:
        raise InputError(f"{name} was drawn with a prior, which {model.label} has not here")
    seed = whole(request.seed or 0, f"{name}: seed", 0, limits.seed)
    text = next((p.value for p in prompts if p.kind == "text"), "")
    kept = tuple(p for p in prompts if p.kind != "text")
    said = f"Settings of {name} are back."
    if kept:
        files = ", ".join(f"{p.value} ({KINDS[p.kind]})" for p in kept)
        said += f" The picture itself stands for {files}; adding a file takes its place."
    mix = "lerp" if request.mix == "lerp" else "slerp"
    written = [write_prompt(p) for p in kept]
    return Restored(text, weights, mix, seed, steps, guidance, prior, 1, model.label, written, said)


def settings_of(file: str, decode_worker: DecodeWorker) -> PictureSettings:
    """What a picture that was uploaded keeps of how it was made.

    Raises:
        InputError: nothing, or something damaged.
    """
    name = Path(file).name
    text = decode_worker.settings(file)
    if text is None:
        raise InputError(f"{name} holds no settings of this program")
    return parse(text, name)
