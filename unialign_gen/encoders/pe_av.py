"""PE-AV, Perception Encoder audio-visual, its sound side (Meta 2025, Apache-2.0, code and weights) through transformers.

Licence as stated in facebookresearch/perception_models: LICENSE.PE, and the badge of its Perception Encoder models.
Published as `facebook/pe-av-small`, `-base` and `-large`, for all frames and for 16; the sound side is the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import Encoder
from .published import find_weights, read_json, read_state, resolve
from .quantised import stored_weights

RATE = 48000
# where the sound side is, the first that a file has: a whole PE-AV keeps its encoder under one of two names
ENCODERS = ("audio_model.audio_encoder.", "audio_encoder.", "audio_video_encoder.embedder.audio_encoder.")
HEADS = ("audio_model.audio_head.", "audio_head.")

FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "attention_bias"),
)
CODEC_FIELDS = ("encoder_hidden_size", "downsampling_ratios", "codebook_dim")


class PEAudio(Encoder):
    """Features (B, dim) of sounds in the space that PE-AV shares with text and video; dim is 1024 as published.

    Args:
        sizes: the architecture in the words of transformers' `PeAudioEncoderConfig`.
        dim: width of the shared space.
        rate: sampling rate in Hz.
        origin: entries kept in the configuration that say where the weights came from.
    """

    def __init__(self, sizes: Mapping[str, Any], dim: int = 1024, rate: int = RATE, origin: Mapping[str, Any] | None = None):
        super().__init__()
        from transformers import PeAudioEncoderConfig
        from transformers.models.pe_audio.modeling_pe_audio import PeAudioContrastiveHead, PeAudioEncoder

        parts = PeAudioEncoderConfig.from_dict(dict(sizes))
        self.net = PeAudioEncoder(parts)
        self.head = PeAudioContrastiveHead(parts.hidden_size, dim)
        self.hop = int(parts.dac_config.hop_length)
        self.dim, self.rate = dim, rate
        self.config = {**(origin or {}), "encoder": "pe_av", "architecture": dict(sizes), "dim": dim, "rate": rate}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and casts as any module does, but keeps the rotary frequencies in fp32: rounded, late frames turn wrongly."""
        from transformers.models.pe_audio.modeling_pe_audio import PeAudioEncoderRotaryEmbedding

        super()._apply(fn, recurse)
        place = self.head.proj.weight.device
        if place.type != "meta":
            self.net.rotary_emb = PeAudioEncoderRotaryEmbedding(config=self.net.config).to(place)
        return self

    def prepare(self, sounds: list[Tensor]) -> Tensor:
        """Mono sounds (samples,) at the encoder's rate -> (B, samples), padded with NaN to the longest.

        A sound is first mirrored at its end until its length is a whole number of hops, 1920 samples as published.

        Raises:
            InputError: a sound is empty.
        """
        if any(len(s) == 0 for s in sounds):
            raise InputError("a sound is empty: give at least one sample")
        whole = [torch.from_numpy(np.pad(s.float().numpy(), (0, -len(s) % self.hop), "reflect")) for s in sounds]
        return self.collate([s.unsqueeze(0) for s in whole])

    def forward(self, sounds: Tensor) -> Tensor:
        """(B, samples) -> (B, dim), not normalised.

        A shorter sound of a batch differs slightly from the same sound alone: the codec's convolutions reach into the
        padding behind it.
        """
        mask = ~sounds.isnan()
        pooled = self.net(sounds.nan_to_num().unsqueeze(1), padding_mask=mask).pooler_output
        return self.head(pooled)


def is_sound(name: str) -> bool:
    """Whether a published tensor of this name belongs to the sound side."""
    return name.startswith(ENCODERS + HEADS)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sound side's weights under the encoder's names."""
    renamed: dict[str, Tensor] = {}
    for prefixes, name in ((ENCODERS, "net."), (HEADS, "head.")):
        prefix = next((p for p in prefixes if any(k.startswith(p) for k in state)), None)
        if prefix is not None:
            renamed |= {name + k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return renamed


def published_sizes(folder: Path) -> tuple[dict[str, Any], int, int]:
    """The sound side's architecture, the width of the space and the rate in Hz, from a published folder.

    Raises:
        InputError: it is no PE-AV.
    """
    from transformers import PeAudioConfig, PeAudioVideoConfig

    raw = read_json(folder / "config.json")
    kinds = {"pe_audio": PeAudioConfig, "pe_audio_video": PeAudioVideoConfig}
    if not isinstance(raw, dict) or raw.get("model_type") not in kinds:
        raise InputError(f"{folder} is no PE-AV: give a folder or repository such as facebook/pe-av-base")
    whole = kinds[raw["model_type"]].from_dict(raw)
    sound = whole.audio_config if raw["model_type"] == "pe_audio" else whole.audio_video_config.audio_config
    extractor = folder / "preprocessor_config.json"
    rate = read_json(extractor).get("sampling_rate", RATE) if extractor.is_file() else RATE
    sizes = {name: getattr(sound, name) for name in FIELDS}
    sizes["dac_config"] = {name: getattr(sound.dac_config, name) for name in CODEC_FIELDS}
    sizes["dac_config"]["downsampling_ratios"] = list(sizes["dac_config"]["downsampling_ratios"])
    return sizes, int(whole.text_config.hidden_size), int(rate)


def build(folder: Path, config: dict[str, Any]) -> PEAudio:
    if "architecture" in config:
        return PEAudio(config["architecture"], config["dim"], config["rate"], config)
    if "source" not in config:
        raise InputError('nothing says how large this PE-AV is: give "source", a folder or a hub repository')
    source = resolve(config["source"], config.get("revision"), ["config.json", "preprocessor_config.json"])
    return PEAudio(*published_sizes(source), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """A saved encoder's weights, otherwise those of the sound side of the source."""
    if (folder / "model.safetensors").is_file():
        return stored_weights(folder, config)
    if "source" not in config:
        raise InputError('this PE-AV encoder has no weights: give "source", a folder or a hub repository')
    path = find_weights(config["source"], config.get("revision"), ("model", "pytorch_model"))
    return rename(read_state(path, is_sound))
