"""Models of transformers by folder or repository: one modality of them.

    {"encoder": "hf:FOLDER_OR_REPOSITORY", "modality": "image"}     image, text or audio

    {"encoder": "hf:AST", "modality": "audio", "tags": true}        a tagger: what its last layer reads

CLIP and CLAP give projected embeddings, SigLIP and other models of pictures and sounds their pooled ones, other text models the
mean of the last layer's tokens. Nothing is normalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, as_input_error
from ..media.text import tell_cut
from ..notes import note
from .base import Encoder
from .open_clip import saved_texts
from .published import read_json, read_state, source_folder, source_weights, variant_of

SIDES = {"image": "vision", "text": "text", "audio": "audio"}  # what transformers calls the modality's side
ONE_SIDE = {  # kinds of which one side alone can be built
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip_vision_model": "SiglipVisionModel",
    "siglip_text_model": "SiglipTextModel",
    "clap_audio_model": "ClapAudioModelWithProjection",
    "clap_text_model": "ClapTextModelWithProjection",
}
TAGGER = "audio-spectrogram-transformer"
CLIP_WORDS = 49408  # of the vocabulary that OpenAI's, LAION's and most other CLIPs share
SMALL = ("config.json", "preprocessor_config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model")


class Transformers(Encoder):
    """Features (B, dim) of one modality by a model of transformers.

    Args:
        modality: `image`, `text` or `audio`.
        sizes: the model's configuration, of one side where that can be built alone, with its `model_type`.
        place: folder with the files of a tokenizer, an image processor or a feature extractor.
        preprocess: for CLIP's pictures, `mean`, `std`, `interpolation` and `resize_mode` as open_clip has them.
        origin: entries kept in the configuration that say where the weights came from.

    Raises:
        InputError: the folder has no files to prepare the modality with.
    """

    def __init__(
        self,
        modality: str,
        sizes: Mapping[str, Any],
        place: Path,
        preprocess: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        settings = config_of(sizes)
        self.modality = modality
        self.tagger = bool(origin and origin.get("tags"))
        self.net = model_class(settings, self.tagger)(settings)
        for module in self.net.modules():  # that CLAP counts among its weights
            if "position_ids" in module._buffers and sizes["model_type"] == "clap_text_model":
                module._non_persistent_buffers_set.add("position_ids")
        projected = type(self.net).__name__.endswith("WithProjection")
        self.dim = int(self.net.config.projection_dim if projected else self.net.config.hidden_size)
        self.config = {**(origin or {}), "encoder": "hf", "modality": modality, "architecture": dict(sizes)}
        self.processor: Any = None
        if sizes["model_type"] == "clip_vision_model":
            from open_clip.transform import PreprocessCfg, image_transform_v2

            way = self.config["preprocess"] = dict(preprocess or clip_preprocess(place))
            self.side = int(settings.image_size)
            # as open_clip does it: transformers' own differs by a pixel of the cut where the margin is odd
            self.pixels = image_transform_v2(PreprocessCfg(size=self.side, **way), is_train=False)
        elif modality == "text" and sizes["model_type"] == "clip_text_model" and settings.vocab_size == CLIP_WORDS:
            import open_clip

            self.words = open_clip.get_tokenizer("ViT-B-32", settings.max_position_embeddings)
        else:
            self.processor = open_processor(modality, place)
        if modality == "audio":
            self.rate = int(getattr(self.processor, "sampling_rate"))  # noqa: B009

    def extra_files(self) -> dict[str, str]:
        files = {} if self.processor is None else saved_texts(self.processor)
        return {name: text for name, text in files.items() if name != "config.json"}

    def prepare(self, inputs: list[Any]) -> Tensor:
        """Pictures -> (B, 3, side, side); sounds (samples,) at `rate` Hz -> what the model's extractor gives, one row each;
        texts -> (B, 2, length) token ids and mask, or, of CLIP, (B, 77) token ids with zeros behind the end.
        """
        if self.processor is None:
            return torch.stack([self.pixels(p) for p in inputs]) if self.modality == "image" else self.words(inputs)
        if self.modality == "image":
            return self.processor(images=[p.convert("RGB") for p in inputs], return_tensors="pt")["pixel_values"]
        if self.modality == "text":
            whole = "max_length" if self.net.config.model_type.startswith("siglip") else "longest"  # SigLIP saw its padding
            batch = self.processor(inputs, padding=whole, truncation=True, max_length=self.longest, return_tensors="pt")
            mask = batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(batch["input_ids"])
            return torch.stack([batch["input_ids"], mask], 1)
        rows = [self.processor(self.window(s), sampling_rate=self.rate, return_tensors="pt") for s in inputs]
        return torch.cat([row[self.processor.model_input_names[0]] for row in rows])

    def tell_unread(self, text: str) -> None:
        if self.processor is None:
            tell_cut(self.words.encode, self.words.decode, text, self.words.context_length)
            return
        encode = partial(self.processor.encode, add_special_tokens=False)
        tell_cut(encode, self.processor.decode, text, self.longest)

    @property
    def longest(self) -> int:
        """Tokens of a text that are read."""
        return min(self.processor.model_max_length, getattr(self.net.config, "max_position_embeddings", 512))

    def window(self, sound: Tensor) -> Any:
        """The middle of a sound that is longer than the model reads, as an array."""
        frames = getattr(self.processor, "max_length", 0)  # of AST, one every 10 ms
        most = int(getattr(self.processor, "nb_max_samples", 0) or frames * self.rate // 100 or len(sound))
        if len(sound) > most:
            note("cut", f"this model reads {most / self.rate:.0f} s: the middle of a sound of {len(sound) / self.rate:.0f} s")
            start = (len(sound) - most) // 2
            sound = sound[start : start + most]
        return sound.float().numpy()

    def tags(self) -> tuple[nn.Linear, list[str]]:
        """A tagger's last layer, from the features to logits, and the names of its classes."""
        names = [name.lower() for _, name in sorted(self.net.config.id2label.items())]
        return self.net.classifier.dense, names

    def forward(self, prepared: Tensor) -> Tensor:
        """What `prepare` made of B inputs -> (B, dim), not normalised."""
        mask = None
        if self.tagger:  # of AST: what its last layer reads
            return self.net.classifier.layernorm(self.net.audio_spectrogram_transformer(prepared).pooler_output)
        if self.modality != "text":
            out = self.net(prepared)
        elif prepared.ndim == 2:
            # a token sees only those before it: what is behind every end need not be computed; a zero before it is "!"
            out = self.net(input_ids=prepared[:, : int((prepared != 0).any(0).nonzero().max()) + 1])
        else:
            ids, mask = prepared.unbind(1)
            out = self.net(input_ids=ids, attention_mask=mask)
        pooled = self.modality != "text" or self.net.config.model_type in ONE_SIDE  # BERT's pooler is not for this
        for name in (f"{self.modality}_embeds", *(["pooler_output"] if pooled else [])):
            if getattr(out, name, None) is not None:
                return getattr(out, name)
        tokens = out.last_hidden_state  # (B, N, width)
        share = torch.ones(tokens.shape[:2], device=tokens.device) if mask is None else mask
        share = share.unsqueeze(-1).to(tokens.dtype)
        return (tokens * share).sum(1) / share.sum(1)


def config_of(sizes: Mapping[str, Any]) -> Any:
    """A configuration of transformers from its plain form."""
    from transformers import AutoConfig

    options = dict(sizes)
    with as_input_error("transformers knows no such model: {first}", KeyError, ValueError, TypeError):
        return AutoConfig.for_model(options.pop("model_type"), **options)


def model_class(settings: Any, tagger: bool = False) -> Any:
    """The class that a configuration is of."""
    import transformers

    if tagger:
        if settings.model_type != TAGGER:
            raise InputError(f"a tagger must be an AST ({TAGGER}), this is a {settings.model_type}")
        return transformers.ASTForAudioClassification
    if settings.model_type in ONE_SIDE:
        return getattr(transformers, ONE_SIDE[settings.model_type])
    if type(settings) not in transformers.MODEL_MAPPING:
        raise InputError(f"transformers has no model of the kind {settings.model_type!r}")
    return transformers.MODEL_MAPPING[type(settings)]


def clip_preprocess(place: Path) -> dict[str, Any]:
    """How a CLIP of transformers prepares its pictures, in open_clip's words; CLIP's own way where the folder does not say.

    Raises:
        InputError: it is a way that is not offered here.
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    found: dict[str, Any] = {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    for path in (place / "preprocessor_config.json", place.parent / "feature_extractor" / "preprocessor_config.json"):
        if path.is_file():
            raw = read_json(path)
            found |= {"mean": raw.get("image_mean", found["mean"]), "std": raw.get("image_std", found["std"])}
            found["interpolation"] = {2: "bilinear", 3: "bicubic"}.get(raw.get("resample", 3), str(raw.get("resample")))
            squash = isinstance(raw.get("size"), dict) and "shortest_edge" not in raw["size"]
            found["resize_mode"] = "squash" if squash else "shortest"
            break
    if found["interpolation"] not in ("bicubic", "bilinear"):
        raise InputError(f"{place} resizes its pictures by {found['interpolation']}: not offered")
    return found


def open_processor(modality: str, place: Path) -> Any:
    """The tokenizer, image or video processor, or feature extractor of a folder."""
    import transformers

    kinds = {"image": "ImageProcessor", "text": "Tokenizer", "audio": "FeatureExtractor", "video": "VideoProcessor"}
    with as_input_error(
        f"nothing in {place} says how this model's {modality} is prepared: {{first}}", OSError, ValueError, ImportError
    ):
        return getattr(transformers, f"Auto{kinds[modality]}").from_pretrained(place, local_files_only=True)


def published_sizes(place: Path, modality: str) -> dict[str, Any]:
    """The configuration in a published folder, of one side where that can be built alone.

    Raises:
        InputError: no modality, no configuration, or a model without such a side.
    """
    from transformers import AutoConfig

    if modality not in SIDES:
        raise InputError(f'hf: "modality" must be {", ".join(SIDES)}, got {modality!r}')
    with as_input_error(
        f"no model of transformers in {place}: {{first}}", OSError, ValueError, KeyError, TypeError, AttributeError
    ):
        whole = AutoConfig.from_pretrained(place, local_files_only=True)
    side = getattr(whole, f"{SIDES[modality]}_config", None)
    if side is not None and side.model_type in ONE_SIDE:
        if ONE_SIDE[side.model_type].endswith("WithProjection"):
            side.projection_dim = whole.projection_dim  # the side's own is often left at its default
        whole = side
    elif any(getattr(whole, f"{name}_config", None) is not None for name in SIDES.values()):
        raise InputError(f"{place} describes a {whole.model_type} model, whose {modality} cannot be had alone: not offered")
    if whole.model_type in ONE_SIDE and SIDES[modality] not in whole.model_type:
        raise InputError(f"{place} describes {whole.model_type!r}, which has no {modality}: give another source")
    kept = whole.to_diff_dict() | {"model_type": whole.model_type}
    if hasattr(whole, "projection_dim"):
        kept["projection_dim"] = whole.projection_dim
    return kept


def build(folder: Path, config: dict[str, Any]) -> Transformers:
    modality = config.get("modality", "")
    if "architecture" in config:
        return Transformers(modality, config["architecture"], folder, config.get("preprocess"), config)
    place = source_folder(config, SMALL)
    return Transformers(modality, published_sizes(place, modality), place, config.get("preprocess"), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The source's; of two sides one is read."""
    modality = config.get("modality", "")
    settings = config_of(published_sizes(source_folder(config, SMALL), modality))
    path = source_weights(config)
    if ONE_SIDE.get(settings.model_type, "").endswith("WithProjection"):  # named as in the file of both sides
        prefixes = (f"{SIDES[modality]}_model.", f"{'visual' if modality == 'image' else modality}_projection.")
        state = read_state(path, lambda name: name.startswith(prefixes) and not name.endswith("position_ids"))
        return {f"net.{name}": value for name, value in state.items()}
    # transformers and safetensors raise many kinds
    with quiet(), as_input_error(f"cannot read {path}: {{first}}; download it again", Exception):
        model, report = model_class(settings, bool(config.get("tags"))).from_pretrained(
            path.parent,
            config=settings,
            variant=variant_of(path),
            use_safetensors=".safetensors" in path.name,
            local_files_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise InputError(f"weights in {path} do not fit: missing {sorted(report['missing_keys'])[:3]}")
    return {f"net.{name}": value for name, value in model.state_dict().items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and reports: what is wrong with a file is said as an error."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
