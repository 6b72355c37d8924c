"""A picture's settings inside its PNG file, as JSON in an iTXt chunk, and a strict reader for files from anywhere.

The chunk's keyword is `unialign_gen`. The reader walks the file's chunks up to the picture data, decodes no pixel, and
accepts nothing but the fields below, each of its type and in its range.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

KEYWORD = "unialign_gen"
FORMAT = 1
MOST_BYTES = 200_000  # of the chunk
MOST_CHUNKS = 64  # before the picture data
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = ("text", "audio", "video", "image")
MIXES = ("lerp", "slerp", "spherical_mean")
MOST_TEXT = 2000
MOST_PROMPTS = 16
WIDEST = 8192
SEEDS = 2**63


@dataclass(frozen=True)
class Prompt:
    """One input of a picture.

    Attributes:
        kind: text, audio, video or image.
        value: the words, or the file's name without its folder.
        weight: in the mix.
        embedding: of a file, its unit vector as it was encoded, as base64 of little-endian fp32, so that the picture can be
            drawn again without the file; empty for text.
    """

    kind: Literal["text", "audio", "video", "image"]
    value: str
    weight: float = 1.0
    embedding: str = ""

    def vector(self) -> Tensor:
        """The embedding (d,), fp32."""
        import torch

        return torch.frombuffer(bytearray(base64.b64decode(self.embedding)), dtype=torch.float32).clone()


@dataclass(frozen=True)
class Settings:
    """All that made a picture; the picture is number `index` of `pictures` drawn together.

    Files from before there was a prior do not name its strength: 0 draws what they were drawn from.
    """

    prompts: tuple[Prompt, ...]
    mix: Literal["lerp", "slerp", "spherical_mean"] = "lerp"
    seed: int = 0
    steps: int = 20
    guidance: float = 3.0
    pictures: int = 1
    index: int = 0
    checkpoint: str = "starter"
    decoder: str = ""
    version: str = ""
    prior_strength: float = 0.0

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, allow_nan=False)


def pack(vector: Tensor) -> str:
    """A vector (d,) for `Prompt.embedding`."""
    return base64.b64encode(vector.detach().cpu().float().numpy().astype("<f4").tobytes()).decode()


def save_png(picture: Image.Image, path: Path, settings: Settings) -> None:
    """Writes the picture with its settings inside."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEYWORD, settings.to_json())
    picture.save(path, format="PNG", pnginfo=info)


def read_png(path: str | Path) -> Settings:
    """The settings inside a PNG file.

    Raises:
        InputError: no PNG file, none of our settings in it, or settings that are damaged.
    """
    name = Path(path).name
    text = find_chunk(Path(path), name)
    if text is None:
        raise InputError(f"{name} holds no settings of this program")
    return parse(text, name)


def find_chunk(path: Path, name: str) -> str | None:
    """The text of our iTXt chunk (PNG specification, 11.3.3.4), uncompressed, if it comes before the picture data."""
    try:
        with path.open("rb") as file:
            if file.read(8) != SIGNATURE:
                raise InputError(f"{name} is not a PNG file")
            for _ in range(MOST_CHUNKS):
                head = file.read(8)
                if len(head) < 8:
                    break
                length, kind = struct.unpack(">I4s", head)
                if kind in (b"IDAT", b"IEND"):
                    break
                if kind != b"iTXt":
                    file.seek(length + 4, 1)
                    continue
                if length > MOST_BYTES:
                    raise InputError(f"{name}: its settings are too long to be ours")
                body, check = file.read(length), file.read(4)
                if not body.startswith(KEYWORD.encode() + b"\0"):
                    continue
                if len(check) < 4 or zlib.crc32(kind + body) != int.from_bytes(check, "big"):
                    raise InputError(f"{name}: its settings are damaged")
                compressed, rest = body[len(KEYWORD) + 1], body[len(KEYWORD) + 3 :]
                if compressed:  # we write plain text only
                    raise InputError(f"{name}: its settings are damaged")
                return rest.split(b"\0", 2)[2].decode("utf-8")
    except OSError as error:
        raise InputError(f"{name} cannot be read") from error
    except (UnicodeDecodeError, IndexError) as error:
        raise InputError(f"{name}: its settings are damaged") from error
    return None


def parse(text: str, name: str = "the text") -> Settings:
    """Settings from their JSON text; strict, see the top of this file.

    Raises:
        InputError: anything else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its settings are damaged") from error
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        raise InputError(f"{name}: its settings are of another version")
    check_keys(found, Settings, name)
    prompts = found.get("prompts")
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= MOST_PROMPTS:
        raise InputError(f"{name}: its settings name no prompts, or too many")
    settings = Settings(**{**found, "prompts": tuple(parse_prompt(p, name) for p in prompts)})
    whole = {"seed": (0, SEEDS - 1), "steps": (1, 1000), "pictures": (1, 1000), "index": (0, settings_pictures(settings) - 1)}
    for key, (low, high) in whole.items():
        value = getattr(settings, key)
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"{name}: {key} in its settings must be a whole number from {low} to {high}")
    check_number(settings.guidance, "guidance", 1000, name)
    check_number(settings.prior_strength, "prior_strength", 1, name)
    if settings.prior_strength < 0:
        raise InputError(f"{name}: prior_strength in its settings must not be below 0")
    if settings.mix not in MIXES:
        raise InputError(f"{name}: mix in its settings must be one of {', '.join(MIXES)}")
    for key in ("checkpoint", "decoder", "version"):
        check_words(getattr(settings, key), key, 100, name)
    return settings


def settings_pictures(settings: Settings) -> int:
    """How many pictures there are to be one of, 1 where the number itself is wrong."""
    return settings.pictures if type(settings.pictures) is int and settings.pictures > 0 else 1


def parse_prompt(found: Any, name: str) -> Prompt:
    if not isinstance(found, dict):
        raise InputError(f"{name}: a prompt in its settings is damaged")
    check_keys(found, Prompt, name)
    prompt = Prompt(**{"kind": "", "value": "", **found})
    if prompt.kind not in KINDS:
        raise InputError(f"{name}: kind in its settings must be one of {', '.join(KINDS)}")
    check_words(prompt.value, "value", MOST_TEXT, name)
    check_number(prompt.weight, "weight", 1000, name)
    check_words(prompt.embedding, "embedding", WIDEST * 6, name)
    if prompt.kind == "text":
        if prompt.embedding or not prompt.value.strip():
            raise InputError(f"{name}: a text prompt in its settings is damaged")
        return prompt
    try:
        raw = base64.b64decode(prompt.embedding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: an embedding in its settings is damaged") from error
    if not raw or len(raw) % 4 or not all(math.isfinite(v) for (v,) in struct.iter_unpack("<f", raw)):
        raise InputError(f"{name}: an embedding in its settings is damaged")
    return prompt


def check_keys(found: dict[str, Any], kind: type, name: str) -> None:
    unknown = set(found) - {f.name for f in fields(kind)}
    if unknown:
        raise InputError(f"{name}: its settings hold something unknown")


def check_number(value: Any, key: str, most: float, name: str) -> None:
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > most:
        raise InputError(f"{name}: {key} in its settings must be a number of at most {most:g}")


def check_words(value: Any, key: str, most: int, name: str) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise InputError(f"{name}: {key} in its settings must be a text of at most {most} characters")
