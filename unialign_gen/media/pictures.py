"""Pictures through Pillow, as 8 bit sRGB."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import InputError, as_input_error
from ..notes import tell
from .display import on_white
from .files import Source, binary, name_of
from .inputs import as_picture

MAX_PIXELS = 100_000_000
# Pillow's readers that start other programs, find a picture in a file of something else, or take minutes for a small file
NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "BLP"}
MOVING = {"GIF", "WEBP", "PNG", "TIFF"}  # formats of several pictures; what a camera puts beside a picture is none of them
BLANK = 0.5  # a picture of which more is missing is refused
ALIKE = 2  # of 255, what compression makes of one colour
DEEP = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}


def readable() -> list[str]:
    """Pillow's formats that are read here, HEIF among them where pillow-heif is installed."""
    Image.init()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return [name for name in Image.OPEN if name not in NOT_READ]


def load_image(source: Any, formats: Collection[str] | None = None) -> Image.Image:
    """An upright RGB picture in sRGB: EXIF rotation applied, transparency laid on white.

    Of an animation, or of several pages, it is the first, with a note.

    16 bit samples are scaled by their type; floats that leave [0, 1] from their 0.1 and 99.9 percentiles. What is there of
    a file whose end is missing is read, with a note.

    Args:
        source: a path, bytes, a file object, a PIL picture, an array or a tensor, see `media.inputs`.
        formats: Pillow's names of those that are taken; all that Pillow reads by itself if None.

    Raises:
        InputError: the file is missing, empty, no picture, mostly missing, or larger than 100 megapixels.
    """
    found = as_picture(source)
    name = name_of(found, "the picture")
    if isinstance(found, Image.Image):
        name = getattr(found, "filename", "") or name
        check_size(found, name)
        with as_input_error(f"{name} is a damaged picture: {{error}}", OSError, SyntaxError, ValueError):
            found.load()  # one that was only opened
        return flatten(found, name)
    with opened_picture(found, formats) as (picture, file):
        count = getattr(picture, "n_frames", 1) if picture.format in MOVING else 1
        if count > 1:
            tell("first picture", name=name, count=count)
        return flatten(complete(picture, file, name), name)


def tell_blank(pictures: Sequence[Image.Image], name: str) -> None:
    """A note where RGB pictures, those of a video say, are all of one colour."""
    if all(np.ptp(np.asarray(picture), axis=(0, 1)).max() <= ALIKE for picture in pictures):
        tell("blank", name=name)


@contextmanager
def opened_picture(source: Source, formats: Collection[str] | None = None) -> Iterator[tuple[Image.Image, Any]]:
    """A picture file whose header is read and whose pixels are not, and the file itself.

    Raises:
        InputError: no picture, one of another format, or too many pixels; or inside, a damaged picture.
    """
    name, file = name_of(source, "the picture"), binary(source)
    known = readable()
    try:
        with Image.open(file, formats=known) as picture:
            if formats is not None and picture.format not in formats:
                raise InputError(f"{name} is a {picture.format} picture, which is not taken here: give {listed(formats)}")
            check_size(picture, name)
            yield picture, file
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if is_heif(file) and "HEIF" not in known:
            raise InputError(f"{name} is a HEIF picture: it needs one package more: pip install pillow-heif") from error
        raise InputError(f"{name} is not a picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large: at most {MAX_PIXELS // 1_000_000} megapixels are read") from error
    except Exception as error:  # Pillow's decoders raise whatever their formats' parsers raise
        raise InputError(f"{name} is a damaged picture: {' '.join(str(error).split()) or type(error).__name__}") from error


def listed(names: Collection[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def check_size(picture: Image.Image, name: str) -> None:
    if not picture.width or not picture.height:
        raise InputError(f"{name} has no pixels")
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{name} has {picture.width} x {picture.height} pixels: at most {MAX_PIXELS // 1_000_000} megapixels are read"
        )


def is_heif(file: Any) -> bool:
    """Whether a file says that it is a HEIF picture (ISO 23008-12, 10.2), which FFmpeg would take for a video."""
    with suppress(OSError), nullcontext(file) if hasattr(file, "read") else open(file, "rb") as opened:
        opened.seek(0)
        head = opened.read(64)
        opened.seek(0)
        brand = head[8:12]
        return head[4:8] == b"ftyp" and brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif")
    return False


class CutTails:
    """Pillow's switch that makes it read a file whose end is missing; it is one for all threads.

    Who loads while another thread has it on sees by `uses` and `lock` that a missing end may have gone unnoticed.
    """

    lock = threading.Lock()
    uses = 0

    @classmethod
    def load(cls, file: Any, form: str) -> Image.Image:
        """Call it with the lock held."""
        picture = Image.open(file, formats=[form])
        cls.uses += 1
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            picture.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
        return picture


def complete(picture: Image.Image, file: Any, name: str) -> Image.Image:
    """The picture with its pixels, as far as the file goes."""
    form = picture.format or ""
    before, busy = CutTails.uses, CutTails.lock.locked()  # in this order: one that begins between the two is seen
    try:
        picture.load()
        if not busy and CutTails.uses == before and not CutTails.lock.locked():
            return picture
    except OSError as error:
        if "truncated" not in str(error).lower():
            raise
    with CutTails.lock:
        again: Image.Image = Image.open(file, formats=[form])  # from its start
        try:
            again.load()
            return again
        except OSError:
            again = CutTails.load(file, form)
    there = 1 - missing(again)
    if there < BLANK:
        raise InputError(f"{name} is a damaged picture: {1 - there:.0%} of it is missing")
    tell("cut", name=name, there=f"{math.floor(100 * there)} %", stated="its rows")
    return again


def missing(picture: Image.Image) -> float:
    """The share of rows at the end, or at the start of one from bottom to top, which decoders leave black or grey."""
    rows = np.asarray(picture).reshape(picture.height, -1)
    empty = (rows == rows[:, :1]).all(1) & np.isin(rows[:, 0], (0, 128))
    full = np.flatnonzero(~empty)
    return max(full[0], len(rows) - 1 - full[-1]) / len(rows) if len(full) else 1.0


def flatten(picture: Image.Image, name: str = "the picture") -> Image.Image:
    """8 bit RGB, upright, on white."""
    form, picture = picture.format, ImageOps.exif_transpose(picture)
    profile = picture.info.get("icc_profile")
    if picture.mode in DEEP or picture.mode in ("I", "F"):
        return from_deep(picture, form, name)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        colours = to_srgb(picture.convert("RGB"), profile, name)
        colours.putalpha(picture.getchannel("A"))
        return on_white(colours)
    return to_srgb(picture, profile, name)


def from_deep(picture: Image.Image, form: str | None, name: str) -> Image.Image:
    """Samples of 16 bit, 32 bit or floats as 8 bit RGB. Of PPM, Pillow gives 16 bit as 32."""
    values = np.asarray(picture)
    if picture.mode in DEEP or (picture.mode == "I" and form == "PPM"):
        scaled = values.astype(np.float64) / 65535
    else:
        scaled = robust(values.astype(np.float64), name)
    grey = np.round(scaled * 255).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def robust(values: np.ndarray, name: str) -> np.ndarray:
    """To [0, 1]: values in [0, 1] stay, others go from their 0.1 and 99.9 percentiles; what is not finite to the ends."""
    finite = np.isfinite(values)
    if not finite.all():
        tell("dropped pixels", name=name, count=int((~finite).sum()))
    if not finite.any():
        return np.zeros(values.shape)
    low, high = float(values[finite].min()), float(values[finite].max())
    if low < 0 or high > 1:
        low, high = (float(v) for v in np.percentile(values[finite], (0.1, 99.9)))
        values = (values - low) / (high - low) if high > low else np.where(finite, 0.5, values)
    return np.nan_to_num(values, nan=0, posinf=1, neginf=0).clip(0, 1)


def to_srgb(picture: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """RGB; colours are those of the picture's ICC profile, if it has one."""
    if profile and picture.mode in ("RGB", "L", "CMYK", "LAB"):
        from PIL import ImageCms

        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" in (ImageCms.getProfileDescription(own) or ""):
                return picture.convert("RGB")
            fitting = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}[picture.mode]
            if own.profile.xcolor_space == fitting:
                made = ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
                assert made is not None
                return made
            if (picture.mode, own.profile.xcolor_space) != ("RGB", "GRAY"):  # a grey picture that was stored as RGB is grey
                tell("colour profile", name=name)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            tell("colour profile", name=name)
    return picture.convert("RGB")
