"""The command and the Python that make a picture again, from its settings."""

from __future__ import annotations

import shlex

from ..settings_png import Prompt, Settings


def number(value: float) -> str:
    """As short as it can be without losing anything."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def place(prompt: Prompt) -> str:
    """A prompt as the command line takes it: a file's name cannot be mistaken for an option."""
    return f"./{prompt.value}" if prompt.kind != "text" and prompt.value.startswith("-") else prompt.value


def command(settings: Settings, out: str = "picture.png") -> str:
    """What to type; files are named as they were uploaded."""
    words = ["unialign-gen", "generate"]
    for prompt in settings.prompts:
        value = place(prompt)
        words += [f"--{prompt.kind}={value}"] if value.startswith("-") else [f"--{prompt.kind}", value]
    if any(prompt.weight != 1 for prompt in settings.prompts):
        for prompt in settings.prompts:
            words += ["--weight", f"{prompt.kind}={number(prompt.weight)}"]
    if settings.mix != "lerp":
        words += ["--mix", settings.mix]
    words += ["--seed", str(settings.seed), "--steps", str(settings.steps), "--guidance", number(settings.guidance)]
    words += ["--prior-strength", number(settings.prior_strength)]
    if settings.pictures > 1:
        words += ["--num-images", str(settings.pictures)]
    if settings.checkpoint != "starter":
        words += ["--checkpoint", settings.checkpoint]
    if settings.decoder:
        words += ["--decoder", settings.decoder]
    return shlex.join([*words, "--out", out])


def python(settings: Settings) -> str:
    """A program that leaves the pictures in `pictures`."""
    decoder = f", decoder={settings.decoder!r}" if settings.decoder else ""
    lines = [
        "import unialign_gen",
        "",
        f"generate = unialign_gen.load({settings.checkpoint!r}{decoder})",
        "pictures = generate(",
    ]
    lines += [f"    {prompt.kind}={prompt.value!r}," for prompt in settings.prompts]
    if any(prompt.weight != 1 for prompt in settings.prompts):
        weights = ", ".join(f'"{p.kind}": {number(p.weight)}' for p in settings.prompts)
        lines.append(f"    weights={{{weights}}},")
    if settings.mix != "lerp":
        lines.append(f"    mix={settings.mix!r},")
    lines += [f"    seed={settings.seed},", f"    num_inference_steps={settings.steps},"]
    lines.append(f"    guidance_scale={number(settings.guidance)},")
    lines.append(f"    prior_strength={number(settings.prior_strength)},")
    if settings.pictures > 1:
        lines.append(f"    num_images_per_prompt={settings.pictures},")
    lines.append(").images")
    return "\n".join(lines)
