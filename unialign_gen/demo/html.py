"""Pieces of the page: progress, concepts, what was heard and seen. Everything that a user wrote is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import torch
from PIL import Image
from torch import Tensor

from ..media import Clip, Sound
from ..notes import Note
from ..request import Prompt
from .engine import Progress

SYMBOLS = {"text": "Text", "audio": "Sound", "video": "Video", "image": "Picture"}


def data_uri(picture: Image.Image, side: int = 160) -> str:
    """A small JPEG of the picture, inside the page."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def stage(progress: Progress) -> str:
    """A bar, and the pictures as they are so far."""
    share = 100 * progress.done / max(1, progress.total)
    pictures = "".join(f'<img alt="preview" src="{data_uri(p, 256)}">' for p in progress.pictures)
    return (
        f'<div class="ua-stage" role="status"><div class="ua-line"><span>{escape(progress.what)}</span>'
        f"<span>{progress.done} of {progress.total}</span></div>"
        f'<div class="ua-track"><div style="width:{share:.0f}%"></div></div><div class="ua-previews">{pictures}</div></div>'
    )


def note(words: str) -> str:
    return f'<div class="ua-note" role="status">{escape(words)}</div>' if words else ""


def bars(concepts: Sequence[tuple[str, float]]) -> str:
    """Concepts with their cosines as bars; a cosine below zero has no bar."""
    rows = "".join(
        f'<div class="ua-bar"><span>{escape(name)}</span><div><div style="width:{max(0.0, cosine) * 100:.0f}%"></div></div>'
        f"<code>{cosine:.2f}</code></div>"
        for name, cosine in concepts
    )
    return f'<div class="ua-bars">{rows}</div>'


def understood(
    concepts: Sequence[tuple[str, float]], prompts: Sequence[Prompt], each: Sequence[Sequence[tuple[str, float]]]
) -> str:
    """What the mix, and each prompt in it, was understood as."""
    if not concepts:
        return note("This model has no table of concepts.")
    rows = ""
    if len(prompts) > 1:
        for prompt, near in zip(prompts, each, strict=True):
            names = ", ".join(f"{escape(n)} {c:.2f}" for n, c in near)
            rows += f"<li><b>{SYMBOLS[prompt.kind]}</b> {escape(prompt.name)}: {names}</li>"
        rows = f'<ul class="ua-apart">{rows}</ul>'
    return f'<div class="ua-card"><h4>Understood as</h4>{bars(concepts)}{rows}</div>'


def notes(found: Sequence[Note]) -> str:
    """What was lost or guessed, for the picture that is shown."""
    rows = "".join(f"<li><b>{escape(n.kind)}</b> {escape(n.text)}</li>" for n in found)
    return f'<ul class="ua-notes" role="status">{rows}</ul>' if rows else ""


def seen(prompts: Sequence[Prompt]) -> str:
    """What the encoders took of each file: the sound's wave, the sampled frames, the picture."""
    cards = ""
    for prompt in prompts:
        value = prompt.value
        if isinstance(value, Sound):
            inner, said = wave(value.samples), f"{len(value.samples) / value.rate:.1f} s heard"
        elif isinstance(value, Clip):
            inner = (
                '<div class="ua-frames">' + "".join(f'<img alt="frame" src="{data_uri(f)}">' for f in value.frames) + "</div>"
            )
            inner += wave(value.sound) if value.sound is not None else ""
            said = f"{len(value.frames)} frames seen" + ("" if value.sound is None else ", and its sound heard")
        elif isinstance(value, Image.Image):
            inner = f'<div class="ua-frames"><img alt="picture" src="{data_uri(value, 220)}"></div>'
            said = f"{value.width} x {value.height} pixels seen"
        else:
            continue
        cards += f'<div class="ua-card"><h4>{SYMBOLS[prompt.kind]}: {escape(prompt.name)}</h4>{inner}<p>{said}</p></div>'
    return cards or note("Words only: nothing was heard or seen.")


def wave(samples: Tensor, columns: int = 240) -> str:
    """The wave of mono samples (n,) as an SVG: the range of each column."""
    if not len(samples):
        return ""
    columns = min(columns, len(samples))
    step = len(samples) // columns
    rows = samples[: step * columns].reshape(columns, step)
    high, low = rows.amax(1), rows.amin(1)
    scale = 28 / max(float(torch.maximum(high.abs(), low.abs()).max()), 1e-4)
    lines = enumerate(zip(high.tolist(), low.tolist(), strict=True))
    path = "".join(f"M{i},{30 - top * scale:.1f}V{30 - bottom * scale + 0.5:.1f}" for i, (top, bottom) in lines)
    box = f'viewBox="0 0 {columns} 60" preserveAspectRatio="none" role="img" aria-label="wave"'
    return f'<svg class="ua-wave" {box}><path d="{path}"/></svg>'
