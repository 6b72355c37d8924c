"""CLIP as open_clip and as transformers publish it, told apart and brought to one architecture and one set of names.

Layouts read in open_clip (MIT, Ilharco et al. 2021) and transformers (Apache-2.0). LAION's weights are MIT, OpenAI's MIT.
Both become `CLIPVisionModelWithProjection` and `CLIPTextModelWithProjection`, which the decoders were trained against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..errors import InputError
from .published import find_weights, read_json, read_state, resolve

Side = Literal["vision", "text"]

FILES = {"open_clip": "open_clip_config.json", "transformers": "config.json"}
STEMS = {"open_clip": ("open_clip_model", "open_clip_pytorch_model"), "transformers": ("model", "pytorch_model")}
PREPROCESS: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# open_clip's names: embedding, vision layers, width, head width, mlp ratio and patch, text width, heads and layers
SIZES: dict[str, tuple[int, tuple[int, int, int, float, int], tuple[int, int, int]]] = {
    "ViT-B-32": (512, (12, 768, 64, 4.0, 32), (512, 8, 12)),
    "ViT-B-16": (512, (12, 768, 64, 4.0, 16), (512, 8, 12)),
    "ViT-L-14": (768, (24, 1024, 64, 4.0, 14), (768, 12, 12)),
    "ViT-H-14": (1024, (32, 1280, 80, 4.0, 14), (1024, 16, 24)),
    "ViT-bigG-14": (1280, (48, 1664, 104, 4.9231, 14), (1280, 20, 32)),
}
FIELDS = {
    "vision": ("image_size", "patch_size"),
    "text": ("vocab_size", "max_position_embeddings"),
}
COMMON = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
# what an open_clip configuration may say without changing what is computed here; anything else is refused
HARMLESS = {
    "vision": {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout", "output_tokens"},
    "text": {
        *("layers", "width", "heads", "mlp_ratio", "context_length", "vocab_size", "pad_id", "eos_id", "output_tokens"),
        *("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "hf_model_pretrained"),
    },
}
SAME = {"pool_type": ("tok", "argmax"), "proj_type": ("linear",), "pos_embed_type": ("learnable",), "block_type": ("default",)}
PLAIN = {
    "vision": {
        "class_embedding": "vision_model.embeddings.class_embedding",
        "positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # spelt so in transformers
        "ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "ln_post.weight": "vision_model.post_layernorm.weight",
        "ln_post.bias": "vision_model.post_layernorm.bias",
        "proj": "visual_projection.weight",
    },
    "text": {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "text_projection": "text_projection.weight",
    },
}
IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def architecture(config: Mapping[str, Any], side: Side) -> dict[str, Any]:
    """Sizes of one side in transformers' words, from `architecture`, the published configuration, or open_clip's name.

    Args:
        config: an encoder's configuration; of `architecture`, `source` and `model` the first that says something counts.
        side: `vision` or `text`.

    Raises:
        InputError: nothing says what it looks like, or it is a CLIP with parts these encoders have not.
    """
    if "architecture" in config:
        return dict(config["architecture"])
    if "source" in config and not Path(config["source"]).expanduser().is_file():
        folder, layout = published_folder(config)
        path = folder / FILES[layout]
        if path.is_file():
            raw = read_json(path)
            return from_open_clip(raw, side, path) if layout == "open_clip" else from_transformers(raw, side, path)
    if "model" not in config:
        raise InputError('nothing says how large this CLIP is: give "model", such as ViT-H-14, or a folder with its config')
    return by_name(config["model"], side)


def by_name(name: str, side: Side) -> dict[str, Any]:
    """Sizes of one side of a model that open_clip knows by this name; `-quickgelu` at the end changes the activation.

    Raises:
        InputError: the name is not one of `SIZES`.
    """
    base = name.removesuffix("-quickgelu")
    if base not in SIZES:
        raise InputError(f"unknown CLIP model {name!r}: known are {', '.join(SIZES)}; others need a folder with their config")
    dim, (layers, width, head, ratio, patch), (text_width, heads, text_layers) = SIZES[base]
    if side == "vision":
        sizes = {"width": width, "layers": layers, "head_width": head, "mlp_ratio": ratio, "patch_size": patch}
    else:
        sizes = {"width": text_width, "layers": text_layers, "heads": heads}
    cfg = {"embed_dim": dim, "quick_gelu": base != name, f"{side}_cfg": sizes}
    return from_open_clip({"model_cfg": cfg}, side, Path(name))


def from_open_clip(raw: Mapping[str, Any], side: Side, path: Path) -> dict[str, Any]:
    """Sizes of one side from the contents of `open_clip_config.json`.

    Raises:
        InputError: the side has parts that these encoders have not, or sizes are missing.
    """
    try:
        model = raw["model_cfg"]
        cfg = {k: v for k, v in model[f"{side}_cfg"].items() if v is not None and v is not False}
        dim = int(model["embed_dim"])
        odd = sorted(k for k, v in cfg.items() if k not in HARMLESS[side] and v not in SAME.get(k, ()))
        if odd or not isinstance(cfg.get("layers"), int):
            raise InputError(f"{path} describes a CLIP these encoders are not made for: {', '.join(odd) or 'no plain ViT'}")
        width = cfg["width"]
        sizes = {
            "hidden_size": width,
            "intermediate_size": int(width * cfg.get("mlp_ratio", 4.0)),
            "num_hidden_layers": cfg["layers"],
            "num_attention_heads": width // cfg.get("head_width", 64) if side == "vision" else cfg["heads"],
            "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
            "layer_norm_eps": 1e-5,
            "projection_dim": dim,
        }
        if side == "vision":
            return sizes | {"image_size": cfg.get("image_size", 224), "patch_size": cfg["patch_size"]}
        return sizes | {
            "vocab_size": cfg.get("vocab_size", 49408),
            "max_position_embeddings": cfg.get("context_length", 77),
        }
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"{path} is no open_clip configuration with a {side} side: {error!r}; give another source") from error


def from_transformers(raw: Mapping[str, Any], side: Side, path: Path) -> dict[str, Any]:
    """Sizes of one side from the contents of `config.json`, of a whole CLIP or of that side alone.

    Raises:
        InputError: it is the configuration of something else.
    """
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    kind = raw.get("model_type")
    try:
        if kind == "clip":
            whole = CLIPConfig.from_dict(dict(raw))
            part = whole.vision_config if side == "vision" else whole.text_config
            dim = whole.projection_dim  # the sides' own projection_dim is often left at its default
        elif kind == f"clip_{side}_model":
            part = (CLIPVisionConfig if side == "vision" else CLIPTextConfig).from_dict(dict(raw))
            dim = part.projection_dim
        else:
            raise InputError(f"{path} describes {kind!r}, not the {side} side of a CLIP: give another source")
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path} is no CLIP configuration: {error}") from error
    return {name: getattr(part, name) for name in COMMON + FIELDS[side]} | {"projection_dim": dim}


def preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """How pictures are prepared: `mean` and `std` of RGB in [0, 1], `interpolation`, `resize_mode` (shortest or squash).

    Raises:
        InputError: the source prepares its pictures in a way that is not offered here.
    """
    if "preprocess" in config:
        return dict(config["preprocess"])
    found = dict(PREPROCESS)
    if "source" not in config or Path(config["source"]).expanduser().is_file():
        return found
    folder, layout = published_folder(config)
    if layout == "open_clip" and (folder / FILES[layout]).is_file():
        found |= {k: v for k, v in read_json(folder / FILES[layout]).get("preprocess_cfg", {}).items() if k in found}
    elif layout == "transformers":
        for path in (folder / "preprocessor_config.json", folder.parent / "feature_extractor" / "preprocessor_config.json"):
            if path.is_file():
                raw = read_json(path)
                found |= {"mean": raw.get("image_mean", found["mean"]), "std": raw.get("image_std", found["std"])}
                found["interpolation"] = {2: "bilinear", 3: "bicubic"}.get(raw.get("resample", 3), str(raw.get("resample")))
                squash = isinstance(raw.get("size"), dict) and "shortest_edge" not in raw["size"]
                found["resize_mode"] = "squash" if squash else "shortest"
                break
    if found["interpolation"] not in ("bicubic", "bilinear") or found["resize_mode"] not in ("shortest", "squash"):
        raise InputError(f"{folder} resizes its pictures by {found['interpolation']}, {found['resize_mode']}: not offered")
    return found


def published_folder(config: Mapping[str, Any]) -> tuple[Path, str]:
    """The source's folder, small files only, and its layout: as `format` says, else open_clip's where both are there.

    Raises:
        InputError: the source is not to be had, or `format` is not one of the two.
    """
    layout = config.get("format")
    if layout is not None and layout not in FILES:
        raise InputError(f"unknown format {layout!r}: choose from {', '.join(FILES)}")
    small = [*FILES.values(), "preprocessor_config.json", "tokenizer.json", "vocab.json", "merges.txt"]
    folder = resolve(config["source"], config.get("revision"), small, config.get("subfolder", ""))
    return folder, layout or ("open_clip" if (folder / FILES["open_clip"]).is_file() else "transformers")


def published_state(config: Mapping[str, Any], side: Side) -> dict[str, Tensor]:
    """Weights of one side, read without those of the other, under transformers' names.

    Raises:
        InputError: the source is missing, not to be had, damaged or unsafe.
    """
    if "source" not in config:
        raise InputError('this CLIP encoder has no weights: give "source", a local folder or the name of a hub repository')
    stems: tuple[str, ...] = STEMS["open_clip"]
    if not Path(config["source"]).expanduser().is_file():
        stems = STEMS[published_folder(config)[1]]
    path = find_weights(config["source"], config.get("revision"), stems, config.get("subfolder", ""))
    return rename(read_state(path, belongs(side)), side)


def belongs(side: Side) -> Callable[[str], bool]:
    """Whether a published tensor of this name, in either layout, is one of the side's weights."""
    vision = ("visual.", "vision_model.", "visual_projection.")

    def is_vision(name: str) -> bool:
        return name.startswith(vision) and not name.endswith("position_ids")

    def is_text(name: str) -> bool:
        buffer = name.endswith(("position_ids", "attn_mask"))
        return not name.startswith(vision) and not buffer and name not in ("logit_scale", "logit_bias")

    return is_vision if side == "vision" else is_text


def rename(state: Mapping[str, Tensor], side: Side) -> dict[str, Tensor]:
    """Weights of one side under transformers' names, whichever layout they came in; unknown names are left as they are."""
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        return dict(state)
    prefix = "visual." if side == "vision" else "text."
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        key = name.removeprefix(prefix)
        if key in ("proj", "text_projection"):  # open_clip multiplies from the right
            renamed[PLAIN[side][key]] = value.T.contiguous()
        elif key in PLAIN[side]:
            renamed[PLAIN[side][key]] = value
        elif key.startswith("transformer.resblocks."):
            renamed |= in_layer(key.removeprefix("transformer.resblocks."), value, f"{side}_model.encoder.layers")
        else:
            renamed[name] = value
    return renamed


def in_layer(key: str, value: Tensor, place: str) -> dict[str, Tensor]:
    """A tensor of one of open_clip's layers; queries, keys and values are stacked there and apart here."""
    number, _, rest = key.partition(".")
    module, _, kind = rest.replace("in_proj_", "in_proj.").rpartition(".")
    if module == "attn.in_proj":
        return {f"{place}.{number}.self_attn.{n}_proj.{kind}": v for n, v in zip("qkv", value.chunk(3), strict=True)}
    return {f"{place}.{number}.{IN_LAYER.get(module, module)}.{kind}": value}
