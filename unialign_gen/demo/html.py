"""Pieces of the page as HTML, from `templates/fragments.html.j2`: jinja2 escapes everything that a user wrote."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from PIL import Image
from torch import Tensor

KINDS = {"text": "Words", "audio": "Sound", "video": "Video", "image": "Picture", "embeds": "Vector"}


def data_uri(picture: Image.Image, side: int = 160) -> str:
    """A small JPEG of the picture, inside the page."""
    small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def wave(samples: Tensor, columns: int = 240) -> Markup:
    """The wave of mono samples (n,) as an SVG: the range of each column."""
    if not len(samples):
        return Markup("")
    columns = min(columns, len(samples))
    rows = samples[: len(samples) // columns * columns].reshape(columns, -1)
    high, low = rows.amax(1), rows.amin(1)
    scale = 28 / max(float(torch.maximum(high.abs(), low.abs()).max()), 1e-4)
    lines = enumerate(zip(high.tolist(), low.tolist(), strict=True))
    path = "".join(f"M{i},{30 - top * scale:.1f}V{30 - bottom * scale + 0.5:.1f}" for i, (top, bottom) in lines)
    box = f'viewBox="0 0 {columns} 60" preserveAspectRatio="none" role="img" aria-label="wave"'
    return Markup(f'<svg class="wave" {box}><path d="{path}"/></svg>')


ENVIRONMENT = Environment(loader=PackageLoader("unialign_gen.demo"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.globals |= {"data_uri": data_uri, "wave": wave, "KINDS": KINDS}


def fragment(name: str, *values: Any) -> str:
    """A macro of the fragments, filled in."""
    return str(getattr(ENVIRONMENT.get_template("fragments.html.j2").module, name)(*values))
