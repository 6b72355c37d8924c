"""What other libraries hand over for a sound, a picture or a video, as this package's own.

| | sound | picture | video |
|---|---|---|---|
| any | path, bytes, file object, `{"path": ..., "bytes": ...}` (datasets, undecoded) | the same | the same |
| numpy, torch | `(rate, array)` (gradio), `{"array" or "raw", "sampling_rate"}` (datasets, transformers), `Sound` |
  (H, W), (H, W, C), (C, H, W) | (T, H, W, C), (T, C, H, W), or a list of pictures |
| torchcodec | `AudioDecoder`, `AudioSamples` | - | `VideoDecoder` |
| others | - | PIL | `{"video": path}` (gradio), `Clip` |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..notes import tell
from .arrays import is_tensor, to_numpy, to_tensor
from .sound import Sound, check_rate, full_scale

MOST_CHANNELS = 64


def is_file(value: Any) -> bool:
    """Whether it is a path, bytes or a file object."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or callable(getattr(value, "read", None))


def is_sound_pair(value: Any) -> bool:
    """Whether a tuple or list is one sound, `(rate, array)`, not two."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    return isinstance(value[0], int | float | np.number) and hasattr(value[1], "__len__") and not isinstance(value[1], str)


def as_sound(value: Any) -> Any:
    """A `Sound`, or a file (path, bytes, file object); an `InputError` for anything else."""
    if isinstance(value, Sound) or is_file(value):
        return value
    if is_sound_pair(value):
        return from_array(value[1], value[0])
    if callable(getattr(value, "get_all_samples", None)):  # torchcodec's AudioDecoder, and that of datasets
        return as_sound(value.get_all_samples())
    if is_tensor(getattr(value, "data", None)) and hasattr(value, "sample_rate"):  # torchcodec's AudioSamples
        return from_array(value.data, value.sample_rate)
    if isinstance(value, Mapping):
        array = next((value[k] for k in ("array", "raw") if value.get(k) is not None), None)
        if array is not None:
            if value.get("sampling_rate") is None:
                raise InputError('a sound as a mapping needs "sampling_rate" beside its "array"')
            return from_array(array, value["sampling_rate"], str(value.get("path") or "the sound"))
        return from_mapping(value, "sound")
    if isinstance(value, np.ndarray) or is_tensor(value):
        raise InputError("a sound as an array needs its rate: give (rate, array)")
    raise InputError(
        "a sound must be a path, bytes, a file object, (rate, array), a mapping with array and sampling_rate, a media.Sound "
        f"or a torchcodec decoder, got {type(value).__name__}"
    )


def from_array(array: Any, rate: Any, name: str = "the sound") -> Sound:
    """A sound from samples (n,), (n, channels) or (channels, n) of any type; the longer axis is time."""
    samples = to_numpy(array, name)
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or samples.size == 0 or (samples.ndim == 2 and len(samples) > MOST_CHANNELS):
        raise InputError(f"{name} must be a non-empty array (n,), (n, channels) or (channels, n), got shape {samples.shape}")
    if samples.dtype.kind == "i" and samples.dtype.itemsize > 2 and 0 < np.abs(samples).max() < 2**15:
        # as wider samples they would be silent
        samples = samples.astype(np.int16)
        tell("whole numbers", name=name)
    return Sound(to_tensor(np.ascontiguousarray(full_scale(samples))), check_rate(rate, name), name)


def from_mapping(value: Mapping[str, Any], kind: str) -> Any:
    """The file of a mapping with `bytes`, `path` or `video`."""
    found = next((value[k] for k in ("bytes", "path", "video", "name") if value.get(k) is not None), None)
    if found is None or not is_file(found):
        raise InputError(
            f"a {kind} as a mapping needs a file under path or bytes, got {', '.join(map(str, value)) or 'nothing'}"
        )
    return found


def as_picture(value: Any) -> Any:
    """A PIL picture, or a file; an `InputError` for anything else."""
    if isinstance(value, Image.Image) or is_file(value):
        return value
    if isinstance(value, Mapping):
        return from_mapping(value, "picture")
    if isinstance(value, np.ndarray) or is_tensor(value):
        return picture_of(to_numpy(value, "the picture"))
    raise InputError(f"a picture must be a path, bytes, a file object, PIL, an array or a tensor, got {type(value).__name__}")


def picture_of(pixels: np.ndarray) -> Image.Image:
    """A picture from (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels: whole numbers by their type, floats in [0, 1].

    Raises:
        InputError: another shape, or floats outside [0, 1].
    """
    shape = pixels.shape
    if pixels.ndim == 3 and shape[2] not in (1, 2, 3, 4) and shape[0] in (1, 2, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.size == 0:
        raise InputError(f"a picture as an array must be (H, W), (H, W, C) or (C, H, W), got shape {shape}")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype.kind == "f":
        if not (np.isfinite(pixels).all() and pixels.min() >= -0.01 and pixels.max() <= 1.01):
            low, high = pixels.min(), pixels.max()
            raise InputError(f"a picture of floats must be in [0, 1], got {low:g} to {high:g}: scale it, or give uint8")
        pixels = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        most = 255 if pixels.dtype.itemsize > 2 or pixels.dtype.kind == "i" else 65535  # uint16 alone is scaled by its type
        if pixels.min() < 0 or pixels.max() > most:
            raise InputError(f"a picture of {pixels.dtype} must hold 0 to {most}, got {pixels.min()} to {pixels.max()}")
        pixels = np.round(pixels.astype(np.float64) * (255 / most)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


class Frames:
    """A video in memory as pictures that are made when they are asked for; any sequence of them.

    Args:
        rate: pictures a second, if known.
    """

    def __init__(self, pictures: Any, rate: float | None = None):
        self.pictures, self.rate = pictures, rate

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return as_picture(self.pictures[index])


def as_video(value: Any) -> Any:
    """`Frames`, or a file; an `InputError` for anything else."""
    if isinstance(value, Frames) or is_file(value):
        return value
    if isinstance(value, Mapping):
        return from_mapping(value, "video")
    metadata = getattr(value, "metadata", None)
    if callable(getattr(value, "get_frame_at", None)):  # torchcodec's VideoDecoder
        return Frames(value, getattr(metadata, "average_fps", None))
    if isinstance(value, np.ndarray) or is_tensor(value):
        if value.ndim != 4 or not len(value):
            raise InputError(f"a video as an array must be (T, H, W, C) or (T, C, H, W), got shape {tuple(value.shape)}")
        return Frames(value)
    if isinstance(value, list | tuple) and value:
        return Frames(value)
    raise InputError(
        "a video must be a path, bytes, a file object, a list of pictures, an array (T, H, W, C), a media.Clip or a torchcodec "
        f"decoder, got {type(value).__name__}"
    )


def is_one(kind: str, value: Any) -> bool:
    """Whether a value is one input of `text`, `audio`, `video` or `image`, not several of them."""
    return not isinstance(value, list | tuple) or (kind == "audio" and is_sound_pair(value))
