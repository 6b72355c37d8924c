"""Which towers there are, and how one is written to a folder and read again.

Adding a tower is adding a file to this package: the file's name is the tower's kind, and it defines

- `build(folder, config) -> Tower`: the architecture that `config` describes, weights not needed yet;
- and, only where the weights are not in `folder/model.safetensors` under the tower's own names,
  `weights(folder, config) -> dict[str, Tensor]`, which finds them and renames them.

A tower that lives outside the package is made known by `register`, or by `register_file`.
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

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .base import Tower

NOWHERE = Path(os.devnull)  # the folder of a tower that is described and not kept anywhere: no file can be in it
# modules of this package that are no towers
SHARED = {"base", "blocks", "clip_layouts", "eight_bits", "kaldi", "published", "registry"}


class TowerModule(Protocol):
    """What a tower's file defines."""

    def build(self, folder: Path, config: dict[str, Any]) -> Tower: ...


_registered: dict[str, TowerModule] = {}


def register(kind: str, module: TowerModule) -> None:
    """Makes a tower from outside the package known as `kind`; `module` is anything that has `build`."""
    _registered[kind] = module


def register_file(kind: str, path: str | Path) -> None:
    """Makes the tower that a Python file defines known as `kind`. The file is run: name none that you would not run.

    Raises:
        InputError: no such file, it cannot be run, or it defines no `build`.
    """
    path = Path(path).expanduser()
    spec = importlib.util.spec_from_file_location(f"unialign_gen_tower_{kind}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"tower {kind}: no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"tower {kind}: {path} cannot be run ({type(error).__name__}: {error})") from error
    if not hasattr(module, "build"):
        raise InputError(f"tower {kind}: {path} defines no build(folder, config)")
    register(kind, cast(TowerModule, module))


def kinds() -> list[str]:
    """The kinds of towers there are, by name."""
    package = Path(__file__).parent
    return sorted({m.name for m in pkgutil.iter_modules([str(package)])} - SHARED | set(_registered))


def module_of(kind: str) -> TowerModule:
    """The module that defines a kind.

    Raises:
        InputError: there is no such kind.
    """
    if kind in _registered:
        return _registered[kind]
    if kind not in kinds():
        raise InputError(f"unknown tower {kind!r}: known kinds are {', '.join(kinds())}")
    return cast(TowerModule, importlib.import_module(f".{kind}", __package__))


def save_tower(tower: Tower, folder: Path, eight_bits: Collection[str] = ()) -> None:
    """Writes `config.json`, `model.safetensors` and the files that belong to the tower.

    Weights are in the tower's dtype, those that `eight_bits` names in int8 with a scale for each row.
    """
    from safetensors.torch import save_file

    from .eight_bits import pack

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tower.config, indent=2) + "\n")
    state = pack(tower.state_dict(), eight_bits)
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors")
    for name, text in tower.extra_files().items():
        (folder / name).write_text(text, "utf-8")


def load_tower(folder: Path, dtype: torch.dtype | None = None, config: dict[str, Any] | None = None) -> Tower:
    """The tower kept in `folder`, frozen, in evaluation mode, in `dtype` (fp32 if none is named).

    With a `config` the tower is the one that it describes; the folder is then `NOWHERE`.

    Raises:
        InputError: the folder holds no tower, one of an unknown kind, or weights that do not fit it.
    """
    import torch
    from safetensors import SafetensorError

    try:
        config = json.loads((folder / "config.json").read_text()) if config is None else config
        kind = config["tower"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no tower in {folder}: {error}") from error
    module = module_of(kind)
    try:
        state = getattr(module, "weights", stored_weights)(folder, config)
        with torch.device("meta"):  # no time spent on weights that are about to be replaced
            tower = module.build(folder, config)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"no {kind} tower in {folder}: {error}") from error
    dtype = dtype or torch.float32
    try:
        missing, unexpected = tower.load_state_dict(
            {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, strict=False, assign=True
        )
    except RuntimeError as error:  # shapes that differ; the first line only says that there are some
        raise InputError(f"weights in {folder} do not fit: {' '.join(str(error).split())[:200]}") from error
    if missing or unexpected:
        raise InputError(f"weights in {folder} do not fit: missing {missing[:3]}, unknown {unexpected[:3]}")
    tower.compute_buffers()
    return tower.eval().requires_grad_(False)


def stored_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in `folder/model.safetensors`, those in eight bits as fp32."""
    from safetensors.torch import load_file

    from .eight_bits import unpack

    return unpack(load_file(folder / "model.safetensors"))
