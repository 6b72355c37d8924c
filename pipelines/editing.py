"""A picture changed by a prompt: img2img, inpainting and ControlNet, what all decoders share of them.

A picture of any size is brought to a size that the decoder knows, edited there, and brought back; what the mask keeps is the
picture's own pixels. Which of diffusers' classes edits, and with which weights of its own, is data: see `Mode`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.media import load_image
from unialign_gen.request import Request
from unialign_gen.request.request import plain

IMG2IMG, INPAINT = 0.7, 1.0  # strength where none is given


@dataclass(frozen=True)
class Edit:
    """What is to become of a picture.

    Attributes:
        picture: what an `image` prompt may be; None only with `control`.
        mask: the same, of any size: white is redrawn, black stays pixel for pixel, grey blends; None for all of the picture.
        strength: 0 to 1, how much is redrawn; 0.7 where it is None, 1 with a mask.
        control: a control map, such as depth or edges, as a picture, for a decoder with a ControlNet.

    Raises:
        InputError: neither picture nor control, a mask without a picture, or a strength that is not from 0 to 1.

    Example:
        >>> Edit("room.png", mask="mask.png").mode, Edit("room.png", control="depth.png").mode
        ('inpaint', 'control+img2img')
    """

    picture: Any = None
    mask: Any = None
    strength: float | None = None
    control: Any = None

    def __post_init__(self) -> None:
        if self.picture is None and (self.control is None or self.mask is not None or self.strength is not None):
            raise InputError("nothing to edit: give a picture, or a control map alone")
        strength: Any = plain(self.strength)
        if strength is not None and (type(strength) not in (int, float) or not 0 <= strength <= 1):
            raise InputError(f"strength must be a number from 0 to 1, got {strength!r}")

    @property
    def mode(self) -> str:
        """One of `img2img`, `inpaint`, `control`, `control+img2img`, `control+inpaint`."""
        plain = "" if self.picture is None else "img2img" if self.mask is None else "inpaint"
        return "+".join(filter(None, ["" if self.control is None else "control", plain]))

    @property
    def described(self) -> str:
        """In words, for the settings inside a picture."""
        names = [
            Path(v).name if isinstance(v, str | Path) else "a picture" for v in (self.picture, self.control) if v is not None
        ]
        return f"{self.mode} of {' with '.join(n[:30] for n in names)}, strength {self.share:g}"

    @property
    def share(self) -> float:
        """The strength that counts."""
        return (IMG2IMG if self.mask is None else INPAINT) if self.strength is None else float(self.strength)


@dataclass(frozen=True)
class Mode:
    """How a decoder edits in one way.

    Attributes:
        kind: diffusers' class.
        component: which of its components has weights of its own, such as `controlnet`, or `unet` where Kandinsky inpaints.
        load: loads that component.

    Example:
        >>> from diffusers import KandinskyV22InpaintPipeline
        >>> Mode(KandinskyV22InpaintPipeline, component="unet").component
        'unet'
    """

    kind: type[DiffusionPipeline]
    component: str = ""
    load: Callable[[], torch.nn.Module] | None = None


@dataclass(frozen=True)
class Canvas:
    """An edit's pictures: as they came, and at the size that the decoder works at.

    Attributes:
        original: RGB, and the mask for it, `L`; None where there is none.
        picture, mask, control: the same at `size`, (width, height).
    """

    size: tuple[int, int]
    original: Image.Image | None
    original_mask: Image.Image | None
    picture: Image.Image | None
    mask: Image.Image | None
    control: Image.Image | None

    @classmethod
    def of(cls, edit: Edit, request: Request, side: int, multiple: int) -> Canvas:
        """The canvas of an edit.

        Raises:
            InputError: a picture that cannot be read, or a mask that is black all over.
        """
        control = None if edit.control is None else load_image(edit.control)
        original = None if edit.picture is None else load_image(edit.picture)
        first = original or control
        assert first is not None
        size = working_size(first.size, side, multiple)
        if request.width or request.height:
            ratio = first.width / first.height
            width = request.width or max(1, round((request.height or 0) * ratio / multiple)) * multiple
            size = (width, request.height or max(1, round(width / ratio / multiple)) * multiple)
            original = original and resized(original, size)
        mask = None
        if edit.mask is not None and original is not None:
            mask = resized(load_image(edit.mask).convert("L"), original.size)
            if not mask.getbbox():
                raise InputError("the mask is black all over, which keeps the whole picture: make white what is to be redrawn")
        small = [image and resized(image, size) for image in (original, mask, control)]
        return cls(size, original, mask, *small)

    @property
    def larger(self) -> bool:
        """Whether the picture is larger than what is drawn."""
        return self.original is not None and self.original.width > self.size[0]

    def finish(self, drawn: Sequence[Image.Image]) -> list[Image.Image]:
        """What was drawn, at the picture's own size, with its own pixels where the mask is black."""
        if self.original is None:
            return list(drawn)
        back = [resized(picture, self.original.size) for picture in drawn]
        if self.original_mask is None:
            return back
        return [Image.composite(picture, self.original, self.original_mask) for picture in back]


def working_size(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """A width and a height of nearly the same ratio, whose area is about side * side, in multiples of `multiple`.

    >>> working_size((1920, 1080), 512, 64)
    (704, 384)
    """
    scale = side / math.sqrt(size[0] * size[1])
    width, height = (max(1, round(length * scale / multiple)) * multiple for length in size)
    return width, height


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def to_tensor(picture: Image.Image) -> Tensor:
    """A picture (3, h, w) in [0, 1], as Kandinsky takes a control map."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).permute(2, 0, 1)


def accepted(kind: type[DiffusionPipeline], **options: Any) -> dict[str, Any]:
    """Those of the options that a call of diffusers' class takes."""
    return {name: value for name, value in options.items() if name in inspect.signature(kind.__call__).parameters}


def editor(pipeline: Any, mode: Mode, kind: type[DiffusionPipeline], loaded: dict[Any, torch.nn.Module]) -> Any:
    """An instance of `kind` with the pipeline's components, and the one that the mode has of its own, kept in `loaded`."""
    parts = shared_parts(pipeline, kind)
    if mode.load is not None:
        if mode.load not in loaded:
            loaded[mode.load] = mode.load().eval()
        parts[mode.component] = loaded[mode.load].to(pipeline._execution_device, pipeline.decoder_dtype)
    made = kind(**parts)
    made.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))
    return made


def shared_parts(pipeline: Any, kind: type[DiffusionPipeline]) -> dict[str, Any]:
    """What of a pipeline's components and settings another of diffusers' classes is made of."""
    names, components = inspect.signature(kind.__init__).parameters, pipeline.components
    settings = {n: v for n, v in pipeline.config.items() if n in names and n not in components}
    return {n: part for n, part in components.items() if n in names} | settings
