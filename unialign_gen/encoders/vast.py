"""Released VAST, GRAM and PMRL checkpoints taken apart: three encoders and their contrastive heads.

Names and pooling as in ispamm/GRAM (Cicchetti et al. 2024, MIT) and Xiaohao-Liu/PMRL (Liu et al. 2025, MIT), which keep
those of VAST (Chen et al. 2023, MIT). A unit vector of a modality is head(pooled features), normalised:

- video, EVA-01-CLIP g/14: class token of each frame behind the last norm, mean over the frames, 1408 -> 512;
- text, BERT base: last layer at [CLS], 768 -> 512;
- audio, BEATs with 64 mel: mean over the tokens of slices of 1024 spectrogram frames, filled up with zeros, 768 -> 512.

The heads are linear and have no bias. What is read of a sound, a frame and a caption depends on the data set: `READ_AS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..heads import Head, save_head
from ..notes import note
from . import bert, eva_clip
from .published import read_state
from .registry import load_encoder

HEADS = {"video": "contra_head_v", "text": "contra_head_t", "audio": "contra_head_a"}
ENCODERS = {"video": "vision_encoder.visual.", "text": "multimodal_encoder.bert.", "audio": "audio_encoder."}
# whether a name within an encoder is one that its architecture has
KNOWN = {"video": eva_clip.is_vision, "text": bert.is_encoder, "audio": lambda name: True}
# what the checkpoints hold and an embedding of one modality does not need, and what it is
UNUSED = {
    r"vision_encoder\.visual\.head\.": "CLIP's own projection",
    r"vision_encoder\.(text\.|logit_scale$)": "CLIP's own text side",
    r"multimodal_encoder\.bert\.encoder\.layer\.\d+\.crossattention\.": "cross-attention of the matching and the decoder",
    r"multimodal_encoder\.bert\.(pooler\.|embeddings\.(position_ids|token_type_ids)$)": "BERT's pooler and counters",
    r"multimodal_encoder\.cls\.": "the decoder's word prediction",
    r"audio_encoder\.predictor\.": "BEATs' classifier",
    r"itm_head\.": "the matching head, which re-scores the best candidates",
    r"hidden_trans_(vision|audio|subtitle|depth)_multimodal\.": "input of the cross-attention",
    r"(vision|audio|subtitle|depth)_(frame|type)_embeddings?$": "input of the cross-attention",
    r"contra_head_(s|d|va|vs|vas)\.": "heads of subtitles, depth and joined modalities",
    r"contra_temp$": "the temperature of the contrastive loss",
}


@dataclass(frozen=True)
class Split:
    """A checkpoint taken apart.

    Attributes:
        parts: for `video`, `text` and `audio`, where it has them: the encoder's weights and the head's. Video and text
            are under the names of `encoders.eva_clip` and `encoders.bert`, audio is under BEATs' published names; a head
            holds `weight` (512, width of the encoder).
        unused: names that are known and not needed, each with what it is.
        unknown: names that no released checkpoint is known to have.
    """

    parts: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]
    unused: dict[str, str]
    unknown: list[str]


def split_checkpoint(state: Mapping[str, Tensor]) -> Split:
    """Encoders and heads of a released checkpoint.

    Args:
        state: the weights by name, as `encoders.published.read_state` returns them.

    Raises:
        InputError: it is no such checkpoint: a modality has an encoder without a head, or there is none at all.
    """
    encoders: dict[str, dict[str, Tensor]] = {kind: {} for kind in ENCODERS}
    heads: dict[str, dict[str, Tensor]] = {kind: {} for kind in ENCODERS}
    unused: dict[str, str] = {}
    unknown: list[str] = []
    for published, value in state.items():
        name = modern(published)
        why = next((text for pattern, text in UNUSED.items() if re.match(pattern, name)), None)
        encoder = next((kind for kind, prefix in ENCODERS.items() if name.startswith(prefix)), None)
        head = next((kind for kind, prefix in HEADS.items() if name == f"{prefix}.linear.weight"), None)
        if why is not None:
            unused[published] = why
        elif head is not None:
            heads[head]["weight"] = value
        elif encoder is not None and KNOWN[encoder](name.removeprefix(ENCODERS[encoder])):
            encoders[encoder][name.removeprefix(ENCODERS[encoder])] = value
        else:
            unknown.append(published)
    encoders["video"], encoders["text"] = eva_clip.rename(encoders["video"]), bert.rename(encoders["text"])
    found = [kind for kind in ENCODERS if encoders[kind] or heads[kind]]
    torn = [kind for kind in found if not (encoders[kind] and heads[kind])]
    if torn or not found:
        names = ", ".join(f"{ENCODERS[k]}* and {HEADS[k]}.linear.weight" for k in torn or ENCODERS)
        raise InputError(f"no checkpoint of VAST, GRAM or PMRL: expected {names}; give the released model_step .pt file")
    return Split({kind: (encoders[kind], heads[kind]) for kind in found}, unused, unknown)


def modern(name: str) -> str:
    """A name as the newer code writes it: older checkpoints say video for vision and name the CLIP instead of its role."""
    name = name.removeprefix("module.")
    if "video" in name:
        return name.replace("video", "vision")
    return name.replace("evaclip_model", "vision_encoder").replace("clip_model", "vision_encoder")


# how the released code reads each data set: slices of a sound, frames, and the most tokens of a caption (70 after fine-tuning)
READ_AS: dict[str, dict[str, dict[str, Any]]] = {
    name: {"audio": {"slices": slices}, "video": {"resize": resize}, "text": {"length": length}}
    for name, slices, resize, length in (
        ("vast", 1, "crop", 40),
        ("msrvtt", 1, "crop", 40),
        ("vatex", 1, "squash", 40),
        ("audiocaps", 1, "squash", 40),
        ("didemo", 2, "squash", 70),
        ("activitynet", 2, "squash", 70),
        ("clotho", 3, "crop", 40),
    )
}
CONFIGS: dict[str, dict[str, Any]] = {  # the published sizes are the kinds' own defaults
    "video": {"encoder": "eva_clip"},
    "text": {"encoder": "bert"},
    "audio": {"encoder": "beats", "mels": 64, "window": 1024},
}


def contrastive_head(weight: Tensor) -> Head:
    """A contrastive head (512, width) as one of ours, linear and without a bias: it saves, loads and trains as any other.

    >>> head = contrastive_head(torch.ones(2, 3))
    >>> head(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[6., 6.]])
    """
    head = Head(weight.shape[1], weight.shape[0], hidden=0)
    with torch.no_grad():
        head.linear.weight.copy_(weight)
        head.linear.bias.zero_()
    return head.eval().requires_grad_(False)


def write_split(
    path: Path,
    out: Path,
    tokenizer: Path,
    dataset: str = "vast",
    tokens: int | None = None,
    configs: Mapping[str, Mapping[str, Any]] = CONFIGS,
) -> dict[str, Path]:
    """A released checkpoint as folders: `out/encoders/MODALITY` for `encoders:`, and `out/heads/MODALITY` for `start:`.

    Args:
        path: the released `.pt` file; only tensors are read from it.
        tokenizer: BERT base uncased's folder, with a `tokenizer.json` or a `vocab.txt`.
        dataset: whose way of reading sound, frames and captions the encoders take over, one of `READ_AS`.
        tokens: the most of a caption, where it is not the data set's; the pretrained checkpoints read 40 of any.
        configs: of the encoders, where they are not of the published sizes.

    Returns:
        the folders of the encoders by modality.

    Raises:
        InputError: the file cannot be read, is no such checkpoint, or does not fit an encoder; no tokenizer; no such data set.
    """
    from safetensors.torch import save_file

    if dataset not in READ_AS:
        raise InputError(f"unknown data set {dataset!r}: choose from {', '.join(READ_AS)}")
    vocabulary = bert.find_tokenizer(tokenizer)
    reading = {kind: dict(entry) for kind, entry in READ_AS[dataset].items()}
    reading["text"]["length"] = tokens or reading["text"]["length"]
    split = split_checkpoint(read_state(path))
    if split.unknown:
        few = ", ".join(split.unknown[:3])
        note(
            "unknown weights",
            f"{len(split.unknown)} weights in {path} are of no released checkpoint and are left out: {few} ...",
        )
    written = {}
    for kind, (state, head) in split.parts.items():
        place = out / "encoders" / kind
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps({**configs[kind], **reading[kind]}, indent=2) + "\n")
        if kind == "text":
            (place / "tokenizer.json").write_text(vocabulary, "utf-8")
        if kind == "audio":  # the released file has BEATs' classifier too
            state = {name: value for name, value in state.items() if not name.startswith("predictor.")}
        save_file({name: value.contiguous().clone() for name, value in state.items()}, place / "model.safetensors")
        made = contrastive_head(head["weight"].float())
        found = load_encoder(place)  # whether all of it fits
        if found.dim != made.config["features"]:
            raise InputError(f"{path}: its {kind} head takes {made.config['features']} features, the encoder gives {found.dim}")
        save_head(made, out / "heads" / kind)
        written[kind] = place
    return written
