"""CLIP-like models that open_clip (Ilharco et al. 2021, MIT) knows by name, one side of them.

    {"encoder": "open_clip:ViT-H-14/laion2b_s32b_b79k", "modality": "image"}      a model and its pretrained tag
    {"encoder": "open_clip", "source": FOLDER_OR_REPOSITORY, "modality": "text"}  a folder with an open_clip_config.json
    {"encoder": "open_clip", "source": "weights.pt", "model": "ViT-B-32", "modality": "text"}

Networks, preparation and tokenizers are the library's. Embeddings are raw, not normalised: decoders were trained on that.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, as_input_error, first_line
from ..media.text import tell_cut
from .base import Encoder
from .published import fetching, read_json, read_state, source_folder, source_weights

CONFIG = "open_clip_config.json"
SMALL = (CONFIG, "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model")
STEMS = ("open_clip_model", "open_clip_pytorch_model")
MODALITIES = ("image", "text")


class OpenClip(Encoder):
    """Raw embeddings (B, dim) of pictures or of texts; dim is 1024 for ViT-H-14 and 1280 for ViT-bigG-14.

    Args:
        modality: `image` or `text`.
        described: what an `open_clip_config.json` holds: `model_cfg`, and `preprocess_cfg` where it is not open_clip's default.
        tokenizer: the model's name, or `local-dir:FOLDER`, for open_clip's choice of a tokenizer.
        origin: entries kept in the configuration that say where the weights came from.

    Raises:
        InputError: no such modality, or no model that open_clip can build.
    """

    def __init__(
        self,
        modality: str,
        described: Mapping[str, Any],
        tokenizer: str = "",
        origin: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        if modality not in MODALITIES:
            raise InputError(f'open_clip: "modality" must be {" or ".join(MODALITIES)}, got {modality!r}')
        model = whole_model(described)
        self.described = json.loads(json.dumps(described))
        self.modality = modality
        self.dim = int(described["model_cfg"]["embed_dim"])
        self.config = {**(origin or {}), "encoder": "open_clip", "modality": modality}
        if modality == "image":
            self.net: Any = model.visual
            self.side = int(torch.tensor(model.visual.image_size, device="cpu").max())
            self.pixels = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        else:
            self.net = model
            model.visual, model.logit_scale, model.logit_bias = nn.Identity(), None, None
            # whatever the hub's client raises, where the tokenizer is one of transformers'
            with as_input_error(f"no tokenizer for {tokenizer}: {{first}}", Exception):
                self.tokenizer = open_clip.get_tokenizer(tokenizer or "ViT-B-32", model.context_length)

    def extra_files(self) -> dict[str, str]:
        files = {CONFIG: json.dumps(self.described, indent=2) + "\n"}
        own = getattr(getattr(self, "tokenizer", None), "tokenizer", None)  # one of transformers'; open_clip brings CLIP's
        return files | (saved_texts(own) if own is not None else {})

    def prepare(self, inputs: list[Any]) -> Tensor:
        """Pictures -> (B, 3, side, side), resized, cut and normalised; texts -> (B, length) token ids, cut at the length."""
        if self.modality == "text":
            return self.tokenizer(inputs)
        return torch.stack([self.pixels(picture) for picture in inputs])

    def tell_unread(self, text: str) -> None:
        words, options = self.tokenizer, {}
        if hasattr(words, "tokenizer"):  # one of transformers'
            words, options = words.tokenizer, {"add_special_tokens": False}
        tell_cut(partial(words.encode, **options), words.decode, text, self.tokenizer.context_length)

    def forward(self, prepared: Tensor) -> Tensor:
        """What `prepare` made of B inputs -> (B, dim), not normalised."""
        return self.net.encode_text(prepared) if self.modality == "text" else self.net(prepared)


def whole_model(described: Mapping[str, Any]) -> Any:
    """The model of an `open_clip_config.json`, both sides, without its weights."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps(described), "utf-8")
        logging.disable(logging.WARNING)  # that it has no weights, which come later
        try:
            # no device: under a context that builds without memory nothing can be moved
            return open_clip.create_model(f"local-dir:{folder}", load_weights=False, device=None, pretrained_text=False)
        except Exception as error:  # of whatever kind the networks' constructors raise
            raise InputError(f"open_clip cannot build this model: {first_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)


def saved_texts(processor: Any) -> dict[str, str]:
    """The text files that a tokenizer or feature extractor of transformers saves, by name."""
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        return {path.name: path.read_text("utf-8") for path in sorted(Path(folder).iterdir()) if path.is_file()}


def description(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What an encoder's `open_clip_config.json` says, and what its tokenizer is found by.

    Raises:
        InputError: nothing says which model it is, or open_clip knows none of that name.
    """
    import open_clip

    if (folder / CONFIG).is_file():
        return read_json(folder / CONFIG), f"local-dir:{folder}"
    if "source" in config and not Path(config["source"]).expanduser().is_file():
        place = source_folder(config, SMALL)
        if (place / CONFIG).is_file():
            found = read_json(place / CONFIG)
            if not isinstance(found, dict) or not isinstance(found.get("model_cfg"), dict):
                raise InputError(f"{place / CONFIG} is no open_clip configuration: it has no model_cfg")
            return found, f"local-dir:{place}"
    if "model" not in config:
        raise InputError('nothing says which CLIP this is: give "model", such as ViT-H-14, or a folder with its config')
    name = config["model"]
    model_cfg = open_clip.get_model_config(name)
    if model_cfg is None:
        raise InputError(f"open_clip knows no model {name!r}: its names are those of open_clip.list_models()")
    tag = config.get("pretrained")
    preprocess = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if tag and not preprocess:
        raise InputError(
            f"open_clip has no weights {tag!r} of {name}: it has {', '.join(open_clip.list_pretrained_tags_by_model(name))}"
        )
    kept = ("mean", "std", "interpolation", "resize_mode")
    return {"model_cfg": model_cfg, "preprocess_cfg": {k: preprocess[k] for k in kept if preprocess.get(k)}}, name


def belongs(name: str, modality: str) -> bool:
    """Whether a published tensor of this name is one of the side's weights."""
    vision = name.startswith("visual.")
    return vision if modality == "image" else not vision and not name.endswith("attn_mask") and not name.startswith("logit_")


def build(folder: Path, config: dict[str, Any]) -> OpenClip:
    described, tokenizer = description(folder, config)
    return OpenClip(config.get("modality", ""), described, tokenizer, config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """Those of one side of the source; the other side is not read."""
    modality, described = config.get("modality", ""), description(folder, config)[0]["model_cfg"]
    state = read_state(weight_file(config), lambda name: belongs(name, modality))
    if modality == "image":
        return {f"net.{name.removeprefix('visual.')}": value for name, value in state.items()}
    apart = described.get("custom_text") or "hf_model_name" in described.get("text_cfg", {})
    if "positional_embedding" in state and apart:  # an old file of a model that keeps its text side apart
        from open_clip.model import convert_to_custom_text_state_dict

        state = convert_to_custom_text_state_dict(state)
    return {f"net.{name}": value for name, value in state.items()}


def weight_file(config: Mapping[str, Any]) -> Path:
    """The file with the weights: the source's, or the one that open_clip has for the model's tag.

    Raises:
        InputError: there is none, or it cannot be had now.
    """
    import open_clip

    if "source" in config:
        return source_weights(config, STEMS)
    if not config.get("pretrained"):
        raise InputError(
            'this CLIP encoder has no weights: give "source", or a tag, such as open_clip:ViT-H-14/laion2b_s32b_b79k'
        )
    with fetching(f"{config['model']}/{config['pretrained']}"):
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(config["model"], config["pretrained"])))
