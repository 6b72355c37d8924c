"""What one request may ask for, and what the page as a whole may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds of the page; the defaults suit a public host with two cores.

    Attributes:
        text: characters of a prompt.
        file_bytes: of one upload. request_bytes: of any other request's body. cache_bytes: of all files that wait to be
            removed; `cache_seconds` after they came they are.
        pixels: of a picture. frame_pixels: of a video's frame. media_seconds: of a recording or a video.
        decode_seconds, decode_bytes: time and memory that decoding one file may take; `decoders` are decoded at a time.
        pictures, steps, guidance, weight: of one request. seed: the largest.
        frames: pictures of a way from prompt to prompt.
        film_seconds: of a recording that becomes a film, `film_pictures` a second at most.
        job_seconds: drawing one request.
        together: pictures drawn in one batch, and requests under way at a time. waiting: requests in the queue.
        requests_a_minute: of one address, uploads included; `logins_a_minute` of them may be attempts to log in.
        loaded: checkpoints in memory.
    """

    text: int = 500
    file_bytes: int = 30_000_000
    request_bytes: int = 200_000
    cache_bytes: int = 1_000_000_000
    cache_seconds: int = 3600
    pixels: int = 40_000_000
    frame_pixels: int = 4096 * 2304
    media_seconds: float = 600.0
    decode_seconds: float = 20.0
    decode_bytes: int = 1_500_000_000
    decoders: int = 2
    pictures: int = 8
    steps: int = 50
    guidance: float = 20.0
    weight: float = 2.0
    seed: int = 2**31 - 1
    frames: int = 48
    film_seconds: float = 30.0
    film_pictures: float = 8.0
    job_seconds: float = 300.0
    together: int = 16
    waiting: int = 48
    requests_a_minute: int = 1200
    logins_a_minute: int = 20
    loaded: int = 3


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, or an `InputError`."""
    number = decimal(value, name, low, high)
    if number != int(number):
        raise InputError(f"{name} must be a whole number, got {number:g}")
    return int(number)


def decimal(value: Any, name: str, low: float, high: float) -> float:
    """A finite number from `low` to `high`, or an `InputError`."""
    # a comparison with NaN is false; whole numbers of any length compare
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def words(value: Any, name: str, most: int) -> str:
    """A text without surrounding space, empty for none; an `InputError` for what is no text, or a longer one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text")
    if len(value) > most:
        raise InputError(f"{name} has {len(value)} characters: at most {most}")
    return value.strip()


def choice(value: Any, name: str, among: tuple[str, ...]) -> str:
    """One of `among`, or an `InputError`."""
    if not isinstance(value, str) or value not in among:
        raise InputError(f"{name} must be one of {', '.join(among)}")
    return value
