"""The command and the Python that make pictures again, from the settings of the first."""

from __future__ import annotations

import shlex

from ..request import Prompt
from ..request.picture_settings import PictureSettings


def number(value: float | None) -> str:
    """As short as it can be without losing anything."""
    value = value or 0
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def place(prompt: Prompt) -> str:
    """A prompt as the command line takes it: a file's name cannot be mistaken for an option."""
    return f"./{prompt.name}" if prompt.kind != "text" and prompt.name.startswith("-") else prompt.name


def command(settings: PictureSettings, pictures: int = 1, out: str = "picture.png") -> str:
    """What to type; files are named as they were uploaded."""
    request = settings.request
    words = ["unialign-gen", "generate"]
    for prompt in request.prompts[0]:
        value = place(prompt)
        words += [f"--{prompt.kind}={value}"] if value.startswith("-") else [f"--{prompt.kind}", value]
    if any(prompt.weight != 1 for prompt in request.prompts[0]):
        for prompt in request.prompts[0]:
            words += ["--weight", f"{prompt.kind}={number(prompt.weight)}"]
    if request.mix != "lerp":
        words += ["--mix", request.mix]
    words += ["--seed", str(request.seed), "--steps", str(request.steps), "--guidance", number(request.guidance)]
    words += ["--prior-strength", number(request.prior_strength)]
    if pictures > 1:
        words += ["--num-images", str(pictures)]
    if settings.checkpoint != "starter":
        words += ["--checkpoint", settings.checkpoint]
    if settings.decoder:
        words += ["--decoder", settings.decoder]
    return shlex.join([*words, "--out", out])


def python(settings: PictureSettings, pictures: int = 1) -> str:
    """A program that leaves the pictures in `pictures`."""
    request = settings.request
    decoder = f", decoder={settings.decoder!r}" if settings.decoder else ""
    lines = [
        "import unialign_gen",
        "",
        f"generate = unialign_gen.load({settings.checkpoint!r}{decoder})",
        "pictures = generate(",
    ]
    lines += [f"    {prompt.kind}={prompt.name!r}," for prompt in request.prompts[0]]
    if any(prompt.weight != 1 for prompt in request.prompts[0]):
        weights = ", ".join(f'"{p.kind}": {number(p.weight)}' for p in request.prompts[0])
        lines.append(f"    weights={{{weights}}},")
    if request.mix != "lerp":
        lines.append(f"    mix={request.mix!r},")
    lines += [f"    seed={request.seed},", f"    num_inference_steps={request.steps},"]
    lines.append(f"    guidance_scale={number(request.guidance)},")
    lines.append(f"    prior_strength={number(request.prior_strength)},")
    if pictures > 1:
        lines.append(f"    num_images_per_prompt={pictures},")
    lines.append(").images")
    return "\n".join(lines)
