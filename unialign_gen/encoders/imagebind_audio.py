"""ImageBind's sound trunk (Girdhar et al. 2023, arXiv 2305.05665): a ViT-B over mel spectrograms, 1024-d.

Written anew from the paper and from published sizes, names and constants; no line of the published code is in it. The
published **weights** (`imagebind_huge.pth`) are under CC-BY-NC-SA 4.0: not for commercial use, credit due, and what is
made from them shared alike. They are therefore read only for those who opt in, see `ask_for_licence`.
"""

from __future__ import annotations

import math
import os
import warnings
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .base import Encoder
from .kaldi import fbank
from .published import load_pickle
from .quantised import stored_weights

RATE = 16000
MELS, FRAMES = 128, 204
CLIPS, CLIP_SECONDS = 3, 2
MEAN, STD = -4.268, 9.138  # of AudioSet's mels
PATCH, STRIDE = 16, 10
SHORTEST = 400  # samples in one frame of the filter bank
LOGIT_SCALE = 20.0

LICENCE = "CC-BY-NC-SA-4.0"
VARIABLE = "UNIALIGN_ACCEPT_LICENSE"
SIZES = {"depth": 12, "width": 768, "heads": 12, "dim": 1024}


def ask_for_licence(config: dict[str, Any]) -> None:
    """Goes on only if the weights' licence was accepted, in the encoder's configuration or in the environment, and shows it.

    Opting in is `"accept_license": "CC-BY-NC-SA-4.0"` in the encoder's `config.json`, or the same value in the variable
    `UNIALIGN_ACCEPT_LICENSE`.

    Raises:
        InputError: neither says so.
    """
    if LICENCE not in (config.get("accept_license"), os.environ.get(VARIABLE)):
        raise InputError(
            f"ImageBind's weights are {LICENCE} (non-commercial, share alike): to accept, use --accept-license or "
            f'accept_license=True, put "accept_license": "{LICENCE}" in the encoder\'s config, or set {VARIABLE}={LICENCE}'
        )
    show_licence()


@cache
def show_licence() -> None:
    """Warns, once in a process, under what licence the weights are."""
    warnings.warn(
        "ImageBind's sound weights (Meta AI, Girdhar et al. 2023) are under CC-BY-NC-SA 4.0: non-commercial use only, "
        "with credit, and derivatives under the same licence (https://creativecommons.org/licenses/by-nc-sa/4.0/)",
        stacklevel=3,
    )


class Attention(nn.Module):
    """Self-attention with one more key and value than there are tokens, both learned."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.extra_key = nn.Parameter(torch.zeros(1, 1, width))
        self.extra_value = nn.Parameter(torch.zeros(1, 1, width))
        self.outward = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        query, key, value = self.inward(x).chunk(3, dim=2)
        key = torch.cat([key, self.extra_key.expand(len(x), 1, -1)], dim=1)
        value = torch.cat([value, self.extra_value.expand(len(x), 1, -1)], dim=1)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self.outward(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: (B, N, width) -> the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class ImageBindAudio(Encoder):
    """Features of sounds (B, 1024) in the space of OpenCLIP ViT-H/14's image embeddings: the mean of three clips' unit vectors.

    The published model multiplies each clip's unit vector by 20, its logit scale, before it averages. Here the factor is
    left out: directions are the same, and the aligner sets the length that a decoder wants. `log_logit_scale` keeps its
    logarithm as a buffer, so `encoder.log_logit_scale.exp() * encoder(x)` is the published embedding. The length of ours is
    at most 1, and less the more the clips differ.

    Args:
        depth, width, heads: of the transformer, 12, 768 and 12 in the published weights.
        dim: width of the features, 1024 there.
    """

    rate = RATE
    downmix = "left"  # as the published code reads stereo

    def __init__(self, depth: int = 12, width: int = 768, heads: int = 12, dim: int = 1024):
        super().__init__()
        self.dim = dim
        self.config = {"encoder": "imagebind_audio", "depth": depth, "width": width, "heads": heads, "dim": dim}
        places = 1 + ((MELS - PATCH) // STRIDE + 1) * ((FRAMES - PATCH) // STRIDE + 1)
        self.patches = nn.Conv2d(1, width, PATCH, stride=STRIDE, bias=False)
        self.patch_norm = nn.LayerNorm(width)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, places, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, dim, bias=False)
        self.register_buffer("log_logit_scale", torch.full((), math.log(LOGIT_SCALE)))

    def prepare(self, sounds: list[Tensor]) -> Tensor:
        """Mono sounds (samples,) at 16 kHz in [-1, 1] -> (B, 3, 128, 204): three clips of 2 s each, mels by frames.

        The clips start at 0, at the middle and 2 s before the end, so they overlap in a sound of less than 6 s and are
        the same in one of less than 2 s, whose missing frames are zeros. Each clip loses its own mean, one after the other
        in memory that overlapping clips share, as in the published preprocessing: what one clip lost, the next does not
        have. The weights were trained and are used so.

        Raises:
            InputError: a sound is empty or no vector of finite samples.
        """
        # a copy, since the clips are centred in place
        return torch.stack([torch.stack([self.mel(c) for c in clips_of(s.float().clone())]) for s in sounds])

    def mel(self, clip: Tensor) -> Tensor:
        """At most 2 s -> (128, 204); takes the clip's mean from it, in place."""
        clip -= clip.mean()
        clip = F.pad(clip, (0, max(0, SHORTEST - len(clip))))
        mel = fbank(clip, RATE, MELS, window="hanning")
        mel = F.pad(mel, (0, 0, 0, max(0, FRAMES - len(mel))))[:FRAMES]
        return (mel.T - MEAN) / STD

    def forward(self, mels: Tensor) -> Tensor:
        """(B, 3, 128, 204) -> (B, dim), of length 1 at most."""
        x = self.patches(mels.flatten(0, 1).unsqueeze(1)).flatten(2).transpose(1, 2)  # (3 B, 228, width)
        x = torch.cat([self.summary.expand(len(x), -1, -1), self.patch_norm(x)], dim=1) + self.positions  # (3 B, 229, width)
        for block in self.blocks:
            x = block(x)
        x = F.normalize(self.project(self.last_norm(x[:, 0])), dim=1)  # (3 B, dim)
        return x.unflatten(0, mels.shape[:2]).mean(1)


def clips_of(sound: Tensor) -> list[Tensor]:
    """Three stretches of 2 s, evenly spaced from the start to the end; of a shorter sound, the whole three times."""
    if sound.ndim != 1 or len(sound) == 0:
        raise InputError(f"a sound must be a non-empty vector of mono samples, got shape {tuple(sound.shape)}")
    # seconds as a float, then exact: the published code counts so, and a start differs by a sample otherwise
    step = Fraction(max(0.0, len(sound) / RATE - CLIP_SECONDS)) / (CLIPS - 1)
    return [sound[int(i * step * RATE) :][: CLIP_SECONDS * RATE] for i in range(CLIPS)]


def published_keys(depth: int = SIZES["depth"]) -> dict[str, str]:
    """Names in `imagebind_huge.pth` of all that belongs to sound, and what they are called here."""
    stem, head = "modality_preprocessors.audio.", "modality_heads.audio."
    keys = {
        f"{stem}cls_token": "summary",
        f"{stem}rgbt_stem.proj.weight": "patches.weight",
        f"{stem}pos_embedding_helper.pos_embed": "positions",
        f"{head}2.weight": "project.weight",
        "modality_postprocessors.audio.1.log_logit_scale": "log_logit_scale",
    }
    both = {f"{stem}rgbt_stem.norm_layer.": "patch_norm.", f"{head}0.": "last_norm."}  # with a weight and a bias
    for i in range(depth):
        theirs, ours = f"modality_trunks.audio.blocks.{i}.", f"blocks.{i}."
        keys |= {f"{theirs}attn.bias_k": f"{ours}attention.extra_key", f"{theirs}attn.bias_v": f"{ours}attention.extra_value"}
        both |= {f"{theirs}attn.in_proj_": f"{ours}attention.inward.", f"{theirs}attn.out_proj.": f"{ours}attention.outward."}
        both |= {f"{theirs}mlp.fc1.": f"{ours}widen.", f"{theirs}mlp.fc2.": f"{ours}narrow."}
        both |= {f"{theirs}norm_{n}.": f"{ours}norm{n}." for n in (1, 2)}
    return keys | {theirs + part: ours + part for theirs, ours in both.items() for part in ("weight", "bias")}


def build(folder: Path, config: dict[str, Any]) -> ImageBindAudio:
    """The encoder as `config` says, if its licence is accepted there or in the environment."""
    ask_for_licence(config)
    encoder = ImageBindAudio(**{k: config.get(k, v) for k, v in SIZES.items()})
    if "accept_license" in config:  # a copy that is saved loads again under the same acceptance
        encoder.config["accept_license"] = config["accept_license"]
    return encoder


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in `folder/model.safetensors`, or of sound alone in the published file `config["checkpoint"]`.

    The path is taken from `folder` unless it is absolute.

    Raises:
        InputError: the licence is not accepted, no file is there, or it is not ImageBind's or cannot be read safely.
    """
    ask_for_licence(config)
    if "checkpoint" not in config:
        return stored_weights(folder, config)
    path = folder / config["checkpoint"]
    found = load_pickle(path)
    keys = published_keys(config.get("depth", SIZES["depth"]))
    missing = sorted(keys) if not isinstance(found, dict) else [k for k in keys if not isinstance(found.get(k), Tensor)]
    if missing:
        raise InputError(f"{path} is no ImageBind checkpoint: {len(missing)} of its sound weights are missing, {missing[0]}")
    # copies, so that the 5 GB file the tensors are mapped from is let go
    state = {ours: found[theirs].clone() for theirs, ours in keys.items()}
    state["log_logit_scale"] = state["log_logit_scale"].reshape(())
    return state
