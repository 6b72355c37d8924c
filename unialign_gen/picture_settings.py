"""What made a picture, kept inside its file: the request in its JSON form, and the checkpoint that drew it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import InputError
from .request import Request

if TYPE_CHECKING:
    from PIL import Image

KEYWORD = "unialign_gen"
MOST_BYTES = 1_000_000  # of the text: sixteen prompts with embeddings of the widest space
LONGEST_NAME = 100


@dataclass(frozen=True)
class PictureSettings:
    """A picture's request, and where it was drawn.

    Attributes:
        request: of one picture, with one seed.
        checkpoint, decoder: as in `unialign_gen.load`; the checkpoint's first decoder is "".
        version: of this package.
    """

    request: Request
    checkpoint: str = "starter"
    decoder: str = ""
    version: str = __version__

    def to_json(self) -> str:
        return self.request.to_json(checkpoint=self.checkpoint, decoder=self.decoder, version=self.version)


def parse(text: str, name: str = "the text") -> PictureSettings:
    """Settings from their JSON text, from anywhere: nothing but the fields above, each of its type and in its range.

    Raises:
        InputError: anything else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its settings are damaged") from error
    origin: dict[str, Any] = {}
    for key in ("checkpoint", "decoder", "version"):
        if isinstance(found, dict) and key in found:
            origin[key] = found.pop(key)
            if not isinstance(origin[key], str) or len(origin[key]) > LONGEST_NAME:
                raise InputError(f"{name}: {key} in its settings must be a text of at most {LONGEST_NAME} characters")
    return PictureSettings(Request.from_dict(found, name), **{"version": "", **origin})


def save_picture(picture: Image.Image, path: Path, settings: PictureSettings) -> None:
    """Writes the picture with its settings inside."""
    from PIL.PngImagePlugin import PngInfo

    if path.suffix.lower() != ".png":
        picture.save(path)
        return
    info = PngInfo()
    info.add_itxt(KEYWORD, settings.to_json())
    picture.save(path, format="PNG", pnginfo=info)


def read_picture(path: str | Path) -> PictureSettings:
    """The settings inside a picture file.

    Raises:
        InputError: no picture, none of our settings in it, or settings that are damaged.
    """
    from PIL import Image

    name = Path(path).name
    try:
        with Image.open(path) as picture:
            picture.load()
            text = picture.info.get(KEYWORD) or getattr(picture, "text", {}).get(KEYWORD)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{name} is not a picture that can be read") from error
    if not isinstance(text, str):
        raise InputError(f"{name} holds no settings of this program")
    if len(text) > MOST_BYTES:
        raise InputError(f"{name}: its settings are too long to be ours")
    return parse(text, name)
