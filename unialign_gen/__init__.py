"""Any prompt, text, audio, video, image or a weighted mix, to one point of an image-embedding space, to a picture.

import unialign_gen
generate = unialign_gen.load("starter")
generate(text="a barking dog", seed=0).images[0]
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, overload

from .deprecated import Moved
from .errors import InputError
from .lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from . import diagnostics, encoders, eval, film, media, mixing, objectives, pipelines, training  # noqa: A004  the folder has this name
    from .pipelines import IPAdapterPipeline, MovingPipeline, UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline

    AnyPipeline = UniAlignKandinskyPipeline | UniAlignStableUnCLIPPipeline | IPAdapterPipeline

__version__ = "0.2.0"
_CLONE = os.path.dirname(os.path.dirname(__file__))  # pathlib takes as long to import as all else here
if os.path.isfile(f"{_CLONE}/pipelines/prompted.py"):  # Python was started in a clone: the folders beside this one are its own
    __path__.append(_CLONE)
sys.meta_path.insert(0, Moved)  # first, or a folder of the name, such as what bytecode leaves, would be found
__all__ = ["InputError", "__version__", "load"]
__all__ += ["diagnostics", "encoders", "eval", "film", "media", "mixing", "objectives", "pipelines", "training"]  # modules


class LoadOptions(TypedDict, total=False):
    """What `load` takes beside a checkpoint and its decoder."""

    device: str
    dtype: torch.dtype | str | None
    torch_dtype: torch.dtype | str | None
    variant: str | None
    heads: str | Path | None
    sources: Mapping[str, str] | None
    accept_license: bool


@overload
def load(
    checkpoint: Literal["starter"] = "starter",
    *,
    decoder: Literal["kandinsky", "kandinsky-distilled"] | None = None,
    **options: Unpack[LoadOptions],
) -> UniAlignKandinskyPipeline: ...
@overload
def load(
    checkpoint: Literal["starter"] = "starter", *, decoder: Literal["stable-unclip"], **options: Unpack[LoadOptions]
) -> UniAlignStableUnCLIPPipeline: ...
@overload
def load(checkpoint: Literal["kandinsky"], **options: Unpack[LoadOptions]) -> UniAlignKandinskyPipeline: ...
@overload
def load(checkpoint: Literal["stable-unclip"], **options: Unpack[LoadOptions]) -> UniAlignStableUnCLIPPipeline: ...
@overload
def load(checkpoint: Literal["sdxl-vit-h", "sdxl-bigg", "sd15-vit-h"], **options: Unpack[LoadOptions]) -> IPAdapterPipeline: ...
@overload
def load(checkpoint: Literal["animatediff-vit-h"], **options: Unpack[LoadOptions]) -> MovingPipeline: ...
@overload
def load(checkpoint: str | Path, *, decoder: str | None = None, **options: Unpack[LoadOptions]) -> AnyPipeline: ...
def load(checkpoint: str | Path = "starter", *, decoder: str | None = None, **options: Unpack[LoadOptions]) -> AnyPipeline:
    """The pipeline of a checkpoint, ready to be called with prompts.

    Args:
        checkpoint: `starter` (comes with the package); `stable-unclip`, `kandinsky`, `sdxl-vit-h`, `sdxl-bigg`,
            `sd15-vit-h` or `animatediff-vit-h` (published weights, see their cards); a folder that `save_pretrained` wrote, or
            a repository of the model hub that holds one (`OWNER/NAME[@REVISION]`).
        decoder: of the starter: `kandinsky` (its first), `kandinsky-distilled` (the same in four steps) or `stable-unclip`.
        options: `device` ("cpu"; "auto" takes a GPU where there is one); `dtype`, fp32 by default, a torch dtype or its name
            ("auto" is fp16 on a GPU; `torch_dtype` is the same);
            `variant` of the weight files; `heads`, a training run's folder, whose heads take the place of the checkpoint's
            own; for published weights `sources` (part to folder, file or repository) and `accept_license` (to use parts
            whose licence is not permissive).

    Raises:
        InputError: no such checkpoint, one that cannot be read, or an option that is not there.

    Example:
        >>> generate = load("starter")
        >>> generate("a red car", seed=0, num_inference_steps=1).images[0].mode
        'RGB'
    """
    unknown = sorted(set(options) - set(LoadOptions.__annotations__))
    if unknown:
        raise InputError(f"load has no option {', '.join(unknown)}: it takes decoder, {', '.join(LoadOptions.__annotations__)}")
    from .loading import load_pipeline

    return load_pipeline(checkpoint, decoder=decoder, **options)


if not TYPE_CHECKING:  # unseen by type checkers, which would then take any name
    __getattr__ = lazy(__name__, dict.fromkeys(__all__[3:], ""))


def __dir__() -> list[str]:
    return sorted(__all__)
