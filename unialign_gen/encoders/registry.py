"""Which encoders there are, and how one is written to a folder and read again.

Adding an encoder is adding a file to this package: the file's name is the encoder's kind, and it defines

- `build(folder, config) -> Encoder`: the architecture that `config` describes, weights not needed yet;
- and, only where the weights are not in `folder/model.safetensors` under the encoder's own names,
  `weights(folder, config) -> dict[str, Tensor]`, which finds them and renames them.

An encoder that lives outside the package is made known by `register`, or by `register_file`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..deprecated import current_keys
from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .base import Encoder

NOWHERE = Path(os.devnull)  # the folder of an encoder that is described and not kept anywhere: no file can be in it
# modules of this package that are no encoders
SHARED = {"base", "blocks", "clip_layouts", "quantised", "kaldi", "published", "registry", "vast"}


class EncoderModule(Protocol):
    """What an encoder's file defines."""

    def build(self, folder: Path, config: dict[str, Any]) -> Encoder: ...


_registered: dict[str, EncoderModule] = {}


def register(kind: str, module: EncoderModule) -> None:
    """Makes an encoder from outside the package known as `kind`; `module` is anything that has `build`."""
    _registered[kind] = module


def register_file(kind: str, path: str | Path) -> None:
    """Makes the encoder that a Python file defines known as `kind`. The file is run: name none that you would not run.

    Raises:
        InputError: no such file, it cannot be run, or it defines no `build`.
    """
    path = Path(path).expanduser()
    spec = importlib.util.spec_from_file_location(f"unialign_gen_encoder_{kind}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"encoder {kind}: no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"encoder {kind}: {path} cannot be run ({type(error).__name__}: {error})") from error
    if not hasattr(module, "build"):
        raise InputError(f"encoder {kind}: {path} defines no build(folder, config)")
    register(kind, cast(EncoderModule, module))


def kinds() -> list[str]:
    """The kinds of encoders there are, by name."""
    package = Path(__file__).parent
    return sorted({m.name for m in pkgutil.iter_modules([str(package)])} - SHARED | set(_registered))


def module_of(kind: str) -> EncoderModule:
    """The module that defines a kind.

    Raises:
        InputError: there is no such kind.
    """
    if kind in _registered:
        return _registered[kind]
    if kind not in kinds():
        raise InputError(f"unknown encoder {kind!r}: known kinds are {', '.join(kinds())}")
    return cast(EncoderModule, importlib.import_module(f".{kind}", __package__))


def save_encoder(encoder: Encoder, folder: Path, quantised: Collection[str] = ()) -> None:
    """Writes `config.json`, `model.safetensors` and the files that belong to the encoder.

    Weights are in the encoder's dtype, those that `quantised` names in int8 with a scale for each row.
    """
    from safetensors.torch import save_file

    from .quantised import pack

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(encoder.config, indent=2) + "\n")
    state = pack(encoder.state_dict(), quantised)
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors")
    for name, text in encoder.extra_files().items():
        (folder / name).write_text(text, "utf-8")


def load_encoder(folder: Path, dtype: torch.dtype | None = None, config: dict[str, Any] | None = None) -> Encoder:
    """The encoder kept in `folder`, frozen, in evaluation mode, in `dtype` (fp32 if none is named).

    With a `config` the encoder is the one that it describes; the folder is then `NOWHERE`.

    Raises:
        InputError: the folder holds no encoder, one of an unknown kind, or weights that do not fit it.
    """
    import torch
    from safetensors import SafetensorError

    try:
        config = json.loads((folder / "config.json").read_text()) if config is None else config
        config = current_keys(config)
        kind = config["encoder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no encoder in {folder}: {error}") from error
    module = module_of(kind)
    try:
        state = getattr(module, "weights", stored_weights)(folder, config)
        with torch.device("meta"):  # no time spent on weights that are about to be replaced
            encoder = module.build(folder, config)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"no {kind} encoder in {folder}: {error}") from error
    dtype = dtype or torch.float32
    try:
        missing, unexpected = encoder.load_state_dict(
            {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, strict=False, assign=True
        )
    except RuntimeError as error:  # shapes that differ; the first line only says that there are some
        raise InputError(f"weights in {folder} do not fit: {' '.join(str(error).split())[:200]}") from error
    if missing or unexpected:
        raise InputError(f"weights in {folder} do not fit: missing {missing[:3]}, unknown {unexpected[:3]}")
    encoder.compute_buffers()
    return encoder.eval().requires_grad_(False)


def stored_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in `folder/model.safetensors`, those in eight bits as fp32."""
    from safetensors.torch import load_file

    from .quantised import unpack

    return unpack(load_file(folder / "model.safetensors"))
