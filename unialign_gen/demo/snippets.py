"""The command and the Python that make pictures again, from the settings of the first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..request import Prompt
from ..request.picture_settings import PictureSettings


def number(value: float | None) -> str:
    """As short as it can be without losing anything."""
    value = value or 0
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def place(prompt: Prompt) -> str:
    """A prompt as the command line takes it: a file's name cannot be mistaken for an option."""
    return f"./{prompt.name}" if prompt.kind != "text" and prompt.name.startswith("-") else prompt.name


def by_kind(settings: PictureSettings) -> dict[str, list[Prompt]]:
    prompts = settings.request.prompts[0]
    return {kind: [p for p in prompts if p.kind == kind] for kind in dict.fromkeys(p.kind for p in prompts)}


def command(
    settings: PictureSettings, pictures: int = 1, out: str = "picture.png", begin: Sequence[str] = ("generate",)
) -> str:
    """What to type; files are named as they were uploaded."""
    request, kinds = settings.request, by_kind(settings)
    if request.height or "embeds" in kinds:
        return "# The command line takes neither sizes nor vectors: use Python."
    words = ["unialign-gen", *begin]
    for value, kind in ((place(p), kind) for kind, prompts in kinds.items() for p in prompts):
        words += [f"--{kind}={value}"] if value.startswith("-") else [f"--{kind}", value]
    if any(p.weight != 1 for p in request.prompts[0]):
        for kind, prompts in kinds.items():
            words += ["--weight", f"{kind}={','.join(number(p.weight) for p in prompts)}"]
    words += ["--mix", request.mix] if request.mix != "lerp" else []
    words += ["--seed", str(request.seed), "--steps", str(request.steps), "--guidance", number(request.guidance)]
    words += ["--prior-strength", number(request.prior_strength)]
    words += ["--prior-temperature", number(request.prior_temperature)] if request.prior_temperature is not None else []
    words += ["--upscale", str(request.upscale)] if request.upscale else []
    words += ["--num-images", str(pictures)] if pictures > 1 else []
    words += ["--checkpoint", settings.checkpoint] if settings.checkpoint != "starter" else []
    words += ["--decoder", settings.decoder] if settings.decoder else []
    return shlex.join([*words, "--out", out])


def python(settings: PictureSettings, pictures: int = 1, call: str = "generate(") -> str:
    """A program that leaves the pictures in `pictures`."""
    request, decoder = settings.request, f", decoder={settings.decoder!r}" if settings.decoder else ""
    lines = ["import unialign_gen", "", f"generate = unialign_gen.load({settings.checkpoint!r}{decoder})", f"pictures = {call}"]

    def tuple_of(values: list[str]) -> str:
        return values[0] if len(values) == 1 else f"({', '.join(values)})"

    kinds = by_kind(settings)
    for kind, prompts in kinds.items():
        lines.append(f"    {kind}={tuple_of([repr(list(p.value) if kind == 'embeds' else p.name) for p in prompts])},")
    if any(p.weight != 1 for p in request.prompts[0]):
        weights = ", ".join(f'"{kind}": {tuple_of([number(p.weight) for p in prompts])}' for kind, prompts in kinds.items())
        lines.append(f"    weights={{{weights}}},")
    lines += [f"    mix={request.mix!r},"] if request.mix != "lerp" else []
    lines += [f"    seed={request.seed},", f"    num_inference_steps={request.steps},"]
    lines += [f"    guidance_scale={number(request.guidance)},", f"    prior_strength={number(request.prior_strength)},"]
    if request.prior_temperature is not None:
        lines.append(f"    prior_temperature={number(request.prior_temperature)},")
    lines += [f"    upscale={request.upscale},"] if request.upscale else []
    lines += [f"    height={request.height},", f"    width={request.width},"] if request.height else []
    lines += [f"    num_images_per_prompt={pictures},"] if pictures > 1 else []
    return "\n".join([*lines, ").images"])
