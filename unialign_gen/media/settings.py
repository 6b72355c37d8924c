"""Text inside a picture's file, by Pillow: how a picture keeps what made it.

PNG has text chunks for this (iTXt here; tEXt and zTXt, and chunks behind the pixels, are read too, since optimisers rewrite
them). JPEG and WebP keep it as the `UserComment` of EXIF, which most programs copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image

from ..errors import InputError
from ..notes import tell
from .files import binary, name_of

if TYPE_CHECKING:
    from .files import Source

KEYWORD = "unialign_gen"
MOST_BYTES = 2_000_000  # sixteen prompts with vectors of 8192 dimensions are 0.8 MB
MOST_EXIF = 65_000  # in JPEG, whose segments have lengths of 16 bits
FORMATS = ("PNG", "JPEG", "WEBP")
ENCODINGS = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16-be"}  # EXIF 2.32, 4.6.5


def save_picture(picture: Image.Image, path: Path, text: str | None, name: str | None = None) -> None:
    """Writes a PNG, JPEG or WebP file with a text inside; a note where the text is too long for it.

    Args:
        name: what the note calls the file, which may be written under another name first.
    """

    def left_out(reason: str) -> None:
        tell("settings not kept", name=name or path.name, reason=reason)

    if text is not None and len(text.encode()) > MOST_BYTES:
        left_out(f"they are longer than {MOST_BYTES // 1_000_000} MB")
        text = None
    suffix = path.suffix.lower()
    if suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        if text is not None:
            info.add_itxt(KEYWORD, text)
        picture.save(path, format="PNG", pnginfo=info)
        return
    exif = Image.Exif()
    if text is not None:
        comment = f"{KEYWORD}:{text}"
        code, encoding = next((c, e) for c, e in ENCODINGS.items() if e != "ascii" or comment.isascii())
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = code + comment.encode(encoding)
    if suffix in (".jpg", ".jpeg") and len(exif.tobytes()) > MOST_EXIF:
        left_out("they are too long for JPEG, PNG and WebP keep them")
        exif = Image.Exif()
    picture.save(path, exif=exif, quality=95)


def read_settings(source: Source) -> str | None:
    """The text that `save_picture` left in a picture; None where there is none.

    Raises:
        InputError: no PNG, JPEG or WebP, a damaged one, or a text of more than 2 MB.
    """
    file = binary(source)
    name = Path(name_of(source, "the picture")).name
    try:
        with Image.open(file, formats=FORMATS) as picture:
            text = text_in(picture)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they meet
        reason = "it is damaged, or no PNG, JPEG or WebP picture"
        raise InputError(f"the settings of {name} cannot be read: {reason}") from error
    if text is not None and len(text.encode()) > MOST_BYTES:
        raise InputError(f"{name}: its settings are too long to be ours")
    return text


def text_in(picture: Any) -> str | None:
    """From a PNG's text chunks, or from EXIF."""
    if picture.format == "PNG":
        found = picture.info.get(KEYWORD)
        if found is None:
            picture.load()  # the chunks behind the pixels are known once these are read
            found = picture.text.get(KEYWORD)
        if found is not None:
            return str(found)
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(comment, bytes) or comment[:8] not in ENCODINGS:
        return None
    text = comment[8:].decode(ENCODINGS[comment[:8]])
    return text.removeprefix(f"{KEYWORD}:") if text.startswith(f"{KEYWORD}:") else None
