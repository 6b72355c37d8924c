"""Towers and heads together: any prompt to a unit embedding of the shared space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor

from .errors import InputError
from .heads import Head
from .media import Sound, Source, load_image, load_sound, load_video
from .mixing import mix
from .towers import load_tower, save_tower

MODALITIES = ("text", "audio", "video", "image")
FRAMES = 8
SOUND_IN_VIDEO = 0.3


class Aligner(ModelMixin, ConfigMixin):
    """Text, sound, video and pictures as unit vectors (B, embed_dim) of one image-embedding space.

    A folder of it holds `config.json` and one folder a modality (tower, head and their configurations). A tower is
    loaded when its modality is first asked for: making a picture from sound never loads the vision tower.

    Args:
        embed_dim: width of the shared space.
        towers: the modalities that have a folder; video goes through the image tower.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, embed_dim: int = 256, towers: Sequence[str] = ("image", "text", "audio")):
        super().__init__()
        self.folder: Path | None = None
        self.parts = torch.nn.ModuleDict()
        # where and in what precision towers that load later are to run
        self.register_buffer("place", torch.zeros(()), persistent=False)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> Self:
        """The aligner in a local folder. `torch_dtype` is honoured, diffusers' other loading options do not apply here.

        Raises:
            InputError: no aligner there.
        """
        path = Path(folder) / (kwargs.get("subfolder") or "")
        try:
            config = json.loads((path / cls.config_name).read_text())
            aligner = cls(config["embed_dim"], config["towers"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"no aligner in {path}: {error}") from error
        aligner.folder = path
        dtype = kwargs.get("torch_dtype")
        if isinstance(dtype, torch.dtype):
            aligner.to(dtype)
        return aligner.eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes the configuration and every modality's files; those not loaded are copied."""
        path = Path(save_directory)
        path.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "Aligner", "embed_dim": self.config["embed_dim"], "towers": list(self.config["towers"])}
        (path / self.config_name).write_text(json.dumps(config, indent=2) + "\n")
        for kind in self.config["towers"]:
            if self.folder is not None and (self.folder / kind).resolve() != (path / kind).resolve():
                shutil.copytree(self.folder / kind, path / kind, dirs_exist_ok=True)
            elif self.folder is None:
                save_part(self.parts[kind], path / kind)

    @property
    def embed_dim(self) -> int:
        return int(self.config["embed_dim"])

    def part(self, kind: str) -> torch.nn.Module:
        """Tower and head of `image`, `text` or `audio`, loaded now if they were not yet."""
        if kind not in self.config["towers"]:
            raise InputError(f"this checkpoint has no {kind} tower: it knows {', '.join(self.config['towers'])}")
        if kind not in self.parts:
            if self.folder is None:
                raise InputError(f"the {kind} tower was never given: use add_part or from_pretrained")
            self.parts[kind] = load_part(self.folder / kind).to(self.place.device, self.place.dtype)
        return self.parts[kind]

    def add_part(self, kind: str, tower: torch.nn.Module, head: Head) -> None:
        """Puts a tower and its head in place, for an aligner that is made in memory."""
        self.parts[kind] = torch.nn.ModuleDict({"tower": tower, "head": head})

    @torch.no_grad()
    def _embed(self, kind: str, inputs: list[Any]) -> Tensor:
        part = self.part(kind)
        tower, head = part["tower"], part["head"]
        prepared = tower.prepare(inputs).to(self.place.device)
        if prepared.is_floating_point():
            prepared = prepared.to(self.place.dtype)
        return F.normalize(head(tower(prepared)).float(), dim=-1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, embed_dim). An empty text is an `InputError`."""
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"a text prompt is empty: {text!r}")
        return self._embed("text", list(texts))

    def embed_image(self, pictures: Sequence[Source | Image.Image]) -> Tensor:
        """Files or PIL pictures -> (B, embed_dim)."""
        return self._embed("image", [load_image(p) for p in pictures])

    def embed_audio(self, sounds: Sequence[Source | Sound]) -> Tensor:
        """Files or `media.Sound`s -> (B, embed_dim)."""
        tower = self.part("audio")["tower"]
        return torch.cat([self._embed("audio", [load_sound(s, tower.rate)]) for s in sounds])

    def embed_video(self, videos: Sequence[Source], frames: int = FRAMES, sound: float = SOUND_IN_VIDEO) -> Tensor:
        """Files -> (B, embed_dim): the mean over `frames` frames, mixed with the sound track's share `sound` if there is one."""
        hear = "audio" in self.config["towers"] and sound > 0
        out = []
        for video in videos:
            clip = load_video(video, frames, rate=self.part("audio")["tower"].rate if hear else None)
            seen = mix(list(self._embed("image", clip.frames)))
            if clip.sound is not None and float(clip.sound.abs().max()) > 1e-4:
                seen = mix([seen, self._embed("audio", [clip.sound])[0]], [1 - sound, sound])
            out.append(seen)
        return torch.stack(out)

    def embed(self, modality: str, inputs: Sequence[Any]) -> Tensor:
        """Inputs of one modality by its name (`text`, `audio`, `video`, `image`) -> (B, embed_dim)."""
        if modality not in MODALITIES:
            raise InputError(f"unknown modality {modality!r}: choose from {', '.join(MODALITIES)}")
        return getattr(self, f"embed_{modality}")(inputs)


def save_part(part: torch.nn.Module, folder: Path) -> None:
    """A tower with its head into `folder`: the tower's files, `head.json` and `head.safetensors`."""
    from safetensors.torch import save_file

    save_tower(part["tower"], folder)
    (folder / "head.json").write_text(json.dumps(part["head"].config, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in part["head"].state_dict().items()}, folder / "head.safetensors")


def load_part(folder: Path) -> torch.nn.ModuleDict:
    from safetensors.torch import load_file

    tower = load_tower(folder)
    try:
        head = Head(**json.loads((folder / "head.json").read_text()))
        head.load_state_dict({k: v.float() for k, v in load_file(folder / "head.safetensors").items()})
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no head in {folder} that fits: {error}") from error
    return torch.nn.ModuleDict({"tower": tower, "head": head.eval().requires_grad_(False)})
