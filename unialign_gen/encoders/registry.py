"""Which encoders there are, and how one is written to a folder and read again.

A configuration names its kind: `{"encoder": "beats", "checkpoint": "BEATs_iter3.pt"}`. Models of three libraries need no file
here: `open_clip:MODEL/TAG`, `hf:FOLDER_OR_REPOSITORY` and `timm:MODEL` are kind and name in one, see their files; so is
`pe_av:FOLDER_OR_REPOSITORY`.

Adding an encoder is adding a file to this package: the file's name is the encoder's kind, and it defines

- `build(folder, config) -> Encoder`: the architecture that `config` describes, weights not needed yet;
- and, only where weights may be elsewhere than in `folder/model.safetensors` under the encoder's own names,
  `weights(folder, config) -> dict[str, Tensor]`, which finds them and renames them. It is asked where there is no such file, or
  where the configuration names a `checkpoint`.

An encoder that lives outside the package is made known by `register`, or by `register_file`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..deprecated import current_keys
from ..errors import InputError, as_input_error

if TYPE_CHECKING:
    import torch

    from .base import Encoder

NOWHERE = Path(os.devnull)  # the folder of an encoder that is described and not kept anywhere: no file can be in it
# modules of this package that are no encoders
SHARED = {"base", "blocks", "clip", "quantised", "kaldi", "published", "registry", "vast"}
CLIP = ("clip_image", "clip_text")  # either of two layouts, see `clip.py`
# kinds that take `KIND:NAME`, and the key the name is of
NAMED = {"open_clip": "model", "hf": "source", "timm": "model", "pe_av": "source"}


class EncoderModule(Protocol):
    """What an encoder's file defines."""

    def build(self, folder: Path, config: dict[str, Any]) -> Encoder: ...


_registered: dict[str, EncoderModule] = {}


def register(kind: str, module: EncoderModule) -> None:
    """Makes an encoder from outside the package known as `kind`; `module` is anything that has `build`.

    >>> from types import SimpleNamespace
    >>> register("silhouette", SimpleNamespace(build=lambda folder, config: None))
    >>> "silhouette" in kinds()
    True
    >>> del _registered["silhouette"]
    """
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
    with as_input_error(f"encoder {kind}: {path} cannot be run ({{kind}}: {{error}})", Exception):
        spec.loader.exec_module(module)
    if not hasattr(module, "build"):
        raise InputError(f"encoder {kind}: {path} defines no build(folder, config)")
    register(kind, cast(EncoderModule, module))


def kinds() -> list[str]:
    """The kinds of encoders there are, by name.

    >>> {"beats", "clip_image", "hf", "open_clip", "timm"} <= set(kinds())
    True
    """
    package = Path(__file__).parent
    return sorted({m.name for m in pkgutil.iter_modules([str(package)])} - SHARED | {*_registered, *CLIP})


def named(name: str) -> bool:
    """Whether a name is of the form `open_clip:MODEL/TAG`, `hf:` or `pe_av:FOLDER_OR_REPOSITORY`, or `timm:MODEL`.

    >>> named("open_clip:ViT-H-14/laion2b_s32b_b79k"), named("starter")
    (True, False)
    """
    kind, colon, rest = name.partition(":")
    return bool(colon and rest and kind in NAMED)


def current(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its kind apart from a name, old keys renamed, and a CLIP's layout settled.

    >>> current(NOWHERE, {"encoder": "open_clip:ViT-B-32/openai", "modality": "text"})
    {'encoder': 'open_clip', 'modality': 'text', 'model': 'ViT-B-32', 'pretrained': 'openai'}

    Raises:
        InputError: a CLIP whose source cannot be had.
    """
    made = dict(current_keys(dict(config)))
    kind = made["encoder"]
    if named(kind):
        kind, _, name = kind.partition(":")
        made["encoder"], made[NAMED[kind]] = kind, name
        if kind == "open_clip" and "/" in name:
            made["model"], _, made["pretrained"] = name.partition("/")
        if NAMED[kind] == "source" and "@" in name and not Path(name).expanduser().exists():
            made["source"], _, made["revision"] = name.partition("@")
    elif kind in CLIP:
        from .clip import by_layout

        made = by_layout(folder, made)
    return made


def module_of(kind: str) -> EncoderModule:
    """The module that defines a kind."""
    if kind in _registered:
        return _registered[kind]
    if kind not in kinds():
        raise InputError(f"unknown encoder {kind!r}: known kinds are {', '.join(kinds())}")
    return cast(EncoderModule, importlib.import_module(f".{kind}", __package__))


def save_encoder(encoder: Encoder, folder: Path, quantised: Collection[str] = ()) -> None:
    """Writes `config.json`, `model.safetensors` and the files that belong to the encoder.

    Weights are in the encoder's dtype, those that `quantised` names in int8 with a scale for each row.

    >>> import tempfile
    >>> from unialign_gen.encoders.yamnet import YAMNet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_encoder(YAMNet(), Path(folder))
    ...     load_encoder(Path(folder)).dim
    1024
    """
    from safetensors.torch import save_file

    from .quantised import pack

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(encoder.config, indent=2) + "\n")
    state = pack(encoder.state_dict(), quantised)
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors")
    for name, text in encoder.extra_files().items():
        (folder / name).write_text(text, "utf-8")


LOADING = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Keeps other threads from loading meanwhile.

    While a library builds a model without weights, every module that any thread makes is without them too
    (`accelerate.init_empty_weights`, which diffusers and transformers load with).
    """
    with LOADING:
        yield


one_at_a_time = alone()  # a decorator, which enters anew at each call


@one_at_a_time
def load_encoder(folder: Path, dtype: torch.dtype | None = None, config: dict[str, Any] | None = None) -> Encoder:
    """The encoder kept in `folder`, frozen, in evaluation mode, in `dtype` (fp32 if none is named).

    With a `config` the encoder is the one that it describes; the folder is then `NOWHERE`.

    >>> from unialign_gen.loading import shipped_folder
    >>> text = load_encoder(shipped_folder() / "starter" / "aligner" / "text")
    >>> text(text.prepare(["a dog", "a cat"])).shape
    torch.Size([2, 384])

    Raises:
        InputError: the folder holds no encoder, one of an unknown kind, or weights that do not fit it.
    """
    import torch
    from accelerate import init_empty_weights
    from safetensors import SafetensorError

    from .quantised import stored_weights

    where = f"in {folder}" if config is None else "as described"
    with as_input_error(f"no encoder {where}: {{error}}", OSError, ValueError, KeyError, TypeError):
        config = current(folder, json.loads((folder / "config.json").read_text()) if config is None else config)
        kind = config["encoder"]
    module = module_of(kind)
    with as_input_error(f"no {kind} encoder {where}: {{error}}", OSError, ValueError, KeyError, SafetensorError):
        own = "checkpoint" not in config and (folder / "model.safetensors").is_file()
        state = (stored_weights if own else getattr(module, "weights", stored_weights))(folder, config)
        # no memory for weights that are about to be replaced; buffers that no file holds are made at once
        with init_empty_weights(include_buffers=False):
            encoder = module.build(folder, config)
    dtype = dtype or torch.float32
    with as_input_error(f"weights of {kind} {where} do not fit: {{short}}", RuntimeError):  # shapes that differ
        missing, unexpected = encoder.load_state_dict(
            {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, strict=False, assign=True
        )
    if missing or unexpected:
        raise InputError(f"weights of {kind} {where} do not fit: missing {missing[:3]}, unknown {unexpected[:3]}")
    return encoder.to(dtype).eval().requires_grad_(False)
