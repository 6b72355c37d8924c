"""Weights that others published: where they are, in a local folder or on the model hub, and how they are read safely.

File layouts as documented by safetensors (Apache-2.0), huggingface_hub (Apache-2.0) and `torch.save`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, as_input_error

SAFE = (".safetensors", ".safetensors.index.json")
PICKLED = (".bin", ".bin.index.json", ".pt", ".pth")
VARIANTS = ("fp16", "bf16")  # of weight files, taken by themselves where a folder has no other weights
ADVICE = 'give a local folder (--source PART=FOLDER, or "source" in the config), or download it while online'
WRAPPERS = ("state_dict", "model", "module")  # names under which trainers keep the weights beside other things


def shipped(*place: str) -> Path:
    """A file or folder of those that come with the package."""
    return Path(str(resources.files("unialign_gen.checkpoints").joinpath(*place)))


def resolve(source: str, revision: str | None, files: Iterable[str], subfolder: str = "") -> Path:
    """The folder of a published model: a local folder as it is, otherwise the hub's snapshot of the files asked for.

    Args:
        source: a local folder, or the name of a hub repository.
        revision: branch, tag or commit of the repository; ignored for a local folder.
        files: patterns of the files that are needed, relative to `subfolder`; nothing else is downloaded.
        subfolder: where in the folder or repository the model is.

    Raises:
        InputError: it is neither a folder nor a repository that can be had now.
    """
    place = Path(source).expanduser()
    if place.is_dir():
        if not (place / subfolder).is_dir():
            raise InputError(f"no folder {subfolder} in {source}: name one that is there")
        return place / subfolder
    if place.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise InputError(f"no model at {source}: {ADVICE}")
    prefix = f"{subfolder}/" if subfolder else ""
    with fetching(source):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(source, revision=revision, allow_patterns=[prefix + f for f in files])) / subfolder


def fetching(what: str) -> AbstractContextManager[None]:
    """Turns whatever happens into an `InputError`: the hub's client raises its own errors, HTTP errors and OS errors alike."""
    return as_input_error(f"cannot get {what}: {{first}}; {ADVICE}", Exception)


def find_weights(
    source: str, revision: str | None, stems: Sequence[str], subfolder: str = "", variant: str | None = None
) -> Path:
    """The weight file of a published model: single or, by its index, sharded; safetensors before pickles.

    Args:
        source: a weight file, a local folder, or the name of a hub repository.
        revision: branch, tag or commit of the repository.
        stems: names the file may have, without the ending, the best first.
        subfolder: where in the folder or repository the model is.
        variant: of the files, such as `fp16`. Without one a file without a variant is taken, one of `VARIANTS` where there is
            no other, and a pickle last.

    Raises:
        InputError: there is none.
    """
    if Path(source).expanduser().is_file():
        return Path(source).expanduser()
    wanted = [of_variant(SAFE, variant)] if variant else [SAFE, *(of_variant(SAFE, v) for v in VARIANTS), PICKLED]
    for endings in wanted:
        shards = [f"{s}-*-of-*.safetensors" if endings is not PICKLED else f"{s}-*-of-*.bin" for s in stems]
        folder = resolve(source, revision, [s + e for s in stems for e in endings] + shards, subfolder)
        for name in (s + e for s in stems for e in endings):
            if (folder / name).is_file():
                return folder / name
    if variant:
        raise InputError(f"no weights of the variant {variant} in {source}: expected {stems[0]}.{variant}{SAFE[0]}")
    raise InputError(f"no weights in {source}: expected {stems[0]}{SAFE[0]} or one of {', '.join(stems)}{PICKLED[0]}")


def source_of(config: Mapping[str, Any]) -> str:
    """The folder, file or repository that an encoder's configuration names."""
    if "source" not in config:
        kind = config["encoder"]
        raise InputError(f'this {kind} encoder has no weights: give "source", a local folder or file, or a hub repository')
    return str(config["source"])


def source_folder(config: Mapping[str, Any], files: Iterable[str]) -> Path:
    """`resolve`, of the source that an encoder's configuration names."""
    return resolve(source_of(config), config.get("revision"), files, config.get("subfolder", ""))


def source_weights(config: Mapping[str, Any], stems: Sequence[str] = ("model", "pytorch_model")) -> Path:
    """`find_weights`, of the source that an encoder's configuration names."""
    return find_weights(source_of(config), config.get("revision"), stems, config.get("subfolder", ""), config.get("variant"))


def of_variant(endings: Sequence[str], variant: str) -> tuple[str, ...]:
    """Endings of a variant's weight files: `.fp16.safetensors`, `.safetensors.index.fp16.json`.

    >>> of_variant(SAFE, "fp16")
    ('.fp16.safetensors', '.safetensors.index.fp16.json')
    """
    return tuple(e.replace(".json", f".{variant}.json") if e.endswith(".json") else f".{variant}{e}" for e in endings)


def variant_of(path: Path) -> str | None:
    """The variant in a weight file's name, None where there is none.

    >>> variant_of(Path("model.fp16.safetensors")), variant_of(Path("model.safetensors"))
    ('fp16', None)
    """
    return next((v for v in VARIANTS if f".{v}." in path.name), None)


def read_state(path: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Tensor]:
    """The tensors of a weight file, by name; those not wanted are not read from the disk.

    Args:
        path: `.safetensors`, a shard index `.index.json`, or a `.pt`, `.pth` or `.bin` that `torch.save` wrote.
        wanted: whether a tensor of this name is to be read; all are if it is not given.

    Raises:
        InputError: the file is damaged or missing, or is a pickle that would run code.
    """
    keep = wanted or (lambda name: True)
    if ".index." in path.name and path.suffix == ".json":
        with as_input_error(f"{path} is no index of weights: it has no weight_map; download it again", KeyError, TypeError):
            shards: dict[str, str] = read_json(path)["weight_map"]
        state: dict[str, Tensor] = {}
        for name in sorted({file for key, file in shards.items() if keep(key)}):
            if Path(name).name != name:
                raise InputError(f"{path} names a shard outside its folder: {name!r}; get the weights from their author")
            state |= read_state(path.parent / name, keep)
        return state
    if path.suffix == ".safetensors":
        import safetensors

        with (
            as_input_error(f"cannot read {path}: {{first}}; download it again", OSError, safetensors.SafetensorError),
            safetensors.safe_open(path, framework="pt") as file,
        ):
            return {name: file.get_tensor(name) for name in file.keys() if keep(name)}  # noqa: SIM118  not a mapping
    loaded = load_pickle(path)
    for name in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    entries = loaded.items() if isinstance(loaded, dict) else ()
    named = {str(k).removeprefix("module."): v for k, v in entries if isinstance(v, Tensor)}
    if not named:
        raise InputError(f"{path} holds no named weights: give a state dict, or convert it to safetensors")
    return {k: v for k, v in named.items() if keep(k)}


def load_pickle(path: Path) -> Any:
    """What `torch.save` wrote, tensors and plain containers only, mapped from the disk where the format allows.

    Raises:
        InputError: the file is damaged or missing, or would have to run code to be read.
    """
    refused = f"{path} is a pickle that would run code, or damaged: refused; get it as safetensors"
    # what is no pickle at all fails in as many ways as there are bytes
    with (
        as_input_error(f"cannot read {path}: {{first}}; download it again", Exception),
        as_input_error(refused, pickle.UnpicklingError),
    ):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:  # files from before torch 1.6 are no archive and cannot be mapped
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        InputError: it is missing or no JSON.
    """
    with as_input_error(f"cannot read {path}: {{first}}; download it again", OSError, ValueError):
        return json.loads(path.read_text("utf-8"))
