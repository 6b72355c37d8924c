"""What made a picture, kept inside its file: the request in its JSON form, and the checkpoint that drew it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError, as_input_error
from ..notes import tell
from .request import Request

if TYPE_CHECKING:
    from PIL import Image

LONGEST_NAME = 4096


@dataclass(frozen=True)
class PictureSettings:
    """A picture's request, and where it was drawn.

    Attributes:
        request: of one picture, with one seed.
        checkpoint, decoder: as in `unialign_gen.load`; "" is the checkpoint's first decoder.
        version: of this package.
        edit: what was edited, in words; the settings do not hold that picture, so that they alone draw another.
    """

    request: Request
    checkpoint: str = "starter"
    decoder: str = ""
    version: str = __version__
    edit: str = ""

    def to_json(self) -> str:
        edited = {"edit": self.edit} if self.edit else {}
        return self.request.to_json(checkpoint=self.checkpoint, decoder=self.decoder, version=self.version, **edited)


def parse(text: str, name: str = "the text") -> PictureSettings:
    """Settings from their JSON text, from anywhere: nothing but the fields above, each of its type and in its range.

    Raises:
        InputError: anything else.
    """
    with as_input_error(f"{name}: its settings are damaged", ValueError, RecursionError):
        found = json.loads(text)
    origin: dict[str, Any] = {}
    for key in ("checkpoint", "decoder", "version", "edit"):
        if isinstance(found, dict) and key in found:
            origin[key] = found.pop(key)
            if not isinstance(origin[key], str) or len(origin[key]) > LONGEST_NAME:
                raise InputError(f"{name}: {key} in its settings must be a text of at most {LONGEST_NAME} characters")
    return PictureSettings(Request.from_dict(found, name), **{"version": "", **origin})


def save_picture(picture: Image.Image, path: Path, settings: PictureSettings | None, name: str | None = None) -> None:
    """Writes a PNG, JPEG or WebP picture with settings inside, see `media.settings`; a note where they cannot be kept."""
    from ..media.settings import save_picture

    text = settings.to_json() if settings else None
    try:
        if text is not None:
            parse(text)
    except InputError as error:  # a prompt longer than is read back, say
        tell("settings not kept", name=name or path.name, reason=error)
        text = None
    save_picture(picture, path, text, name)


def read_picture(path: str | Path) -> PictureSettings:
    """The settings inside a picture file.

    Raises:
        InputError: no picture, none of our settings in it, or settings that are damaged.
    """
    from ..media.settings import read_settings

    text = read_settings(path)
    if text is None:
        raise InputError(f"{Path(path).name} holds no settings of this program")
    return parse(text, Path(path).name)
