"""The command and the Python that make pictures again, from the settings of the first."""

from __future__ import annotations

import shlex
from typing import Any

from ..request import Prompt, Request
from ..request.picture_settings import PictureSettings

FIELDS = ("mix", "seed", "steps", "guidance", "prior_strength", "prior_temperature", "best_of", "upscale", "height", "width")
ARGUMENTS = {"steps": "num_inference_steps", "guidance": "guidance_scale", "pictures": "num_images_per_prompt"}


def number(value: float) -> str:
    """As short as it can be without losing anything."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def by_kind(settings: PictureSettings) -> dict[str, list[Prompt]]:
    prompts = settings.request.prompts[0]
    return {kind: [p for p in prompts if p.kind == kind] for kind in dict.fromkeys(p.kind for p in prompts)}


def options(request: Request, pictures: int) -> dict[str, Any]:
    """What a call names beside the prompts: what it would not do of itself."""
    found = {name: getattr(request, name) for name in FIELDS} | {"pictures": pictures}
    return {name: value for name, value in found.items() if value not in (None, {"mix": "lerp", "pictures": 1}.get(name))}


def command(settings: PictureSettings, pictures: int = 1, edit: dict[str, Any] | None = None) -> str:
    """What to type; files are named as they were uploaded. `edit` has the options of an edit, where it is one."""
    request, kinds = settings.request, by_kind(settings)
    if request.height or "embeds" in kinds:
        return "# The command line takes neither sizes nor vectors: use Python."
    words = ["unialign-gen", *(["generate"] if edit is None else ["edit", "picture.png"])]
    words += [str(word) for name, value in (edit or {}).items() for word in (f"--{name}", value)]
    for name, kind in ((p.name, kind) for kind, prompts in kinds.items() for p in prompts):
        value = f"./{name}" if kind != "text" and name.startswith("-") else name  # a file's name is no option
        words += [f"--{kind}={value}"] if value.startswith("-") else [f"--{kind}", value]
    if any(p.weight != 1 for p in request.prompts[0]):
        for kind, prompts in kinds.items():
            words += ["--weight", f"{kind}={','.join(number(p.weight) for p in prompts)}"]
    for name, value in options(request, pictures).items():
        flag = "num-images" if name == "pictures" else name.replace("_", "-")
        words += [f"--{flag}", value if isinstance(value, str) else number(value)]
    words += ["--checkpoint", settings.checkpoint] if settings.checkpoint != "starter" else []
    words += ["--decoder", settings.decoder] if settings.decoder else []
    return shlex.join([*words, "--out", "picture.png" if edit is None else "edited.png"])


def python(settings: PictureSettings, pictures: int = 1, edit: dict[str, Any] | None = None) -> str:
    """A program that leaves the pictures in `pictures`."""
    decoder, kinds = f", decoder={settings.decoder!r}" if settings.decoder else "", by_kind(settings)
    lines = ["import unialign_gen", "", f"generate = unialign_gen.load({settings.checkpoint!r}{decoder})"]
    lines += ["pictures = generate("] if edit is None else ["pictures = generate.edit(", '    "picture.png",']
    lines += [f"    {name}={value!r}," for name, value in (edit or {}).items()]

    def tuple_of(values: list[str]) -> str:
        return values[0] if len(values) == 1 else f"({', '.join(values)})"

    for kind, prompts in kinds.items():
        lines.append(f"    {kind}={tuple_of([repr(list(p.value) if kind == 'embeds' else p.name) for p in prompts])},")
    if any(p.weight != 1 for p in settings.request.prompts[0]):
        weights = ", ".join(f'"{kind}": {tuple_of([number(p.weight) for p in prompts])}' for kind, prompts in kinds.items())
        lines.append(f"    weights={{{weights}}},")
    for name, value in options(settings.request, pictures).items():
        lines.append(f"    {ARGUMENTS.get(name, name)}={repr(value) if isinstance(value, str) else number(value)},")
    return "\n".join([*lines, ").images"])
