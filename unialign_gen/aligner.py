"""Encoders and heads together: any prompt to a unit embedding of the shared space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from .deprecated import current_keys
from .encoders import load_encoder, save_encoder
from .encoders.base import Encoder
from .encoders.registry import NOWHERE, one_at_a_time
from .errors import InputError, as_input_error
from .heads import Head, encoder_beside, load_head, save_head
from .heads.bridge import Bridge, default_head, read_bridge
from .media import Clip, Source, load_image, load_sound, load_video
from .media.files import name_of
from .media.pictures import tell_blank
from .media.sound import SILENT
from .media.text import clean_text, tell_weights
from .mixing import mix
from .notes import Note, note
from .request import MODALITIES

FRAMES = 8
SOUND_IN_VIDEO = 0.3


class Part(torch.nn.Module):
    """A modality: a frozen encoder and its head, an identity where the encoder defines the space.

    A head that was not trained comes with its `bridge`, which gives notes of what it makes of a prompt.
    """

    def __init__(self, encoder: Encoder, head: torch.nn.Module, bridge: Bridge | None = None):
        super().__init__()
        self.encoder, self.head, self.bridge = encoder, head, bridge

    @property
    def width(self) -> int:
        """Of the vectors it gives."""
        if isinstance(self.head, torch.nn.Linear):
            return self.head.out_features
        return int(self.head.config["embed_dim"]) if isinstance(self.head, Head) else self.encoder.dim

    def forward(self, prepared: Tensor) -> Tensor:
        """What the encoder prepared -> unit embeddings (B, embed_dim), fp32."""
        features = self.encoder(prepared)
        raw = self.head(features)
        if self.bridge is not None:
            self.bridge.tell(self.head, features, raw)
        return F.normalize(raw.float(), dim=-1)


class Aligner(ModelMixin, ConfigMixin):
    """Text, sound, video and pictures as unit vectors (B, embed_dim) of one image-embedding space.

    A folder of it holds `config.json` and one folder a modality (encoder, head and their configurations). An encoder is
    loaded when its modality is first asked for: making a picture from sound never loads the vision encoder.

    Args:
        embed_dim: width of the shared space.
        encoders: the modalities that have a folder; video goes through the image encoder.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, embed_dim: int = 256, encoders: Sequence[str] = ("image", "text", "audio")):
        super().__init__()
        self.folder: Path | None = None
        self.configs: dict[str, dict[str, Any]] = {}  # encoders that are described, not kept in a folder
        self.parts = torch.nn.ModuleDict()
        # where and in what precision encoders that load later are to run; a parameter, since offloading asks for one
        self.place = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
        self.given: set[str] = set()  # modalities that add_part put in place
        self.heads: dict[str, Path] = {}  # folders of heads that take the place of the checkpoint's own

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> Self:
        """The aligner in a local folder. Of diffusers' loading options `dtype` (or `torch_dtype`) and `subfolder` apply here.

        Raises:
            InputError: no aligner there.
        """
        path = Path(folder) / (kwargs.get("subfolder") or "")
        with as_input_error(f"no aligner in {path}: {{error}}", OSError, ValueError, KeyError):
            config = current_keys(json.loads((path / cls.config_name).read_text()))
            aligner = cls(config["embed_dim"], config["encoders"])
        aligner.folder = path
        dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
        if isinstance(dtype, torch.dtype):
            aligner.set_dtype(dtype)
        return aligner.eval()

    def set_dtype(self, dtype: torch.dtype) -> None:
        """The precision of encoders that load from now on."""
        self.place = torch.nn.Parameter(self.place.to(dtype), requires_grad=False)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes the configuration and every modality's files.

        What is not loaded is copied; of a published encoder, which lies elsewhere, only the description is written.
        """
        path = Path(save_directory)
        path.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "Aligner", "embed_dim": self.config["embed_dim"], "encoders": list(self.config["encoders"])}
        (path / self.config_name).write_text(json.dumps(config, indent=2) + "\n")
        for kind in self.config["encoders"]:
            if kind in self.configs and kind not in self.parts and "bridge" not in self.configs[kind]:
                save_description(self.configs[kind], self.heads.get(kind), path / kind)
            elif kind in self.given or self.folder is None:
                save_part(self.part(kind), path / kind)
            elif (self.folder / kind).resolve() != (path / kind).resolve():
                shutil.copytree(self.folder / kind, path / kind, dirs_exist_ok=True)

    @property
    def embed_dim(self) -> int:
        return int(self.config["embed_dim"])

    @property
    def sound_rate(self) -> int:
        """The sampling rate in Hz that the sound encoder takes."""
        return int(getattr(self.part("audio").encoder, "rate"))  # noqa: B009  a sound encoder's own attribute

    def part(self, kind: str) -> Part:
        """Encoder and head of `image`, `text` or `audio`, loaded now if they were not yet."""
        if kind not in self.parts:
            self.load_part(kind)
        found = self.parts[kind]
        assert isinstance(found, Part)
        return found

    @one_at_a_time
    def load_part(self, kind: str) -> None:
        """Loads a part, unless another thread just did."""
        if kind not in self.config["encoders"]:
            raise InputError(f"this checkpoint has no {kind} encoder: it knows {', '.join(self.config['encoders'])}")
        if kind not in self.parts:
            dtype = self.place.dtype
            own = self.heads.get(kind)
            bridge = read_bridge(own) if own is not None else None
            if own is not None and (own / "model.safetensors").is_file():
                part = load_part(own, dtype)  # its encoder was trained too
            elif own is not None and bridge is not None and (encoder := encoder_beside(own, dtype)) is not None:
                part = Part(encoder, load_head(own))  # it may be another than the checkpoint's
            elif kind in self.configs:
                part = described_part(self.described(kind), dtype)
            elif self.folder is not None and (self.folder / kind).is_dir():
                part = load_part(self.folder / kind, dtype)
            elif own is not None and (encoder := encoder_beside(own, dtype)) is not None:
                part = Part(encoder, load_head(own))
            else:
                raise InputError(f"the {kind} encoder was never given: use add_part or from_pretrained")
            if own is not None:
                head, given = load_head(own), part.encoder.dim
                if head.config["features"] != given:
                    raise InputError(f"{own} takes {head.config['features']} features, the {kind} encoder gives {given}")
                part = Part(part.encoder, head, bridge)
            self.parts[kind] = self.fitting(kind, part).to(self.place.device, self.place.dtype)

    def describe(self, kind: str, config: dict[str, Any]) -> None:
        """Adds a modality whose encoder is described; `bridge` names a folder where its head is kept, see `default_head`."""
        self.configs[kind] = config
        self.register_to_config(encoders=[*self.config["encoders"], kind])

    def described(self, kind: str) -> dict[str, Any]:
        """A described encoder with the folder of its head: of sound by the names of events it is made from this aligner's text
        encoder the first time.
        """
        config = dict(self.configs[kind])
        if "bridge" in config:
            there = "text" in self.parts
            place, text = Path(config.pop("bridge")), self.configs["text"]
            config["head"] = str(default_head(place, lambda names: self("text", names).cpu(), text))
            if not there and "text" in self.parts:
                del self.parts["text"]  # as before: it may be large
        return config

    def add_part(self, kind: str, part: Part) -> None:
        """Puts an encoder and its head in place, also of a modality that the checkpoint did not have.

        Raises:
            InputError: it does not give vectors of this space's width.
        """
        self.parts[kind] = self.fitting(kind, part)
        self.given.add(kind)
        if kind not in self.config["encoders"]:
            self.register_to_config(encoders=[*self.config["encoders"], kind])

    def use_heads(self, folders: Mapping[str, Path]) -> None:
        """Takes other heads, by modality, instead of the checkpoint's own: those that a training run left.

        A modality that the checkpoint does not know comes with its encoder (`heads.encoder_beside`), if the run kept it, and so
        does a head that `unialign_gen.heads.bridge` made; one that has none is not used, which is said as a note.
        """
        kept = ("encoder.json", "model.safetensors")
        new = [k for k in folders if k not in self.config["encoders"] and any((folders[k] / name).is_file() for name in kept)]
        self.register_to_config(encoders=[*self.config["encoders"], *new])
        for kind in sorted(set(folders) - set(self.config["encoders"])):
            note("unused head", f"the {kind} head in {folders[kind]} has no encoder here: it is not used")
        self.heads |= folders
        for kind in set(folders) & set(self.config["encoders"]):
            if kind in self.parts:
                del self.parts[kind]
            self.given.add(kind)

    def fitting(self, kind: str, part: Part) -> Part:
        """The part, if its vectors are as wide as the space."""
        if part.width != self.embed_dim:
            raise InputError(
                f"the {kind} encoder gives {part.width} dimensions, this space has {self.embed_dim}: "
                "it needs a head that was trained for this space"
            )
        return part

    @torch.no_grad()
    def forward(self, kind: str, inputs: list[Any], features: bool = False) -> Tensor:
        """Raw inputs of `image`, `text` or `audio` -> (B, embed_dim), or the encoder's `features` (B, width) without a head.

        A call of the module, so that offloading hooks see it.
        """
        part = self.part(kind)
        # offloading hooks move tensors among the arguments; preparing is the processor's work
        inputs = [i.cpu() if isinstance(i, Tensor) else i for i in inputs]
        prepared = part.encoder.prepare(inputs).to(self.place.device)
        if prepared.is_floating_point():
            prepared = prepared.to(self.place.dtype)
        return part.encoder(prepared).float() if features else part(prepared)

    @property
    def modalities(self) -> list[str]:
        """What prompts may be: those with an encoder, and video where there is one for pictures."""
        known = list(self.config["encoders"])
        usual = [m for m in MODALITIES if m in known or (m == "video" and "image" in known)]
        return usual + [m for m in known if m not in MODALITIES]

    def embed(self, modality: str, inputs: Sequence[Any]) -> Tensor:
        """Inputs of one modality -> unit embeddings (B, embed_dim).

        Args:
            modality: `text`, `audio`, `video`, `image`, or one of the checkpoint's own.
            inputs: texts; or files, arrays and objects as `media.load_sound`, `load_video` and `load_image` read them. A
                video is the mean over 8 frames, mixed with a share of 0.3 of its sound. A modality of one's own gets what
                its encoder prepares.

        Raises:
            InputError: a modality this checkpoint does not know, or an input that cannot be read.
        """
        if modality not in self.modalities:
            what = f"no {modality} encoder" if modality in MODALITIES else f"unknown modality {modality!r}"
            raise InputError(f"{what}: this checkpoint knows {', '.join(self.modalities)}")
        if not len(inputs):
            raise InputError(f"no {modality} to embed: the list is empty")
        if modality == "text":
            texts = [clean_text(text) for text in inputs]
            for text in texts:
                self.part("text").encoder.tell_unread(text)
                tell_weights(text)
            return self("text", texts)
        if modality == "image":
            pictures = [load_image(source) for source in inputs]
            for source, picture in zip(inputs, pictures, strict=True):
                tell_blank([picture], name_of(source, "the picture"))
            return self("image", pictures)
        if modality == "audio":  # one by one: recordings differ in length
            downmix = self.part("audio").encoder.downmix
            return torch.cat([self("audio", [load_sound(sound, self.sound_rate, downmix)]) for sound in inputs])
        if modality == "video":
            return torch.stack([self.embed_video(video) for video in inputs])
        return self(modality, list(inputs))

    def embed_video(self, video: Source | Clip, frames: int = FRAMES, sound: float = SOUND_IN_VIDEO) -> Tensor:
        """A file, or a `media.Clip` with sound at the encoder's rate -> (embed_dim,): the mean over `frames` frames, mixed
        with a share `sound` of the sound track. A video encoder that takes whole clips reads the file itself.
        """
        if "video" in self.config["encoders"] and self.part("video").encoder.whole_clips:
            return self("video", [video])[0]
        hear = "audio" in self.config["encoders"] and sound > 0
        downmix = self.part("audio").encoder.downmix if hear else "mean"
        clip = load_video(video, frames, self.sound_rate if hear else None, downmix)
        tell_blank(clip.frames, name_of(video, "the video"))
        seen = mix(list(self("image", clip.frames)))
        if hear and clip.sound is not None and float(clip.sound.abs().max()) > SILENT:
            seen = mix([seen, self("audio", [clip.sound])[0]], [1 - sound, sound])
        return seen


class Embeddings(Tensor):
    """Unit embeddings (B, d) with `notes` on what was lost or guessed; whatever is computed from them is a plain tensor."""

    notes: list[Note]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, embeddings: Tensor, notes: list[Note]) -> Embeddings:
        made = embeddings.as_subclass(cls)
        made.notes = notes
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Embeddings:
        return self.of(self.as_subclass(Tensor).detach().clone(), [*self.notes])


def save_part(part: Part, folder: Path) -> None:
    """An encoder with its head into `folder`.

    Raises:
        InputError: a head of a kind that cannot be written; nothing is written then.
    """
    if not isinstance(part.head, Head | torch.nn.Identity):
        raise InputError(f"a head of the kind {type(part.head).__name__} cannot be saved: make it a unialign_gen.heads.Head")
    save_encoder(part.encoder, folder)
    if isinstance(part.head, Head):
        save_head(part.head, folder)
    if part.bridge is not None:
        part.bridge.save(folder)


def save_description(config: Mapping[str, Any], head: Path | None, folder: Path) -> None:
    """An encoder that was never loaded, as the description that it loads from, with its head; said as a note."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "head"}, indent=2) + "\n")
    if head or config.get("head"):
        save_head(load_head(head or Path(config["head"])), folder)
    source = config.get("source") or config.get("checkpoint") or config["encoder"]
    note("not saved", f"{folder.name}: the encoder was not loaded, so that {source} is named in place of its weights")


def load_part(folder: Path, dtype: torch.dtype = torch.float32) -> Part:
    """The encoder in `folder` with its head; a folder without a head holds an encoder that is in the shared space by itself."""
    head = load_head(folder) if (folder / "head.json").exists() else torch.nn.Identity()
    return Part(load_encoder(folder, dtype), head, read_bridge(folder))


def described_part(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Part:
    """An encoder by its description, which says where its weights are; `head` names the folder of a trained head, if any."""
    encoder = load_encoder(NOWHERE, dtype, config)
    if not config.get("head"):
        return Part(encoder, torch.nn.Identity())
    return Part(encoder, load_head(Path(config["head"])), read_bridge(Path(config["head"])))
