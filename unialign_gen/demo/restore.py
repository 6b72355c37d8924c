"""Settings out of a picture, as the page's controls can show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..request.picture_settings import PictureSettings, parse
from ..request.request import MODALITIES, write_prompt
from .decode_worker import DecodeWorker
from .engine import Engine
from .limits import decimal, whole

NAMES = {"text": "words", "audio": "sound", "video": "video", "image": "picture", "embeds": "vector"}


@dataclass
class Restored:
    """Values of the controls, and what to say. `parts` are the prompts in JSON, files by their embeddings."""

    parts: list[dict[str, Any]]
    mix: str
    seed: int
    steps: int
    guidance: float
    prior: float
    size: int | None
    model: str
    said: str

    def controls(self) -> dict[str, Any]:
        """One prompt a kind, as `/create` takes them: the words, weights by kind, and what is kept of files.

        Raises:
            InputError: several prompts of a kind.
        """
        kinds = [p["kind"] for p in self.parts]
        if len(set(kinds)) < len(kinds) or "embeds" in kinds:
            raise InputError("this picture mixes prompts in a way that /create takes as `parts` only: /read gives them")
        text = next((p["value"] for p in self.parts if p["kind"] == "text"), "")
        kept = [p for p in self.parts if p["kind"] != "text"]
        weights = {kind: 1.0 for kind in MODALITIES} | {p["kind"]: p["weight"] for p in self.parts}
        return {"text": text, "kept": kept, **{f"{kind}_weight": weight for kind, weight in weights.items()}}


def restore(settings: PictureSettings, engine: Engine, name: str) -> Restored:
    """The controls for these settings.

    Raises:
        InputError: the page cannot draw this: prompts of a batch, a number beyond the limits, a model that is not here.
    """
    limits, request = engine.limits, settings.request
    prompts = request.prompts[0] if len(request.prompts) == 1 else ()
    if not prompts or {p.kind for p in prompts} - set(NAMES):
        raise InputError(f"{name} mixes prompts in a way that this page cannot: use the command line")
    for p in prompts:
        decimal(p.weight, f"{name}: the weight of {p.kind}", -limits.weight, limits.weight)
    wanted = (settings.checkpoint, settings.decoder)
    model = next((m for m in engine.models.values() if (m.checkpoint, m.decoder or "") == wanted), None)
    if model is None:
        raise InputError(f"{name} was drawn with a model that is not here")
    steps = whole(request.steps or model.steps, f"{name}: steps", 1, limits.steps)
    asked = model.guidance if request.guidance is None else request.guidance
    guidance = decimal(asked, f"{name}: guidance", 0, limits.guidance)
    prior = model.prior or 0.0 if request.prior_strength is None else request.prior_strength
    if prior and model.prior is None:
        raise InputError(f"{name} was drawn with a prior, which {model.label} has not here")
    seed = whole(request.seed or 0, f"{name}: seed", 0, limits.seed)
    said = f"Settings of {name} are back."
    files = ", ".join(f"{p.name} ({NAMES[p.kind]})" for p in prompts if p.kind != "text")
    if files:
        said += f" The picture itself stands for {files}."
    parts = [write_prompt(p) for p in prompts]
    return Restored(parts, request.mix, seed, steps, guidance, prior, request.height, model.label, said)


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
