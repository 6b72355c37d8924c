"""The colour that a picture has, by name, and the same picture in another one."""

from __future__ import annotations

import numpy as np
from PIL import Image

HUES = {"red": 0, "orange": 28, "yellow": 50, "green": 120, "blue": 220, "purple": 277, "pink": 325}  # degrees
EDGES = {"red": 14, "orange": 41, "yellow": 68, "green": 165, "blue": 255, "purple": 300, "pink": 345}  # each up to this degree
SHADES = ("black", "white", "grey")
NAMES = (*HUES, "brown", *SHADES)
PAINTS = {"brown": (0.7, 0.45), "pink": (0.5, 1.0), "yellow": (0.85, 1.0), "orange": (0.85, 1.0)}  # saturation and value
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def hsv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB in [0, 1] (..., 3) -> hue in degrees, saturation and value in [0, 1], (...) each."""
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = np.maximum(high - low, 1e-6)
    r, g, b = np.moveaxis(rgb, -1, 0)
    sector = np.where(high == r, (g - b) / chroma % 6, np.where(high == g, (b - r) / chroma + 2, (r - g) / chroma + 4))
    return 60 * sector, (high - low) / np.maximum(high, 1e-6), high


def rgb_of(hue: np.ndarray | float, saturation: np.ndarray | float, value: np.ndarray | float) -> np.ndarray:
    """The inverse of `hsv`."""
    k = (np.asarray(hue)[..., None] / 60 + np.array([5, 3, 1])) % 6
    part = np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.asarray(value)[..., None] * (1 - np.asarray(saturation)[..., None] * part)


def named(picture: Image.Image) -> str:
    """The colour that most of an RGBA cut-out has, one of `NAMES`, or "" if it has none.

    A hue counts if it covers a third of the thing and two thirds of what is coloured at all; brown is a dark red to yellow;
    a shade counts if it covers two thirds of the thing.
    """
    pixels = np.asarray(picture, dtype=np.float32) / 255
    inside = pixels[pixels[..., 3] > 0.5]
    if len(inside) < 16:
        return ""
    hue, saturation, value = hsv(inside[:, :3])
    coloured = (saturation > 0.22) & (value > 0.18)
    brown = coloured & (value < 0.66) & ((hue < 45) | (hue > 350)) & (saturation < 0.85)
    hues = np.searchsorted(list(EDGES.values()), hue, side="right") % len(HUES)
    shades = [~coloured & (value < 0.39), ~coloured & (value > 0.86), ~coloured]
    places = np.select([*shades, brown], [*map(NAMES.index, SHADES), NAMES.index("brown")], hues)
    count = np.bincount(places, minlength=len(NAMES))
    of_hues, of_shades = count[: -len(SHADES)], count[-len(SHADES) :]
    if of_hues.max() > max(len(hue) / 3, of_hues.sum() * 2 / 3):
        return NAMES[of_hues.argmax()]
    return SHADES[of_shades.argmax()] if of_shades.max() > len(hue) * 2 / 3 else ""


def recoloured(picture: Image.Image, colour: str) -> Image.Image:
    """An RGBA cut-out in a colour: `red`, `dark red`, `light red`, `black`, `white`, or another of `NAMES` with a hue.

    Something of it must be opaque. Hues turn, so that light stays light and a second colour differs still; what has little
    colour is painted, its darks and lights kept. Black and white things keep their outlines.
    """
    pixels = np.asarray(picture, dtype=np.float32) / 255
    rgb, opacity = pixels[..., :3], pixels[..., 3]
    luma = rgb @ LUMA
    mode, _, name = colour.rpartition(" ")
    if name == "black":
        out = np.repeat((0.05 + 0.33 * luma)[..., None], 3, -1)
    elif name in ("white", "grey"):
        low, high = (0.72, 1.0) if name == "white" else (0.3, 0.75)
        dark, light = np.percentile(luma[opacity > 0.5], (5, 95))
        spread = np.clip((luma - dark) / max(light - dark, 0.05), 0, 1)
        out = np.repeat((np.where(luma < 0.18, luma + 0.1, low + (high - low) * spread))[..., None], 3, -1)
    else:
        out = hued(rgb, opacity, luma, name)
    if mode == "dark":
        out = out * 0.5
    elif mode == "light":
        out = 1 - 0.5 * (1 - out)
    pixels = np.concatenate([out, opacity[..., None]], -1)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8), "RGBA")


def hued(rgb: np.ndarray, opacity: np.ndarray, luma: np.ndarray, name: str) -> np.ndarray:
    """Colours (h, w, 3) turned, or painted, so that the strongest is the named hue."""
    target = 24.0 if name == "brown" else float(HUES[name])
    hue, saturation, value = hsv(rgb)
    weight = opacity + 1e-6
    count, _ = np.histogram(hue, bins=36, range=(0, 360), weights=weight * saturation * value)
    own = 10 * int(np.argmax(count + np.roll(count, 1) + np.roll(count, -1))) + 5.0
    if (weight * ((saturation > 0.22) & (value > 0.18))).sum() / weight.sum() > 0.5:  # most of it has a colour
        turned = (hue + target - own) % 360
        near = np.abs((turned - target + 180) % 360 - 180) < 50  # shades of the main colour, brought nearer to it
        turned = np.where(near, target + 0.4 * ((turned - target + 180) % 360 - 180), turned)
        if name == "brown":
            return rgb_of(turned, saturation.clip(0, 0.7), value * 0.6)
        # yellow is light and blue may be dark: the strongest colour is given the lightness that its name wants
        gain = 1.25 if name in ("yellow", "orange") else 1.0
        stronger = np.where(near & (saturation > 0.15), (saturation * 1.3).clip(0.35, 1), saturation)
        return rgb_of(turned, stronger, (value * gain).clip(0, 1))
    full = rgb_of(target, *PAINTS.get(name, (0.85, 0.85)))
    t = (luma * 0.75 / max(float(np.percentile(luma[opacity > 0.5], 95)), 0.3)).clip(0, 1)[..., None]
    middle = 0.6  # darks lead up to the colour, lights on towards white
    return np.where(t < middle, full * (t / middle) ** 0.7, full + (1 - full) * ((t - middle) / (1 - middle)) * 0.55)
