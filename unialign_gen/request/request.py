"""What one drawing asks for. Python, the command line, the page and a picture's own settings all build a `Request`.

It is checked where it is made. `to_json` and `from_dict` are the form that a picture file keeps. Nothing here needs torch, so
that a mistake is said before anything heavy is loaded. `arguments.ask` makes one of a call's keyword arguments.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from ..config import expectation
from ..errors import InputError, as_input_error
from ..notes import tell

Mix = Literal["lerp", "slerp", "spherical_mean", "beside"]
OutputType = Literal["pil", "np", "pt", "latent"]
MIXES: tuple[Mix, ...] = get_args(Mix)
MODALITIES = ("text", "audio", "video", "image")  # every checkpoint's; one's own come beside them
FORMAT = 2  # of the JSON form
MOST_PROMPTS, MOST_TEXT, WIDEST, LARGEST = 64, 20_000, 8192, 8192  # of a request that comes from a file
SEEDS = 2**63
RUN_ONLY = (  # of the fields: what no file can keep
    *("image_embeds", "generator", "latents", "batch", "output_type", "return_dict"),
    *("callback_on_step_end", "callback_on_step_end_tensor_inputs"),
)


def plain(value: Any) -> Any:
    """A NumPy or torch scalar as the Python number it holds; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def plain_seed(value: Any) -> Any:
    """One seed, or a tuple of them from any sequence or array of whole numbers."""
    value = plain(value)
    return tuple(plain(v) for v in value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(plain), Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(plain), Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=SEEDS)]
CONFIG = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


@dataclass(frozen=True, config=CONFIG)
class Options:
    """What only some decoders take, see `arguments.ask`."""

    decoder_prompt: str | Sequence[str] | None = None
    negative_decoder_prompt: str | Sequence[str] | None = None
    noise_level: Annotated[int, BeforeValidator(plain), Field(strict=True, ge=0)] | None = None
    eta: Annotated[Number, Field(ge=0, le=1)] | None = None
    cross_attention_kwargs: dict[str, Any] | None = None

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those that are not None, checked; an `InputError` for one that does not fit."""
        options = checked(cls, **values)
        return {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}


OPTIONS = tuple(f.name for f in fields(Options))


@dataclass(frozen=True, config=CONFIG)
class Prompt:
    """One input of a prompt.

    Attributes:
        kind: `text`, `audio`, `video`, `image`, a modality of one's own, or `embeds` for a ready embedding.
        value: the words; a file, array or object of the kind; the vector (d,) of `embeds`. After reading from JSON the
            name of the file.
        weight: in the mix, any finite number.
        embedding: the unit vector (d,) that the value was encoded to, if it is known; then the value is not read again.
        label: what to call it, where the value has no name of its own.
    """

    kind: Annotated[str, Field(min_length=1, max_length=50)]
    value: Any
    weight: Number = 1.0
    embedding: Any = None
    label: str = ""

    @property
    def name(self) -> str:
        """Its label, or the words of a text, or the name of a file without its folder, otherwise the kind."""
        if self.label:
            return self.label
        value = getattr(self.value, "source", self.value)  # of an excerpt
        if self.kind == "text" or isinstance(value, str | PurePath):
            return str(value) if self.kind == "text" else PurePath(value).name
        return self.kind


@dataclass(frozen=True, config=CONFIG)
class Request:
    """What a call asks for, checked.

    Attributes:
        prompts: for each prompt of the batch the inputs that are mixed in it.
        mix: `lerp`, `slerp` or `spherical_mean`, see `mixing.mix`; or `beside`, each input in a strip of the picture as wide
            as its weight.
        prior_strength: 0 to 1; the checkpoint's own where it is None.
        prior_temperature: 0 to 2; the checkpoint's own where it is None.
        seed: for the first picture, the others count on from it; or one for each prompt.
        steps, guidance: the checkpoint's own where they are None.
        pictures: for each prompt.
        height, width: of the pictures in pixels; the decoder's own where they are None.
        upscale: how many times larger than the decoder's own the pictures are; the upscaler's own factor where it is None.
        best_of: from how many noises each picture is drawn, of which the one is kept that the image encoder reads as nearest;
            the checkpoint's own where it is None.
        batch: pictures that `best_of` and `interpolate` draw at a time, which bounds the memory.
        options: what only some decoders take, by the names of `OPTIONS`.
        image_embeds: (B, d) at the decoder's own scale, in place of prompts.
        generator, latents, callback_on_step_end, callback_on_step_end_tensor_inputs, output_type, return_dict: as
            in diffusers.
    """

    prompts: tuple[tuple[Prompt, ...], ...] = ()
    mix: Mix = "lerp"
    prior_strength: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[Seed | tuple[Seed, ...] | None, BeforeValidator(plain_seed)] = None
    steps: Annotated[Count, Field(le=1000)] | None = None
    guidance: Number | None = None
    pictures: Count = 1
    height: Count | None = None
    width: Count | None = None
    prior_temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    upscale: Literal[1, 2, 4, 8] | None = None
    best_of: Annotated[Count, Field(le=64)] | None = None
    batch: Count = 8
    options: dict[str, Any] = Field(default_factory=dict)
    image_embeds: Any = None
    generator: Any = None
    latents: Any = None
    callback_on_step_end: Callable[..., Any] | None = None
    callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",)
    output_type: OutputType = "pil"
    return_dict: bool = True

    @property
    def of_embeds(self) -> bool:
        """Whether it draws ready embeddings alone."""
        return all(prompt.kind == "embeds" for row in self.prompts for prompt in row)

    def picture(self, number: int) -> Request:
        """The request that draws one of the pictures alone: prompt `number // pictures` with that picture's seed, generator
        or latents; after the largest seed comes 0.
        """
        prompt, j = divmod(number, self.pictures)
        seed = self.seed
        if isinstance(seed, tuple):
            seed = (seed[prompt] + j) % SEEDS
        elif seed is not None:
            seed = (seed + number) % SEEDS
        own: dict[str, Any] = {"prompts": self.prompts[prompt : prompt + 1]}
        if self.image_embeds is not None:
            own["image_embeds"] = self.image_embeds[prompt : prompt + 1]
        if self.latents is not None:
            own["latents"] = self.latents[number : number + 1]
        if isinstance(self.generator, list | tuple):
            own["generator"] = self.generator[number]
        rows = {k: v[prompt] if isinstance(v, list | tuple) else v for k, v in self.options.items()}
        return replace(self, **own, seed=seed, pictures=1, options=rows)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: all that can be written down, an encoded file by its name and its embedding; a note on noise that
        cannot.
        """
        if lost := [name for name in ("generator", "latents") if getattr(self, name) is not None]:
            tell("other noise", what=" and ".join(lost))
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*RUN_ONLY, "prompts")}
        written = [[write_prompt(p) for p in inputs] for inputs in self.prompts]
        return {"format": FORMAT, "prompts": written, **{k: v for k, v in values.items() if v not in (None, {})}}

    def to_json(self, **extra: Any) -> str:
        """The JSON text, with what else is to be kept beside it, such as the checkpoint."""
        text = json.dumps({**self.to_dict(), **extra}, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode()  # names of files need not be Unicode

    @classmethod
    def from_dict(cls, found: Any, name: str = "the text") -> Request:
        """A request from its JSON form, from anywhere: nothing but its own fields, each of its type and in its range.

        Raises:
            InputError: anything else; the line begins with `name`.
        """
        if not isinstance(found, dict) or found.get("format") not in (1, FORMAT):
            raise InputError(f"{name}: its settings are of another version")
        values = {k: v for k, v in found.items() if k != "format"}
        if found["format"] == 1:
            values = from_first_edition(values)
        given = values.pop("prompts", None)
        if not isinstance(given, list) or not 1 <= len(given) <= MOST_PROMPTS:
            raise InputError(f"{name}: its settings name no prompts, or too many")
        options = values.get("options")
        other = set(options) - set(OPTIONS) if isinstance(options, dict) else set()
        unknown = set(values) - {f.name for f in fields(cls)} | set(values) & set(RUN_ONLY) | other
        if unknown:
            raise InputError(f"{name}: its settings hold something unknown: {', '.join(sorted(map(str, unknown)))[:100]}")
        for key, most in {"height": LARGEST, "width": LARGEST, "pictures": MOST_PROMPTS}.items():
            if isinstance(values.get(key), int) and values[key] > most:
                raise InputError(f"{name}: {key} in its settings is more than {most}")
        try:
            if isinstance(options, dict):
                values["options"] = Options.given(options)
            return checked(cls, prompts=tuple(read_prompts(inputs) for inputs in given), **values)
        except InputError as error:
            raise InputError(f"{name}: in its settings {error}") from error


def from_first_edition(values: dict[str, Any]) -> dict[str, Any]:
    """Format 1: one prompt, and the picture's number among those drawn together."""
    values = {k: v for k, v in values.items() if v is not None}
    index, prompts = values.pop("index", 0), values.get("prompts")
    if isinstance(values.get("seed", 0), int) and type(index) is int and 0 <= index < 1000:
        values["seed"] = values.get("seed", 0) + index
    values["prompts"] = [prompts] if isinstance(prompts, list) and prompts else None
    return {"prior_strength": 0.0, **values, "pictures": 1}


def write_prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt for JSON; vectors as base64 of little-endian fp32."""
    out = {"kind": prompt.kind, "value": "" if prompt.kind == "embeds" else prompt.name, "weight": prompt.weight}
    vector = prompt.value if prompt.kind == "embeds" else prompt.embedding
    if vector is not None and prompt.kind != "text":
        out["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *(float(v) for v in vector))).decode()
    return out


def read_prompts(found: Any) -> tuple[Prompt, ...]:
    """The inputs of one prompt from JSON; an `InputError` if they are none."""
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_PROMPTS:
        raise InputError("a prompt is damaged")
    prompts = []
    for one in found:
        if not isinstance(one, dict) or set(one) - {"kind", "value", "weight", "embedding"}:
            raise InputError("a prompt is damaged")
        kind, value, text = one.get("kind"), one.get("value"), one.get("embedding", "")
        if not isinstance(value, str) or len(value) > MOST_TEXT or not isinstance(text, str) or len(text) > WIDEST * 6:
            raise InputError("a prompt is damaged")
        if (kind == "text") is not (text == "") or (kind == "text" and not value.strip()):
            raise InputError("a prompt is damaged")
        vector = read_vector(text) if text else None
        own = {"value": vector} if kind == "embeds" else {"value": value, "embedding": vector}
        prompts.append(checked(Prompt, kind=kind, weight=one.get("weight", 1.0), **own))
    return tuple(prompts)


def read_vector(text: str) -> tuple[float, ...]:
    """A vector that `write_prompt` wrote; an `InputError` if it is none, or not finite."""
    with as_input_error("an embedding is damaged", binascii.Error, ValueError, struct.error):
        raw = base64.b64decode(text, validate=True)
        values = struct.unpack(f"<{len(raw) // 4}f", raw)
    if not values or not all(map(math.isfinite, values)):
        raise InputError("an embedding is damaged")
    return values


T = TypeVar("T")


def checked(cls: type[T], **values: Any) -> T:
    """An instance of one of the classes above.

    Raises:
        InputError: the first value that does not fit, in one line: which field, what it must be, what it is.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = first["loc"][0] if first["loc"] else "the request"
        raise InputError(f"{place} must be {expectation(first)}, got {short(first['input'])}") from error


def short(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"
