"""How much memory a published checkpoint's weights need, from its configuration alone: nothing is loaded or downloaded.

`checkpoints/NAME/architecture.json` holds the published configurations and where each was read; models are built from them
on the meta device, which gives shapes without memory. Offloading is counted as accelerate's `cpu_offload_with_hook` does
it, which diffusers' `enable_model_cpu_offload` uses: a part goes to the device when it is called, after the part before it
has left. Activations, and buffers that are no parameters, are not counted.

    python benchmarks/memory.py stable-unclip
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
import transformers
import typer
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from torch import nn

from unialign_gen import pipelines
from unialign_gen.encoders import open_clip
from unialign_gen.encoders.beats import BEATs
from unialign_gen.encoders.imagebind_audio import ImageBindAudio
from unialign_gen.encoders.registry import NOWHERE
from unialign_gen.errors import InputError
from unialign_gen.loading import PUBLISHED, shipped_folder
from unialign_gen.loading.description import read

DTYPES = {"fp16": 2, "fp32": 4}  # bytes a parameter


def architecture(name: str) -> dict[str, Any]:
    """The published configurations of a checkpoint's components.

    Raises:
        InputError: none are known under this name.
    """
    if name not in PUBLISHED:
        raise InputError(f"no published sizes of {name!r}: known are {', '.join(PUBLISHED)}")
    found = json.loads((shipped_folder() / name / "architecture.json").read_text("utf-8"))
    like = found["components"].pop("like", None)  # those of another decoder with the same base
    found["components"] = (architecture(like)["components"] if like else {}) | found["components"]
    return found


def on_meta(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """A model of a diffusers or transformers class with this configuration: shapes only, no memory."""
    with torch.device("meta"):
        if hasattr(kind, "config_class"):
            return kind(kind.config_class(**config))
        return kind.from_config(dict(config))


def size(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(p.numel() for p in model.parameters())


def component_class(entry: Mapping[str, Any]) -> Any:
    """The class that an entry of `components` names."""
    if entry["class"] == StableUnCLIPImageNormalizer.__name__:  # diffusers does not export it
        return StableUnCLIPImageNormalizer
    return getattr({"diffusers": diffusers, "transformers": transformers}[entry["library"]], entry["class"])


def decoder_parts(name: str) -> dict[str, int]:
    """Parameters of each component of a checkpoint's decoder that has any."""
    described = architecture(name)
    entries = {part: entry for part, entry in described["components"].items() if "parameters" in entry}
    models = {part: on_meta(component_class(entry), entry["config"]) for part, entry in entries.items()}
    found = {part: size(model) for part, model in models.items()}
    if "adapter" in read(shipped_folder() / name)["decoder"].get("parts", {}):
        shapes = adapter_shapes(models["unet"], described["embed_dim"])
        found["unet"] += sum(math.prod(shape) for shape in shapes.values())
        found["unet"] += found.get("motion_adapter", 0)  # AnimateDiff's UNet holds a copy
    return found


def adapter_shapes(unet: nn.Module, width: int, tokens: int = 4) -> dict[str, tuple[int, ...]]:
    """Names and shapes in an IP-Adapter's file for embeddings (width,): a projection to tokens, keys and values a layer."""
    cross = unet.config["cross_attention_dim"]
    shapes = {"image_proj.proj.weight": (tokens * cross, width), "image_proj.proj.bias": (tokens * cross,)}
    shapes |= {f"image_proj.norm.{end}": (cross,) for end in ("weight", "bias")}
    layers = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    for i, layer in enumerate(layers):
        wide = layer.to_k.weight.shape[0]
        shapes |= {f"ip_adapter.{2 * i + 1}.to_{which}_ip.weight": (wide, cross) for which in "kv"}
    return shapes


def offload_order(name: str) -> list[str]:
    """The parts that offloading moves, in the order of their calls."""
    described = read(shipped_folder() / name)
    kind, base = getattr(pipelines, described["pipeline"]), getattr(diffusers, described["decoder"]["class"])
    order = (kind if issubclass(kind, base) else pipelines.adapter_class(kind, base)).model_cpu_offload_seq.split("->")
    return [*order, "motion_adapter"]  # whose hook is never called, since the UNet has its weights


def encoder_parts(name: str) -> dict[str, int]:
    """Parameters of the encoders a checkpoint can have, trained heads not among them: `image`, `text`, and sound encoders."""
    encoders = architecture(name)["encoders"]
    sound: dict[str, Any] = {"imagebind_audio": ImageBindAudio, "beats": BEATs}  # the classes: no weights, no licence
    with torch.device("meta"):
        found = {
            kind: size(open_clip.build(NOWHERE, {"model": encoders[kind]["model"], "modality": kind}))
            for kind in ("image", "text")
        }
        return found | {kind: size(sound[kind]()) for kind in encoders["audio"]}


def peak_bytes(parts: Mapping[str, int], dtype_bytes: int, order: Sequence[str], offload: bool) -> int:
    """The most bytes that weights occupy on the device at one time. Activations come on top.

    Args:
        parts: parameters of each part.
        dtype_bytes: bytes a parameter, 2 for fp16.
        order: the parts that offloading moves, in the order of their calls; all others stay on the device.
        offload: move them, so that of those in `order` only one is there at a time.

    Raises:
        InputError: `order` names a part that is not there.
    """
    if strange := [part for part in order if part not in parts]:
        raise InputError(f"no part {', '.join(strange)}: the parts are {', '.join(parts)}")
    moved = [parts[part] for part in {*order}] if offload else []
    return dtype_bytes * (sum(parts.values()) - sum(moved) + max(moved, default=0))


def table(name: str) -> str:
    """Parameters and bytes of a checkpoint's parts, and the peak for a picture from sound, as a Markdown table.

    GB are 10^9 bytes. In the pipeline `aligner` is the sound encoder: the others load only when their modality is asked for.
    """
    decoder, encoders, sequence = decoder_parts(name), encoder_parts(name), offload_order(name)
    counts = decoder | {f"encoder `{part}`": count for part, count in encoders.items()}
    rows = [(part, f"{count:,}", [count * b for b in DTYPES.values()]) for part, count in counts.items()]
    for kind in architecture(name)["encoders"]["audio"]:
        parts = {"aligner": encoders[kind], **decoder}
        order = [part for part in sequence if part in parts]
        for offload, where in ((False, "all parts on the device"), (True, "`enable_model_cpu_offload`")):
            peaks = [peak_bytes(parts, b, order, offload) for b in DTYPES.values()]
            rows.append((f"peak, sound (`{kind}`) to picture, {where}", "", peaks))
    lines = [f"| part | parameters | {' | '.join(DTYPES)} |", "|---|--:|--:|--:|"]
    lines += [f"| {part} | {count} | {' | '.join(gigabytes(b) for b in sizes)} |" for part, count, sizes in rows]
    return "\n".join(lines)


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 5e6 else f"{count / 1e3:.0f} kB"


def main(name: str) -> None:
    """The table of a published checkpoint."""
    typer.echo(table(name))


if __name__ == "__main__":
    typer.run(main)
