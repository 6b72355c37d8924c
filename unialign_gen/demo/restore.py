"""Settings out of a PNG, as the page's controls can show them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..settings_png import Prompt, Settings
from .engine import Engine
from .limits import decimal, whole

KINDS = {"audio": "sound", "video": "video", "image": "picture"}


@dataclass
class Restored:
    """Values of the controls, the prompts whose files the PNG stands for, and what to say."""

    text: str
    weights: dict[str, float]
    mix: str
    seed: int
    steps: int
    guidance: float
    prior: float
    pictures: int
    model: str
    kept: tuple[Prompt, ...]
    said: str


def restore(settings: Settings, engine: Engine, name: str) -> Restored:
    """The controls for these settings; of more pictures than the page draws, the one that the PNG holds.

    Raises:
        InputError: the page cannot draw this: several prompts of a kind, a number beyond the limits, a model that is not here.
    """
    limits = engine.limits
    kinds = [p.kind for p in settings.prompts]
    if len(set(kinds)) < len(kinds):
        raise InputError(f"{name} mixes several prompts of one kind, which this page cannot: use the command line")
    weights: dict[str, float] = {
        p.kind: decimal(p.weight, f"{name}: the weight of {p.kind}", -limits.weight, limits.weight) for p in settings.prompts
    }
    steps = whole(settings.steps, f"{name}: steps", 1, limits.steps)
    guidance = decimal(settings.guidance, f"{name}: guidance", 0, limits.guidance)
    prior = decimal(settings.prior_strength, f"{name}: prior_strength", 0, 1)
    fits = settings.pictures <= limits.pictures
    seed = whole(settings.seed + (0 if fits else settings.index), f"{name}: seed", 0, limits.seed)
    wanted = (settings.checkpoint, settings.decoder)
    model = next((m.label for m in engine.models.values() if (m.checkpoint, m.decoder or "") == wanted), None)
    if model is None:
        raise InputError(f"{name} was drawn with a model that is not here")
    if prior and engine.model(model).prior is None:
        raise InputError(f"{name} was drawn with a prior, which {model} has not here")
    text = next((p.value for p in settings.prompts if p.kind == "text"), "")
    kept = tuple(p for p in settings.prompts if p.kind != "text")
    said = f"Settings of {name} are back."
    if kept:
        files = ", ".join(f"{p.value} ({KINDS[p.kind]})" for p in kept)
        said += f" The PNG itself stands for {files}; adding a file takes its place."
    return Restored(
        text,
        weights,
        "lerp" if settings.mix == "lerp" else "slerp",
        seed,
        steps,
        guidance,
        prior,
        settings.pictures if fits else 1,
        model,
        kept,
        said,
    )
