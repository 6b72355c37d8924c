"""Which checkpoints there are, where they lie, and how one becomes a pipeline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import published
from .deprecated import current_keys
from .errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch.nn import Module

    from .aligner import Aligner, Part

SHIPPED = ("starter",)
PUBLISHED = ("stable-unclip", "kandinsky")
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
HUB_FILES = ("*.json", "*.safetensors", "*.txt")
DECODERS = ("kandinsky", "stable-unclip")  # those of the starter, its own first


def shipped_folder() -> Path:
    """The folder of the checkpoints that come with the package."""
    return Path(str(resources.files("unialign_gen.checkpoints")))


def user_folder() -> Path:
    """Where this user's measurements are kept."""
    return Path.home() / ".cache" / "unialign_gen"


def calibration_folder(name: str) -> Path:
    """Where `calibrate` writes a published checkpoint's scale, and where loading looks for it."""
    return user_folder() / "calibration" / name


def decoder_folder(folder: Path, decoder: str | None) -> Path:
    """Where a shipped checkpoint keeps this decoder: its first at the top, others below."""
    return folder if decoder in (None, DECODERS[0]) else folder / str(decoder)


def own_settings(checkpoint: str | Path, decoder: str | None = None) -> tuple[int, float]:
    """Steps and guidance that a checkpoint's pipeline uses when a call names none. Nothing is loaded.

    Raises:
        InputError: no such checkpoint, or it does not say.
    """
    folder = find(checkpoint, decoder)
    file = folder / ("checkpoint.json" if str(checkpoint) in PUBLISHED else "model_index.json")
    try:
        found = json.loads(file.read_text())
        return int(found["default_steps"]), float(found["default_guidance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} does not say how many steps and how much guidance it takes: {error}") from error


def own_prior(checkpoint: str | Path) -> float | None:
    """The strength of a checkpoint's prior, None where it has none. Nothing is loaded.

    Raises:
        InputError: no such checkpoint, or it does not say.
    """
    folder = prior_folder(find(checkpoint))
    if folder is None:
        return None
    try:
        return float(json.loads((folder / "config.json").read_text())["strength"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} does not say how strong the prior is: {error}") from error


def prior_folder(folder: Path) -> Path | None:
    """Where a checkpoint's prior lies: in its folder, or, with the encoders, in that of the first decoder; None without one."""
    place = (folder if (folder / "aligner").is_dir() else folder.parent) / "prior"
    return place if place.is_dir() else None


def refuse_sources(checkpoint: str | Path, sources: Mapping[str, str] | None) -> None:
    """Sources mean something for published checkpoints only."""
    if sources:
        raise InputError(f"{checkpoint} is complete: sources are for {', '.join(PUBLISHED)}")


def find(checkpoint: str | Path, decoder: str | None = None) -> Path:
    """The folder of a checkpoint, by its name or path, or as a repository of the model hub, `OWNER/NAME[@REVISION]`.

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
        raise InputError(f"this installation's {name} has no {decoder} decoder")
    return place


@lru_cache
def from_hub(name: str) -> Path:
    """The snapshot of a hub repository, `OWNER/NAME[@REVISION]`: configurations, vocabularies, safetensors.

    Raises:
        InputError: there is none, or it cannot be had now.
    """
    from .encoders.published import resolve

    repository, _, revision = name.partition("@")
    try:
        return resolve(repository, revision or None, HUB_FILES)
    except InputError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"unknown checkpoint {name!r}: no such folder here, and from the hub: {reason}") from error


def load_pipeline(
    checkpoint: str | Path = "starter",
    device: str = "cpu",
    dtype: Any = None,
    decoder: str | None = None,
    sources: Mapping[str, str] | None = None,
    accept_license: bool = False,
    variant: str | None = None,
    torch_dtype: Any = None,
    heads: str | Path | None = None,
) -> DiffusionPipeline:
    """See `unialign_gen.load`."""
    from .heads import heads_in

    folder = find(checkpoint, decoder)
    own_heads = heads_in(heads) if heads is not None else {}
    import torch
    from safetensors import SafetensorError

    dtype = dtype or torch_dtype or torch.float32
    if str(checkpoint) in PUBLISHED:
        if "audio" in own_heads:  # encoders from outside a decoder's space are refused without a head
            sources = {"audio_head": str(own_heads["audio"]), **(sources or {})}
        description = published.replace_sources(published.read(folder), sources, accept_license)
        pipeline = published.load(str(checkpoint), description, calibration_folder(str(checkpoint)), dtype, variant)
        pipeline.aligner.use_heads(own_heads)
        return pipeline.to(device)
    refuse_sources(checkpoint, sources)
    try:
        kind = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / 'model_index.json'} is damaged: {error}") from error
    from . import pipelines

    known = pipelines.KNOWN
    if kind not in known:
        raise InputError(f"{folder} holds a {kind}, which is none of {', '.join(known)}")
    try:
        shared = shared_parts(folder, dtype)
        pipeline = known[kind].from_pretrained(folder, dtype=dtype, variant=variant, local_files_only=True, **shared)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    pipeline.aligner.use_heads(own_heads)
    return pipeline.to(device)


def shared_parts(folder: Path, dtype: Any) -> dict[str, Any]:
    """What a second decoder shares with the first, beside which it lies: encoders, prior, and the autoencoder."""
    shared: dict[str, Any] = {}
    if not (folder / "aligner").is_dir():
        shared["aligner"] = load_aligner(folder.parent, dtype)
        if (prior := prior_folder(folder)) is not None:
            from .pipelines import EmbeddingPrior

            shared["prior"] = EmbeddingPrior.from_pretrained(prior, dtype=dtype)
    if not (folder / "vae").is_dir() and not (folder / "movq").is_dir():
        from diffusers import VQModel
        from torch.nn import Module

        from .pipelines.autoencoders import autoencoder_kl

        vae = autoencoder_kl(VQModel.from_pretrained(folder.parent / "movq", dtype=dtype))
        shared["vae"] = Module.to(vae, dtype)  # diffusers' own warns of modules to keep in fp32, of which there are none
    return shared


def frozen_head(checkpoint: str, kind: str) -> tuple[Module, int]:
    """A modality's head alone, without its encoder, and the width of the space; the identity where the encoder defines it.

    Raises:
        InputError: no such checkpoint, or it does not know the modality.
    """
    from torch.nn import Identity

    from .heads import load_head

    folder = find(checkpoint)
    kind = "image" if kind == "video" else kind  # frames go through the image encoder
    if checkpoint in PUBLISHED:
        description = published.read(folder)
        head, known, dim = description["encoders"].get(kind, {}).get("head"), description["encoders"], description["embed_dim"]
    else:
        config = current_keys(json.loads((folder / "aligner" / "config.json").read_text()))
        place = folder / "aligner" / kind
        head, known, dim = place if (place / "head.json").is_file() else None, config["encoders"], config["embed_dim"]
    if kind not in known:
        raise InputError(f"{checkpoint} has no {kind} encoder: it knows {', '.join(known)}")
    return (load_head(Path(head)) if head else Identity()), int(dim)


def load_aligner(folder: Path, dtype: Any) -> Aligner:
    from .aligner import Aligner

    return Aligner.from_pretrained(folder / "aligner", dtype=dtype)


def image_part(checkpoint: str, sources: Mapping[str, str] | None = None) -> Part:
    """The image encoder of a checkpoint alone, with its head if it has one."""
    folder = find(checkpoint)
    if checkpoint in PUBLISHED:
        return published.aligner(published.replace_sources(published.read(folder), sources, False)).part("image")
    refuse_sources(checkpoint, sources)
    import torch

    return load_aligner(folder, torch.float32).part("image")


def unconditional_is_zero(folder: Path) -> bool:
    """Whether a checkpoint's decoder takes zeros for no prompt (Stable UnCLIP), not the embedding of a grey picture."""
    for name, key in (("checkpoint.json", "pipeline"), ("model_index.json", "_class_name")):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text()).get(key) == "UniAlignStableUnCLIPPipeline"
    return False


def describe() -> list[dict[str, Any]]:
    """A row for each known checkpoint: what it is, what it needs, and what of that is on this disk.

    Sizes are in bytes. Nothing is downloaded.
    """
    rows = []
    for name in SHIPPED:
        folder = shipped_folder() / name
        index = folder / "model_index.json"
        parts = json.loads(index.read_text()) if index.is_file() else {}
        rows.append(
            {
                "name": name,
                "on_disk": index.is_file(),
                "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0,
                "pipeline": parts.get("_class_name"),
                "decoders": [d for d in DECODERS if (decoder_folder(folder, d) / "model_index.json").is_file()],
                "folder": str(folder),
            }
        )
    for name in PUBLISHED:
        description = published.read(shipped_folder() / name)
        entries = {"decoder": description["decoder"], **description["encoders"]}
        needs = {
            part: {
                "source": entry.get("source") or entry.get("checkpoint"),
                "licence": entry["licence"],
                "on_disk": published.on_disk(entry),
            }
            for part, entry in entries.items()
        }
        scale = calibration_folder(name)
        measured = (scale / "config.json").is_file()
        needs["embed_scale"] = {"source": str(scale), "licence": "your measurement", "on_disk": measured}
        rows.append(
            {
                "name": name,
                "on_disk": all(needs[p]["on_disk"] for p in ("decoder", "text", "embed_scale")),
                "pipeline": description["pipeline"],
                "needs": needs,
                "folder": str(shipped_folder() / name),
            }
        )
    return rows
