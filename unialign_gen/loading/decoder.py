"""A published decoder's components, as its description names them: a base by folder or single file, and what comes on top.

A description's `decoder` entry says which of diffusers' classes it is (`class`), which class of ours puts prompts before it
(`pipeline`, beside the entry), where the base lies (`source`), which `parts` come on top of it (an IP-Adapter, AnimateDiff's
motion module, ControlNets), each with a source of its own, and which `modes` of editing there are. A new decoder of the same
kind is one more description.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoders.published import VARIANTS, read_state, resolve, variant_of
from ..errors import InputError
from . import description

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from ..pipelines import EmbedScale

WEIGHTS = "*model.safetensors"  # of a part that is a model


def put_together(
    described: Mapping[str, Any], aligner: Any, scale: EmbedScale, dtype: torch.dtype, variant: str | None
) -> DiffusionPipeline:
    """The pipeline of a description. The vision encoder is not loaded unless a picture or a video is a prompt.

    Raises:
        InputError: a part that cannot be had, or that does not fit.
    """
    import diffusers

    from .. import pipelines
    from ..pipelines.editing import shared_parts

    decoder = described["decoder"]
    extra, kind = decoder.get("parts", {}), getattr(diffusers, decoder["class"])
    given: dict[str, Any] = dict.fromkeys(decoder["without"])
    if "motion_adapter" in extra:
        given["motion_adapter"] = model(extra["motion_adapter"], dtype, variant)
    folder, made = base(kind, decoder, given, dtype, variant)
    if "scheduler" in decoder:
        own = dict(decoder["scheduler"])
        made.scheduler = getattr(diffusers, own.pop("class")).from_config(made.scheduler.config, **own)
    if "adapter" in extra:
        add_adapter(made, part_file(extra["adapter"]))
    check_width(folder, made.unet, decoder["width"], described["embed_dim"])
    front = getattr(pipelines, described["pipeline"])
    if not issubclass(front, kind):
        front = pipelines.adapter_class(front, kind)
    defaults = {k: described[k] for k in ("default_steps", "default_guidance")}
    pipeline = front(aligner=aligner, embed_scale=scale, **shared_parts(made, kind), **defaults)
    if "lora" in decoder:
        lora = part_file({"source": decoder["lora"], "revision": None, "file": "*.safetensors"})
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, local_files_only=True)
    loaders = {name: partial(model, part, dtype, variant) for name, part in extra.items() if "class" in part}
    pipeline.modes = {
        name: pipelines.Mode(
            getattr(diffusers, entry["class"]),
            extra[entry["part"]]["component"] if "part" in entry else "",
            loaders[entry["part"]] if "part" in entry else None,
        )
        for name, entry in decoder.get("modes", {}).items()
    }
    return pipeline


def base(
    kind: Any, decoder: Mapping[str, Any], given: Mapping[str, Any], dtype: torch.dtype, variant: str | None
) -> tuple[Path, Any]:
    """Where a decoder's base lies, and the pipeline of diffusers' class: from a folder, a repository, or a single file."""
    file = Path(decoder["source"]).expanduser()
    if not file.is_file():
        folder, variant = description.decoder_weights(decoder, variant)
        options = {"variant": variant, "use_safetensors": True, "local_files_only": True}
        return folder, kind.from_pretrained(folder, dtype=dtype, **given, **options)
    if file.suffix != ".safetensors":
        raise InputError(f"{file}: pickles are not read since they can run code: get the single file as safetensors")
    about = decoder["config"]  # configurations and vocabularies, which a single file lacks
    config = resolve(about["source"], about["revision"], description.configurations(decoder["components"]))
    return file, kind.from_single_file(str(file), config=str(config), torch_dtype=dtype, local_files_only=True, **given)


def part_file(part: Mapping[str, Any]) -> Path:
    """The file of a part that is one file: given as such, or in a folder or repository.

    Raises:
        InputError: it is not there, or there are several.
    """
    source = Path(part["source"]).expanduser()
    if source.is_file():
        return source
    folder = resolve(part["source"], part["revision"], [part["file"]])
    found = sorted(folder.glob(part["file"])) or sorted(folder.glob(Path(part["file"]).name))
    if len(found) != 1:
        raise InputError(f"{part['source']} has {len(found)} files {part['file']}: name the file itself")
    return found[0]


def model(part: Mapping[str, Any], dtype: torch.dtype, variant: str | None = None) -> Any:
    """A part that is a model of diffusers, from its folder or repository."""
    import diffusers

    below, place = part.get("subfolder", ""), Path(part["source"]).expanduser()
    if (place / "config.json").is_file():
        below = ""
    for wanted in [variant] if variant else [None, *VARIANTS]:
        weights = f"*model.{wanted}.safetensors" if wanted else WEIGHTS
        folder = resolve(part["source"], part["revision"], ["config.json", weights], below)
        found = {variant_of(path) for path in folder.glob("*.safetensors")}
        if wanted in found:
            load = getattr(diffusers, part["class"]).from_pretrained
            return load(folder, variant=wanted, dtype=dtype, use_safetensors=True, local_files_only=True)
    raise InputError(f"no weights in {part['source']}: expected {Path(below) / WEIGHTS}")


def add_adapter(made: Any, file: Path) -> None:
    """Puts an IP-Adapter into a pipeline's UNet.

    Raises:
        InputError: the file is none, or is one that attends to an encoder's tokens, not to its embedding.
    """
    from diffusers.utils import logging

    state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in read_state(file).items():
        group, _, rest = name.partition(".")
        if group not in state:
            raise InputError(f"{file} is no IP-Adapter: it holds {name}")
        state[group][rest] = value
    if "proj.weight" not in state["image_proj"]:
        raise InputError(f"{file} attends to an encoder's tokens or to a face: give an adapter of the pooled image embedding")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of having no image encoder, which is meant
    try:
        made.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    finally:
        logging.set_verbosity(verbosity)


def check_width(folder: Path, unet: Any, width: Mapping[str, int], wanted: int) -> None:
    """Whether a decoder takes embeddings of this width; `width`: an entry of its UNet's configuration and a factor in it, or
    nothing where an IP-Adapter says it.
    """
    if width:
        (entry, factor), *_ = width.items()
        found = (unet.config.get(entry) or 0) // factor
    else:
        found = unet.encoder_hid_proj.image_projection_layers[0].image_embeds.in_features
    if found != wanted:
        raise InputError(
            f"the decoder in {folder} takes embeddings of {found} dimensions, this space has {wanted}: give another"
        )
