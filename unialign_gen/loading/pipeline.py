"""From a checkpoint's name, folder or repository to a pipeline, or to a part of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ..encoders.registry import one_at_a_time
from ..errors import InputError, as_input_error
from . import description
from .aligners import described_aligner, folder_aligner, refuse_sources
from .devices import check_device, dtype_of
from .folders import PUBLISHED, SHIPPED, calibration_folder, find

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from ..pipelines import EmbedScale

DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)  # what bad files raise
LIBRARIES = ("unialign_gen", "diffusers", "transformers")  # that parts of a saved pipeline may be of


def quiet() -> None:
    """No progress bars of loading."""
    from diffusers.utils import logging
    from transformers.utils import logging as logging_of_transformers

    logging.disable_progress_bar()
    logging_of_transformers.disable_progress_bar()


@one_at_a_time
def load_pipeline(
    checkpoint: str | Path = "starter",
    device: Any = "cpu",
    dtype: Any = None,
    decoder: str | None = None,
    sources: Mapping[str, str] | None = None,
    accept_license: bool = False,
    variant: str | None = None,
    torch_dtype: Any = None,
    heads: str | Path | None = None,
) -> DiffusionPipeline:
    """See `unialign_gen.load`."""
    import torch

    from ..heads import heads_in
    from .decoder import put_together

    name, folder = str(checkpoint), find(checkpoint, decoder)
    own_heads = heads_in(heads) if heads is not None else {}
    device = check_device(device)
    kind = dtype_of(dtype if dtype is not None else torch_dtype, device)
    if name in PUBLISHED:
        if "audio" in own_heads:  # encoders from outside a decoder's space are refused without a head
            sources = {"audio_head": str(own_heads["audio"]), **(sources or {})}
        described = description.replace_sources(description.read(folder), sources, accept_license)
        scale, aligner = embed_scale(name, described, device), described_aligner(described, kind)
        with as_input_error(f"the decoder in {described['decoder']['source']} cannot be loaded: {{first}}", *DAMAGE):
            pipeline = put_together(described, aligner, scale, kind, variant)
    else:
        refuse_sources(checkpoint, sources)
        pipeline = from_folder(folder, kind, variant)
    pipeline.aligner.use_heads(own_heads)
    if name in PUBLISHED and "audio" not in pipeline.aligner.config["encoders"]:
        pipeline.aligner.describe("audio", {"encoder": "yamnet", "bridge": str(calibration_folder(name) / "events")})
    pipeline.to(device)
    # a processor's convolutions are faster with channels last; others' pictures stay bit for bit what diffusers draws
    if name in SHIPPED and torch.device(device).type == "cpu":
        for part in ("unet", "movq", "vae", "upscaler"):
            if isinstance(network := getattr(pipeline, part, None), torch.nn.Module):
                network.to(memory_format=torch.channels_last)
    return pipeline


def from_folder(folder: Path, dtype: torch.dtype, variant: str | None) -> DiffusionPipeline:
    """The pipeline that `save_pretrained` wrote to a folder.

    Raises:
        InputError: it is damaged, of a class that is not ours, or its weights are pickles.
    """
    from .. import pipelines

    with as_input_error(f"{folder / 'model_index.json'} is damaged: {{error}}", OSError, ValueError, AttributeError):
        index = json.loads((folder / "model_index.json").read_text())
        kind = index.get("_class_name")
    known = pipelines.KNOWN
    if kind not in known:
        raise InputError(f"{folder} holds a {kind}, which is none of {', '.join(known)}")
    variant = description.variant_in(folder, variant)
    with as_input_error(f"{folder} cannot be loaded: {{first}}", *DAMAGE):
        parts = shared_parts(folder, index, dtype) | variant_parts(folder, index, variant, dtype)
        return known[kind].from_pretrained(folder, use_safetensors=True, dtype=dtype, local_files_only=True, **parts)


def variant_parts(folder: Path, index: Mapping[str, Any], variant: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """The parts of a saved pipeline whose weights are of a variant: diffusers' own search fails on the aligner's folders."""
    found = {}
    for name, entry in index.items():
        if variant and isinstance(entry, list) and list((folder / name).glob(f"*.{variant}.safetensors*")):
            module, kind = entry
            if module.split(".")[0] not in LIBRARIES:
                raise InputError(f"{folder} wants a part of {module}: parts are of {', '.join(LIBRARIES)}")
            load = getattr(import_module(module), kind).from_pretrained
            found[name] = load(folder / name, variant=variant, dtype=dtype, use_safetensors=True, local_files_only=True)
    return found


def shared_parts(folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What another decoder shares with the first, beside which it lies: encoders, prior, upscaler, autoencoder."""
    shared: dict[str, Any] = {}
    if not (folder / "aligner").is_dir():
        from ..pipelines import EmbeddingPrior, Upscaler

        shared["aligner"] = folder_aligner(folder.parent, dtype)
        kinds: dict[str, Any] = {"prior": EmbeddingPrior, "upscaler": Upscaler}
        for name, kind in kinds.items():
            if (folder.parent / name).is_dir():
                shared[name] = kind.from_pretrained(folder.parent / name, dtype=dtype)
    for name in ("movq", "vae"):
        if name in index and not (folder / name).is_dir():
            from diffusers import VQModel
            from torch.nn import Module

            from ..pipelines.autoencoders import autoencoder_kl

            movq = VQModel.from_pretrained(folder.parent / "movq", dtype=dtype)
            # diffusers' own way to a dtype warns of modules to keep in fp32, of which there are none
            shared[name] = movq if name == "movq" else Module.to(autoencoder_kl(movq), dtype)
    return shared


def embed_scale(name: str, described: Mapping[str, Any], device: Any) -> EmbedScale:
    """The decoder's measured scale: the caller's, the one that was measured before, or one that is measured now.

    Raises:
        InputError: it was not measured, and the image encoder is not on this disk.
    """
    from ..pipelines import EmbedScale

    own = described.get("embed_scale")
    folder = Path(own).expanduser() if own else calibration_folder(name)
    if not (folder / "config.json").is_file():
        if own or not description.on_disk(described["encoders"]["image"]):
            raise InputError(
                f"{name} has no embed_norm yet, and nobody published one: run `unialign-gen calibrate --checkpoint {name}` "
                "once, which downloads the image encoder (--source image=FOLDER names one), or give a folder that it wrote as "
                "the source embed_scale"
            )
        from .scale import measure_shipped

        measure_shipped(name, described, device).save(folder)
    with as_input_error(f"no embed_scale in {folder}: {{first}}", OSError, ValueError, RuntimeError):
        scale = EmbedScale.from_pretrained(folder)
    if scale.config["embed_dim"] != described["embed_dim"]:
        raise InputError(f"{folder} is of {scale.config['embed_dim']} dimensions, {name} has {described['embed_dim']}")
    return scale
