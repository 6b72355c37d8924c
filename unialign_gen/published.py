"""Checkpoints put together out of what others published: a decoder, encoders, and a measured scale.

`checkpoints/NAME/checkpoint.json` says where each part comes from. Every source can be replaced by a local folder or file, or
by another repository: sources move and disappear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from .aligner import Aligner
    from .pipelines import EmbedScale

PARTS = ("decoder", "image", "text", "audio", "audio_encoder", "audio_head", "embed_scale")
OUTSIDE = ("beats", "pe_av")  # sound encoders of a space of their own
SOUND_LICENCES = {"imagebind_audio": "CC-BY-NC-SA-4.0", "beats": "MIT", "pe_av": "Apache-2.0"}


def read(folder: Path) -> dict[str, Any]:
    """The description of a published checkpoint."""
    try:
        return json.loads((folder / "checkpoint.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"no description of a checkpoint in {folder}: {error}") from error


def replace_sources(description: dict[str, Any], sources: Mapping[str, str] | None, accept_license: bool) -> dict[str, Any]:
    """The description with the caller's own sources in it.

    Args:
        sources: part (`decoder`, `image`, `text`, `audio`, `audio_head`, `embed_scale`) to a folder, a file or a repository,
            the latter with an optional `@REVISION`; `audio_encoder` to `imagebind_audio`, `beats` or `pe_av`.
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
    sound = made["encoders"]["audio"]
    for part, source in given.items():
        local = Path(source).expanduser()
        if part not in PARTS:
            raise InputError(f"no part {part!r}: the sources are {', '.join(PARTS)}")
        if part == "embed_scale":
            made["embed_scale"] = source
        elif part == "audio_head":
            sound["head"] = str(local.resolve())
        elif part == "audio" and sound["encoder"] != "pe_av":  # the others come as one file
            sound["checkpoint"] = str(local.resolve())
        else:
            entry = made["decoder"] if part == "decoder" else made["encoders"][part]
            name, _, revision = source.partition("@")
            entry["source"] = str(local.resolve()) if local.exists() else name
            entry["revision"] = None if local.exists() else revision or None
    if accept_license:
        for entry in made["encoders"].values():
            entry["accept_license"] = entry["licence"]
    return made


def aligner(description: dict[str, Any], dtype: Any = None) -> Aligner:
    """The encoders of a description; each loads, in `dtype`, when its modality is first asked for."""
    from .aligner import Aligner

    encoders = {
        kind: {k: v for k, v in entry.items() if v is not None}
        for kind, entry in description["encoders"].items()
        if entry.get("checkpoint") or entry.get("source")  # no sound without a source: there is no repository to name
    }
    sound = encoders.get("audio", {})
    if sound.get("encoder") in OUTSIDE and "head" not in sound:
        raise InputError(
            f"{sound['encoder']} is in no decoder's space by itself: give its trained head, --source audio_head=FOLDER"
        )
    made = Aligner(description["embed_dim"], list(encoders))
    made.configs = encoders
    if dtype is not None:
        made.set_dtype(dtype)
    return made.eval()


def embed_scale(name: str, description: dict[str, Any], calibrated: Path) -> EmbedScale:
    """The decoder's measured scale, from the caller's folder or from where `calibrate` wrote it.

    Raises:
        InputError: it was not measured yet.
    """
    from .pipelines import EmbedScale

    folder = Path(description.get("embed_scale") or calibrated).expanduser()
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{name} has no embed_norm yet, and nobody published one: run `unialign-gen calibrate --checkpoint {name} "
            f"--images FOLDER` once, or give a folder that it wrote as the source embed_scale"
        )
    try:
        scale = EmbedScale.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no embed_scale in {folder}: {str(error).splitlines()[0]}") from error
    if scale.config["embed_dim"] != description["embed_dim"]:
        raise InputError(f"{folder} is of {scale.config['embed_dim']} dimensions, {name} has {description['embed_dim']}")
    return scale


def load(name: str, description: dict[str, Any], calibrated: Path, dtype: Any, variant: str | None = None) -> DiffusionPipeline:
    """The pipeline of a description. The vision encoder is not loaded unless a picture or a video is a prompt.

    Args:
        name: for messages.
        calibrated: the folder that `calibrate` writes its scale to.
        variant: of the weight files, such as `fp16`.

    Raises:
        InputError: a part that cannot be had; the line names the alternatives and the way by a local folder.
    """
    from diffusers import KandinskyV22Pipeline, StableUnCLIPImg2ImgPipeline
    from safetensors import SafetensorError

    from .encoders.published import first_line, resolve
    from .pipelines import UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline

    scale = embed_scale(name, description, calibrated)
    decoder = description["decoder"]
    try:
        folder = resolve(decoder["source"], decoder["revision"], wanted_files(decoder["components"], variant))
    except InputError as error:
        others = f", or try {', '.join(decoder['alternatives'])}" if decoder["alternatives"] else ""
        raise InputError(f"{error} (--source decoder=FOLDER{others})") from error
    options = {"dtype": dtype, "variant": variant, "use_safetensors": True, "local_files_only": True}
    wide = description["embed_dim"]
    defaults = {k: description[k] for k in ("default_steps", "default_guidance")}
    try:
        if description["pipeline"] == "UniAlignKandinskyPipeline":
            parts = KandinskyV22Pipeline.from_pretrained(folder, **options).components
            check_width(folder, parts["unet"].config.encoder_hid_dim, wide)
            return UniAlignKandinskyPipeline(aligner=aligner(description, dtype), embed_scale=scale, **parts, **defaults)
        parts = StableUnCLIPImg2ImgPipeline.from_pretrained(
            folder, image_encoder=None, feature_extractor=None, **options
        ).components
        check_width(folder, (parts["unet"].config.projection_class_embeddings_input_dim or 0) // 2, wide)
        return UniAlignStableUnCLIPPipeline(aligner=aligner(description, dtype), embed_scale=scale, **parts, **defaults)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        raise InputError(f"the decoder in {folder} cannot be loaded: {first_line(error)}") from error


def check_width(folder: Path, found: int | None, wide: int) -> None:
    """Whether a decoder takes embeddings of this width."""
    if found != wide:
        raise InputError(f"the decoder in {folder} takes embeddings of {found} dimensions, this space has {wide}: give another")


def wanted_files(components: Sequence[str], variant: str | None) -> list[str]:
    """What to download of a decoder's repository: configurations and one safetensors file a part, no pickles, no copies."""
    weights = f"*model.{variant}.safetensors" if variant else "*model.safetensors"
    return ["model_index.json", *(f"{part}/{name}" for part in components for name in ("*.json", "*.txt", weights))]


def on_disk(entry: dict[str, Any]) -> bool:
    """Whether a part is here already: a local path, or a snapshot in the hub's cache. Nothing is downloaded."""
    if "checkpoint" in entry:
        return entry["checkpoint"] is not None and Path(entry["checkpoint"]).exists()
    if Path(entry["source"]).expanduser().exists():
        return True
    from huggingface_hub import snapshot_download

    files = wanted_files(entry["components"], None) if "components" in entry else ["*.json", "*.safetensors", "*.bin"]
    try:
        root = snapshot_download(entry["source"], revision=entry["revision"], allow_patterns=files, local_files_only=True)
    except Exception:  # the client raises several kinds of errors for "not there"
        return False
    weights = [p for ending in ("safetensors", "bin") for p in Path(root).rglob(f"*.{ending}")]
    return {p.parent.name for p in weights} >= {"unet"} if "components" in entry else bool(weights)
