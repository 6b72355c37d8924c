"""Which checkpoints there are, and where they lie. Nothing is loaded."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path

from ..errors import InputError, as_input_error
from ..output import user_cache

SHIPPED = ("starter",)
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
FULL = "pip install 'unialign_gen[full]' brings it, in a clone pip install ./checkpoints"  # what the main wheel has no room for
HUB_FILES = ("*.json", "*.safetensors", "*.txt")
DISTILLED = "kandinsky-distilled"
DECODERS = ("kandinsky", DISTILLED, "stable-unclip")  # those of the starter, its own first


def shipped_folder() -> Path:
    """The folder of the checkpoints that come with the package.

    >>> (shipped_folder() / "starter" / "model_index.json").is_file()
    True
    """
    return Path(str(resources.files("unialign_gen.checkpoints")))


# put together out of what others published: each has a description, `NAME/checkpoint.json`
PUBLISHED = tuple(sorted(path.parent.name for path in shipped_folder().glob("*/checkpoint.json")))


def calibration_folder(name: str) -> Path:
    """Where a published checkpoint's measured scale is kept: `calibrate` writes it, and so does loading where there is none."""
    return user_cache() / "calibration" / name


def decoder_folder(folder: Path, decoder: str | None) -> Path:
    """Where a shipped checkpoint keeps this decoder: its first at the top, others below."""
    return folder if decoder in (None, DECODERS[0]) else folder / str(decoder)


def own_settings(checkpoint: str | Path, decoder: str | None = None) -> tuple[int, float, int]:
    """Steps, guidance and `best_of` that a checkpoint's pipeline uses when a call names none.

    >>> own_settings("stable-unclip")
    (20, 10.0, 1)

    Raises:
        InputError: no such checkpoint, or it does not say.
    """
    folder = find(checkpoint, decoder)
    file = folder / ("checkpoint.json" if str(checkpoint) in PUBLISHED else "model_index.json")
    said = f"{folder} does not say how many steps and how much guidance it takes: {{error}}"
    with as_input_error(said, OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text())
        return int(found["default_steps"]), float(found["default_guidance"]), int(found.get("default_best_of", 1))


def own_prior(checkpoint: str | Path) -> float | None:
    """The strength of a checkpoint's prior, None where it has none.

    Raises:
        InputError: no such checkpoint, or it does not say.
    """
    folder = find(checkpoint)
    folder = (folder if (folder / "aligner").is_dir() else folder.parent) / "prior"  # it lies with the encoders
    if not folder.is_dir():
        return None
    with as_input_error(f"{folder} does not say how strong the prior is: {{error}}", OSError, ValueError, KeyError, TypeError):
        return float(json.loads((folder / "config.json").read_text())["strength"])


def find(checkpoint: str | Path, decoder: str | None = None) -> Path:
    """The folder of a checkpoint, by its name or path, or as a repository of the model hub, `OWNER/NAME[@REVISION]`.

    >>> find("kandinsky").name
    'kandinsky'

    Raises:
        InputError: neither a known checkpoint nor a folder or repository with a `model_index.json`, or it has no such decoder.
    """
    name = str(checkpoint)
    folder = shipped_folder() / name if name in SHIPPED + PUBLISHED else Path(checkpoint).expanduser()
    if name not in PUBLISHED and not folder.exists() and REPOSITORY.fullmatch(name):
        folder = from_hub(name)
    if name not in PUBLISHED and not (folder / "model_index.json").is_file():
        raise InputError(
            f"unknown checkpoint {name!r}: give {', '.join(SHIPPED + PUBLISHED)}, a folder with a model_index.json, "
            "or a hub repository of that layout"
        )
    if decoder is not None and name not in SHIPPED:
        raise InputError(f"{name} has one decoder: choosing one is for {', '.join(SHIPPED)}")
    if decoder not in (None, *DECODERS):
        raise InputError(f"unknown decoder {decoder!r}: choose from {', '.join(DECODERS)}")
    place = decoder_folder(folder, decoder)
    if decoder is not None and not (place / "model_index.json").is_file():
        raise InputError(f"this installation's {name} has no {decoder} decoder: {FULL}")
    return place


@lru_cache
def from_hub(name: str) -> Path:
    """The snapshot of a hub repository, `OWNER/NAME[@REVISION]`: configurations, vocabularies, safetensors.

    Raises:
        InputError: there is none, or it cannot be had now.
    """
    from ..encoders.published import resolve

    repository, _, revision = name.partition("@")
    try:
        return resolve(repository, revision or None, HUB_FILES)
    except InputError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"unknown checkpoint {name!r}: no such folder here, and from the hub: {reason}") from error


def unconditional_is_zero(folder: Path) -> bool:
    """Whether a checkpoint's decoder takes zeros for no prompt (Stable UnCLIP), not the embedding of a grey picture.

    >>> unconditional_is_zero(find("stable-unclip")), unconditional_is_zero(find("kandinsky"))
    (True, False)
    """
    if (folder / "checkpoint.json").is_file():
        return json.loads((folder / "checkpoint.json").read_text())["decoder"]["unconditional"] == "zeros"
    return json.loads((folder / "model_index.json").read_text()).get("_class_name") == "UniAlignStableUnCLIPPipeline"
