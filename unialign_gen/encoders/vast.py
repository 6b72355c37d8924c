"""Released VAST, GRAM and PMRL checkpoints taken apart: three encoders and their contrastive heads.

Names and pooling as in ispamm/GRAM (Cicchetti et al. 2024, MIT) and Xiaohao-Liu/PMRL (Liu et al. 2025, MIT), which keep
those of VAST (Chen et al. 2023, MIT). A unit vector of a modality is head(pooled features), normalised:

- video, EVA-01-CLIP g/14: class token of each frame behind the last norm, mean over the frames, 1408 -> 512;
- text, BERT base: last layer at [CLS], 768 -> 512;
- audio, BEATs with 64 mel: mean over the tokens of a slice of 1024 spectrogram frames, mean over the slices, 768 -> 512.

The heads are linear and have no bias.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..errors import InputError
from . import bert, eva_clip
from .published import read_state

if TYPE_CHECKING:
    from ..aligner import Part
    from .base import Encoder

HEADS = {"video": "contra_head_v", "text": "contra_head_t", "audio": "contra_head_a"}
ENCODERS = {"video": "vision_encoder.visual.", "text": "multimodal_encoder.bert.", "audio": "audio_encoder."}
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
        elif encoder is not None and fits(encoder, name.removeprefix(ENCODERS[encoder])):
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


def fits(kind: str, name: str) -> bool:
    """Whether a name within an encoder is one that its architecture has."""
    if kind == "video":
        return eva_clip.is_vision(name)
    return kind == "audio" or bert.is_encoder(name)


def make_part(kind: str, encoder: Encoder, split: Split) -> Part:
    """An encoder with the checkpoint's weights in it and its head, frozen: prepared inputs to unit vectors (B, 512).

    Args:
        kind: `video`, `text` or `audio`.
        encoder: one of the checkpoint's architecture; its weights are replaced.
        split: the checkpoint.

    Raises:
        InputError: the checkpoint has no such modality, or its weights do not fit the encoder.
    """
    from ..aligner import Part

    if kind not in split.parts:
        raise InputError(f"the checkpoint has no {kind}: it has {', '.join(split.parts)}")
    weights, head_weights = split.parts[kind]
    head = nn.Linear(head_weights["weight"].shape[1], head_weights["weight"].shape[0], bias=False)
    try:
        encoder.load_state_dict(weights, assign=True)
        encoder.compute_buffers()
        head.load_state_dict(head_weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the checkpoint's {kind} does not fit {type(encoder).__name__}: {reason}") from error
    part = Part(encoder, head)
    part.eval().requires_grad_(False)
    return part


def published_encoders(tokenizer: Path) -> dict[str, Encoder]:
    """The three encoders at the published sizes, without weights; `tokenizer` is BERT base uncased's `tokenizer.json`.

    1.2 billion parameters: under `torch.device("meta")` they take no memory until `load` fills them.
    """
    from .beats import BEATs

    return {
        "video": eva_clip.EvaClip(),
        "text": bert.Bert(tokenizer.read_text("utf-8")),
        "audio": BEATs({"mels": 64, "window": 1024}),
    }


def load(path: Path, encoders: Mapping[str, Encoder]) -> dict[str, Part]:
    """Encoders with heads out of a released checkpoint, for the modalities that it has.

    Args:
        path: the released `.pt` file; only tensors are read from it.
        encoders: `published_encoders`, or smaller ones of the same kinds.

    Raises:
        InputError: the file cannot be read, is no such checkpoint, or does not fit an encoder.

    Warns:
        of weights that no released checkpoint is known to have; they are left out.
    """
    split = split_checkpoint(read_state(path))
    if split.unknown:
        warnings.warn(f"{len(split.unknown)} unknown weights in {path} are left out: {split.unknown[:3]} ...", stacklevel=2)
    return {kind: make_part(kind, encoders[kind], split) for kind in split.parts}
