"""What is installed and whether it fits together: `doctor`."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
import sys

import typer

from ..console import report, stage
from .app import app
from .options import AsJson

SHOWN = ["torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "timm", "torchmetrics"]
SHOWN += ["av", "pillow", "gradio"]


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, and what does not fit together.

    Also which devices there are; each problem comes with the line that mends it, and exit code 1.
    """
    stage("looking at what is installed")
    found = {"python": platform.python_version(), **{name: version(name) for name in SHOWN}}
    clashes = [*requirements(), *torch_and_torchvision()]
    devices = available()
    lines = [f"{name:<16} {number or 'not installed'}" for name, number in found.items()]
    lines.append(f"{'devices':<16} {', '.join(devices)}")
    lines += [f"problem: {what}\n   mend: {mend}" for what, mend in clashes] or ["no version clashes"]
    problems = [{"what": what, "mend": mend} for what, mend in clashes]
    report({"versions": found, "devices": devices, "problems": problems}, as_json, "\n".join(lines))
    if clashes:
        raise typer.Exit(1)


def version(name: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[tuple[str, str]]:
    """What this package requires and does not find: what is wrong, and the line that mends it."""
    from packaging.requirements import Requirement

    wrong = []
    for text in metadata.requires("unialign_gen") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        here, pip = version(needed.name), f'{sys.executable} -m pip install "{needed.name}{needed.specifier}"'
        if here is None:
            wrong.append((f"{needed.name} is not installed", pip))
        elif not needed.specifier.contains(here, prereleases=True):
            wrong.append((f"{needed.name} {here} is installed, {needed.specifier} is needed", pip))
    return wrong


def torch_and_torchvision() -> list[tuple[str, str]]:
    """Whether the two fit: a torchvision built for another torch fails when it is imported."""
    mend = f"{sys.executable} -m pip install --force-reinstall torch torchvision   (both from one index)"
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return [(f"torchvision does not fit torch: {str(error).splitlines()[0][:120]}", mend)]
    return []


def available() -> list[str]:
    """The devices that pictures can be drawn on here."""
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices
