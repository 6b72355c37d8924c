"""PE-AV, Perception Encoder audio-visual (Meta 2025, Apache-2.0, code and weights): sound, text and video in one space.

    {"encoder": "pe_av:facebook/pe-av-base", "modality": "audio"}      audio, text, video, or audio_video

Licence as stated in facebookresearch/perception_models: LICENSE.PE, and the badge of its Perception Encoder models.
Published as `facebook/pe-av-small`, `-base` and `-large`, for all frames and for 16. Networks, tokenizer and the preparation
of frames are transformers'. A text has an embedding for each of the others: `against` says which, `audio` by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..errors import InputError, as_input_error
from ..media import Clip, load_video
from ..media.text import tell_cut
from .base import Encoder
from .hf import open_processor
from .open_clip import saved_texts
from .published import read_json, read_state, source_folder, source_weights

RATE = 48000
FRAMES = 16  # of a video that is opened here
TOKENS = 512  # of a text
WHOLE, SOUND = "pe_audio_video", "pe_audio"
SMALL = ("config.json", "*processor_config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt")
AGAINST = {
    "audio": "audio_model.text_audio_head",
    "video": "video_model.text_video_head",
    "audio_video": "text_audio_video_head",
}
# by modality, where in the whole model its network and its head are
PARTS = {
    "audio": ("audio_model.audio_encoder", "audio_model.audio_head"),
    "video": ("video_model.video_encoder", "video_model.video_head"),
    "text": ("text_model", ""),
    "audio_video": ("audio_video_encoder", "audio_video_head"),
}
# a file has a part that the model uses twice under one name only, and the model of sound and text has no outer name
SAME = (
    ("audio_encoder.", "audio_model.audio_encoder."),
    ("audio_head.", "audio_model.audio_head."),
    ("text_audio_head.", "audio_model.text_audio_head."),
    ("audio_model.text_model.", "text_model."),
    ("video_model.text_model.", "text_model."),
    ("audio_video_encoder.embedder.audio_encoder.", "audio_model.audio_encoder."),
    ("audio_video_encoder.embedder.video_encoder.", "video_model.video_encoder."),
)


class PEAV(Encoder):
    """Features (B, dim) in the space of PE-AV; dim is 1024 as published.

    Args:
        modality: `audio`, `text`, `video` or `audio_video`.
        sizes: the model's configuration in transformers' words, with its `model_type`.
        place: folder with the tokenizer's or the video processor's files.
        against: whose text embedding a text has.
        origin: entries kept in the configuration that say where the weights came from.

    Raises:
        InputError: no such modality, or no such model.
    """

    def __init__(
        self,
        modality: str,
        sizes: Mapping[str, Any],
        place: Path,
        against: str = "audio",
        origin: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        known = PARTS if sizes.get("model_type") == WHOLE else ("audio", "text")
        config = config_of(sizes)
        if modality not in known or (modality == "text" and against not in (AGAINST if known is PARTS else ("audio",))):
            raise InputError(f"this PE-AV has no {modality} against {against}: it has {', '.join(known)}")
        from transformers.models.pe_audio.modeling_pe_audio import PeAudioContrastiveHead

        self.modality, self.dim = modality, int(config.text_config.hidden_size)
        self.net = network(config, modality)
        self.head = PeAudioContrastiveHead(self.net.config.hidden_size, self.dim)  # of the same form in all parts
        self.config = {**(origin or {}), "encoder": "pe_av", "modality": modality, "architecture": dict(sizes)}
        if modality == "text":
            self.config["against"] = against
            self.processor = open_processor("text", place)
        if modality in ("audio", "audio_video"):
            sound = self.net.config if modality == "audio" else self.net.config.audio_config
            self.hop, self.rate = int(sound.dac_config.hop_length), int((origin or {}).get("rate", RATE))
            self.config["rate"] = self.rate
        if modality in ("video", "audio_video"):
            self.processor, self.whole_clips = open_processor("video", place), True

    def extra_files(self) -> dict[str, str]:
        return saved_texts(self.processor) if hasattr(self, "processor") else {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and casts as any module does, but keeps rotary frequencies in fp32: rounded, late frames turn wrongly."""
        kept = [
            (module, name, value.float())
            for module in self.modules()
            for name, value in module._buffers.items()
            if name.endswith("inv_freq") and value is not None
        ]
        super()._apply(fn, recurse)
        for module, name, value in kept:
            moved = module._buffers[name]
            assert moved is not None
            module._buffers[name] = value.to(moved.device)
        return self

    def prepare(self, inputs: list[Any]) -> Tensor:
        """What `forward` takes, of as many inputs.

        - audio: mono sounds (samples,) at `rate` Hz -> (B, samples), NaN behind the shorter ones. A sound is first mirrored at
          its end until its length is a whole number of hops, 1920 samples as published.
        - text: texts -> (B, 2, length) token ids and mask.
        - video: `media.Clip`s, lists of frames, or what `media.load_video` reads -> (B, frames, 3, side, side), NaN frames
          behind the shorter ones.
        - audio_video: clips with sound, or files -> (B, 2 + pixels + samples): the numbers of frames and of pixels a side
          first; all have equally many frames.

        Raises:
            InputError: a sound is empty or missing, or clips differ in their frames.
        """
        if self.modality == "audio":
            return self.collate([self.whole_hops(s).unsqueeze(0) for s in inputs])
        if self.modality == "text":
            batch = self.processor(inputs, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
            return torch.stack([batch["input_ids"], batch["attention_mask"]], 1)
        clips = [self.clip(one) for one in inputs]
        pixels = [self.pixels(clip.frames).unsqueeze(0) for clip in clips]  # (1, frames, 3, side, side)
        if self.modality == "video":
            return self.collate(pixels)
        silent = [clip.name for clip in clips if clip.sound is None]
        if silent:
            raise InputError(f"{silent[0]} has no sound: PE-AV's audio_video needs both, video takes pictures alone")
        if len({p.shape for p in pixels}) > 1:
            raise InputError("the clips differ in their number of frames: give each as many")
        rows = []
        for clip, shown in zip(clips, pixels, strict=True):
            assert clip.sound is not None
            size = torch.tensor([shown.shape[1], shown.shape[-1]], dtype=shown.dtype)
            rows.append(torch.cat([size, shown.flatten(), self.whole_hops(clip.sound)]).unsqueeze(0))
        return super().collate(rows)

    def collate(self, parts: list[Tensor]) -> Tensor:
        if self.modality != "text":
            return super().collate(parts)
        ids, masks = ([row for part in parts for row in part[:, i]] for i in (0, 1))
        filler = self.processor.pad_token_id
        return torch.stack([pad_sequence(ids, True, filler), pad_sequence(masks, True)], 1)

    def whole_hops(self, sound: Tensor) -> Tensor:
        if len(sound) == 0:
            raise InputError("a sound is empty: give at least one sample")
        return torch.from_numpy(np.pad(sound.float().numpy(), (0, -len(sound) % self.hop), "reflect"))

    def clip(self, source: Any) -> Clip:
        """A clip as it is, frames as one, a file opened."""
        if isinstance(source, Clip):
            return source
        if isinstance(source, Sequence) and len(source) and isinstance(source[0], Image.Image):
            return Clip(list(source), None)
        return load_video(source, FRAMES, self.rate if self.modality == "audio_video" else None)

    def pixels(self, frames: Sequence[Image.Image]) -> Tensor:
        """Frames of one clip -> (frames, 3, side, side)."""
        arrays = np.stack([np.asarray(frame.convert("RGB").resize(frames[0].size)) for frame in frames])
        return self.processor(videos=[arrays], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]

    def tell_unread(self, text: str) -> None:
        tell_cut(lambda t: self.processor.encode(t, add_special_tokens=False), self.processor.decode, text, TOKENS)

    def forward(self, prepared: Tensor) -> Tensor:
        """What `prepare` made of B inputs -> (B, dim), not normalised.

        A shorter sound of a batch differs slightly from the same sound alone: the codec's convolutions reach into the
        padding behind it.
        """
        if self.modality == "text":
            ids, mask = prepared.unbind(1)
            states = self.net(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            return self.head(states[-1][:, 0])
        given: dict[str, Tensor] = {}
        if self.modality == "audio_video":
            count, side = (int(n) for n in prepared[0, :2])
            shown, prepared = prepared[:, 2:].split([count * 3 * side**2, prepared.shape[1] - 2 - count * 3 * side**2], 1)
            given["pixel_values_videos"] = shown.reshape(-1, count, 3, side, side).contiguous()
        if self.modality == "video":
            mask = ~prepared[:, :, 0, 0, 0].isnan()  # (B, frames)
            given |= {"pixel_values_videos": prepared.nan_to_num().contiguous()} | (
                {} if bool(mask.all()) else {"padding_mask_videos": mask}
            )
        else:
            given |= {"input_values": prepared.nan_to_num().unsqueeze(1), "padding_mask": ~prepared.isnan()}
        return self.head(self.net(**given).pooler_output)


def config_of(sizes: Mapping[str, Any]) -> Any:
    """The whole model's configuration."""
    from transformers import PeAudioConfig, PeAudioVideoConfig

    kinds = {WHOLE: PeAudioVideoConfig, SOUND: PeAudioConfig}
    if sizes.get("model_type") not in kinds:
        raise InputError(f"a {sizes.get('model_type')} is no PE-AV: give a folder or repository such as facebook/pe-av-base")
    with as_input_error("transformers cannot build this PE-AV: {first}", ValueError, TypeError, KeyError):
        return kinds[sizes["model_type"]].from_dict(dict(sizes))


def network(config: Any, modality: str) -> Any:
    """A modality's network, without weights."""
    from transformers import AutoModel, PeAudioEncoder, PeAudioVideoEncoder, PeVideoEncoder

    if modality == "text":
        return AutoModel.from_config(config.text_config)
    inner = config.audio_config if config.model_type == SOUND else config.audio_video_config
    if modality == "audio_video":
        return PeAudioVideoEncoder(inner)
    if modality == "video":
        return PeVideoEncoder(inner.video_config)
    return PeAudioEncoder(inner if config.model_type == SOUND else inner.audio_config)


def canonical(name: str) -> str:
    """The name in the whole model of a published tensor, of several the one that the part is found under."""
    for theirs, ours in SAME:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def rename(state: Mapping[str, Tensor], modality: str, against: str = "audio") -> dict[str, Tensor]:
    """The weights of a modality's part under the encoder's names."""
    net, head = PARTS[modality][0], PARTS[modality][1] or AGAINST[against]
    places = [(f"{net}.", "net."), (f"{head}.", "head.")]
    if modality == "audio_video":  # which holds the encoders of sound and video
        places += [("audio_model.audio_encoder.", "net.embedder.audio_encoder.")]
        places += [("video_model.video_encoder.", "net.embedder.video_encoder.")]
    return {
        ours + canonical(name).removeprefix(theirs): value
        for name, value in state.items()
        for theirs, ours in places
        if canonical(name).startswith(theirs)
    }


def build(folder: Path, config: dict[str, Any]) -> PEAV:
    modality, against = config.get("modality", "audio"), config.get("against", "audio")
    if "architecture" in config:
        return PEAV(modality, config["architecture"], folder, against, config)
    place = source_folder(config, SMALL)
    found, extractor = read_json(place / "config.json"), place / "preprocessor_config.json"
    sizes = found if isinstance(found, dict) else {}
    rate = read_json(extractor).get("sampling_rate", RATE) if extractor.is_file() else RATE
    return PEAV(modality, sizes, place, against, {"rate": rate, **config})


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """Those of the modality's part of the source; the others are not read."""
    modality, against = config.get("modality", "audio"), config.get("against", "audio")
    if modality not in PARTS or against not in AGAINST:
        raise InputError(f"PE-AV knows {', '.join(PARTS)}, and texts against {', '.join(AGAINST)}, not {modality} {against}")
    path = source_weights(config)
    return rename(read_state(path, lambda name: bool(rename({name: torch.empty(0)}, modality, against))), modality, against)
