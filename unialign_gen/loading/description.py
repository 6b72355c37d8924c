"""Descriptions of checkpoints that are put together out of what others published: a decoder, encoders, a measured scale.

`checkpoints/NAME/checkpoint.json` says where each part comes from, under which licence, and how large it is. Every source can
be replaced by a local folder or file, or by another repository: sources move and disappear. A decoder is one such file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..encoders.registry import named
from ..errors import InputError, as_input_error

PARTS = ("decoder", "image", "text", "audio", "audio_encoder", "audio_head", "embed_scale")
DECODER_PARTS = ("decoder_config", "lora")  # beside those that a description names
OUTSIDE = ("beats", "pe_av")  # sound encoders of a space of their own
FACTS = ("bytes", "citation", "unchecked")  # of an entry, for people
PERMISSIVE = ("MIT", "Apache-2.0", "BSD-3-Clause")
SOUND_LICENCES = {"imagebind_audio": "CC-BY-NC-SA-4.0", "beats": "MIT", "pe_av": "Apache-2.0"}


def read(folder: Path) -> dict[str, Any]:
    """The description of a published checkpoint.

    Raises:
        InputError: the folder has none, or it is damaged.
    """
    with as_input_error(f"no description of a checkpoint in {folder}: {{error}}", OSError, ValueError):
        found = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    if isinstance(found["encoders"], str):  # those of another decoder of the same space
        found["encoders"] = read(folder.parent / found["encoders"])["encoders"]
    return found


def replace_sources(description: dict[str, Any], sources: Mapping[str, str] | None, accept_license: bool) -> dict[str, Any]:
    """The description with the caller's own sources in it.

    Args:
        sources: part (`decoder`, `image`, `text`, `audio`, `audio_head`, `embed_scale`) to a folder, a file or a repository,
            the latter with an optional `@REVISION`; `image` and `text` also to a model by name, `open_clip:MODEL/TAG`,
            `hf:FOLDER_OR_REPOSITORY`; `audio_encoder` to `imagebind_audio`, `beats` or `pe_av`. Of a decoder its own `parts`
            too, such as `adapter` or `controlnet`, a `lora`, and, where `decoder` is a single file, `decoder_config`, a folder
            with the configurations and vocabularies of its base, otherwise those of the published base.
        accept_license: use parts whose licence is not permissive.

    Raises:
        InputError: a part that does not exist.
    """
    made = json.loads(json.dumps(description))
    given = dict(sources or {})
    if "audio_encoder" in given:  # first: where its weights are depends on it
        kind = given.pop("audio_encoder")
        if kind not in SOUND_LICENCES:
            raise InputError(f"no sound encoder {kind!r}: choose from {', '.join(SOUND_LICENCES)}")
        made["encoders"]["audio"] = {"encoder": kind, "licence": SOUND_LICENCES[kind]}
    sound, decoder = made["encoders"]["audio"], made["decoder"]
    decoder["config"] = {"source": decoder["source"], "revision": decoder["revision"]}
    own = tuple(decoder.get("parts", ()))
    for part, source in given.items():
        local = Path(source).expanduser()
        known = (*PARTS, *own, *DECODER_PARTS)
        if part not in known:
            raise InputError(f"no part {part!r}: the sources are {', '.join(known)}")
        if part == "embed_scale":
            made["embed_scale"] = source
        elif part == "lora":
            decoder["lora"] = source
        elif part == "audio_head":
            sound["head"] = str(local.resolve())
        elif part == "audio" and sound["encoder"] != "pe_av":  # the others come as one file
            sound["checkpoint"] = str(local.resolve())
        elif named(source) and part in made["encoders"]:
            made["encoders"][part] = {"encoder": source, "modality": part, "licence": "that of its source"}
        else:
            entries = {"decoder": decoder, "decoder_config": decoder["config"], **decoder.get("parts", {}), **made["encoders"]}
            entry = entries[part]
            name, _, revision = source.partition("@")
            entry["source"] = str(local.resolve()) if local.exists() else name
            entry["revision"] = None if local.exists() else revision or None
    if accept_license:
        for entry in made["encoders"].values():
            if entry["licence"] not in PERMISSIVE:
                entry["accept_license"] = entry["licence"]
    return made


def config_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What of a description's entry is an encoder's configuration: all but facts about it and what is not known.

    >>> config_of({"encoder": "beats", "checkpoint": None, "licence": "MIT", "bytes": {"fp32": 363000000}})
    {'encoder': 'beats', 'licence': 'MIT'}
    """
    return {key: value for key, value in entry.items() if value is not None and key not in FACTS}


def own_encoders(description: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configurations of the encoders that have weights somewhere, by modality.

    Raises:
        InputError: a sound encoder outside the decoder's space without a trained head.
    """
    entries = {kind: config_of(entry) for kind, entry in description["encoders"].items()}
    # no sound without a source: there is no repository to name
    found = {kind: e for kind, e in entries.items() if e.get("checkpoint") or e.get("source") or named(e["encoder"])}
    sound = found.get("audio", {})
    if sound.get("encoder") in OUTSIDE and "head" not in sound:
        raise InputError(
            f"{sound['encoder']} is in no decoder's space by itself: give its trained head, --source audio_head=FOLDER"
        )
    return found


def decoder_weights(decoder: Mapping[str, Any], variant: str | None) -> tuple[Path, str | None]:
    """The folder of a published decoder, and the variant of its weight files: fp16 by itself where there are no others.

    Raises:
        InputError: it cannot be had; the line names the alternatives and the way by a local folder.
    """
    from ..encoders.published import VARIANTS, resolve

    for wanted in [variant] if variant else [None, *VARIANTS]:
        try:
            folder = resolve(decoder["source"], decoder["revision"], wanted_files(decoder["components"], wanted))
        except InputError as error:
            others = f", or try {', '.join(decoder['alternatives'])}" if decoder["alternatives"] else ""
            raise InputError(f"{error} (--source decoder=FOLDER{others})") from error
        if list(folder.glob(f"*/*{'.' + wanted if wanted else ''}.safetensors*")):
            break
    return folder, variant_in(folder, variant)


def variant_in(folder: Path, variant: str | None = None) -> str | None:
    """The variant that was asked for, otherwise the one that some part of a pipeline's folder has alone.

    Raises:
        InputError: nothing of the variant is there, or a part's weights are pickles, which are not read.
    """
    from ..encoders.published import VARIANTS, variant_of

    parts: dict[Path, set[str | None]] = {}
    for path in folder.glob("*/*.safetensors"):
        parts.setdefault(path.parent, set()).add(variant_of(path))
    if pickled := sorted({p.parent for p in folder.glob("*/*.bin")} - set(parts)):
        raise InputError(
            f"{pickled[0]} holds pickles (.bin) only, which are not read since they can run code: get safetensors of it, "
            "or convert it with diffusers' save_pretrained where you trust it"
        )
    if variant is not None:
        if parts and not any(variant in kinds for kinds in parts.values()):
            raise InputError(f"{folder} has no weights of the variant {variant}: leave variant out, or give another folder")
        return variant
    return next((v for v in VARIANTS for kinds in parts.values() if kinds == {v}), None)


def wanted_files(components: Sequence[str], variant: str | None) -> list[str]:
    """What to download of a decoder's repository: configurations and one safetensors file a part, no pickles, no copies.

    >>> wanted_files(["unet"], "fp16")
    ['model_index.json', 'unet/*.json', 'unet/*.txt', 'unet/*model.fp16.safetensors']
    """
    weights = f"*model.{variant}.safetensors" if variant else "*model.safetensors"
    return [*configurations(components), *(f"{part}/{weights}" for part in components)]


def configurations(components: Sequence[str]) -> list[str]:
    """The files of a decoder's repository that are no weights."""
    return ["model_index.json", *(f"{part}/{name}" for part in components for name in ("*.json", "*.txt"))]


def on_disk(entry: Mapping[str, Any]) -> bool:
    """Whether a part is here already: a local path, or a snapshot in the hub's cache. Nothing is downloaded."""
    if "checkpoint" in entry:
        return entry["checkpoint"] is not None and Path(entry["checkpoint"]).exists()
    if not entry.get("source"):
        return False
    if Path(entry["source"]).expanduser().exists():
        return True
    from huggingface_hub import snapshot_download

    files = wanted_files(entry["components"], None) if "components" in entry else ["*.json", "*.safetensors", "*.bin"]
    files = [entry["file"]] if "file" in entry else files
    try:
        root = snapshot_download(entry["source"], revision=entry.get("revision"), allow_patterns=files, local_files_only=True)
    except Exception:  # the client raises several kinds of errors for "not there"
        return False
    if "file" in entry:
        return (Path(root) / entry["file"]).is_file()
    weights = [p for ending in ("safetensors", "bin") for p in Path(root).rglob(f"*.{ending}")]
    return {p.parent.name for p in weights} >= {"unet"} if "components" in entry else bool(weights)
