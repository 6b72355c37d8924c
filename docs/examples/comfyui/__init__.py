"""Nodes for ComfyUI: encode prompts, mix them, draw, or send the embedding on to ComfyUI's own unCLIP models.

Copy or link this folder into `ComfyUI/custom_nodes`, and install unialign_gen in ComfyUI's environment.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import unialign_gen
from unialign_gen.mixing import METHODS, mix
from unialign_gen.notes import Note

MODEL, EMBEDS = "UNIALIGN_MODEL", "UNIALIGN_EMBEDS"
STRENGTH = {"default": -1.0, "min": -1.0, "max": 1.0, "step": 0.05, "tooltip": "below 0: the checkpoint's own"}
WEIGHT = {"default": 1.0, "min": -4.0, "max": 4.0, "step": 0.05}


class Node:
    """What all have: a function called `run`, in one menu."""

    CATEGORY = "unialign"
    FUNCTION = "run"
    RETURN_TYPES: ClassVar[tuple[str, ...]]
    INPUTS: ClassVar[dict[str, tuple[Any, ...]]]
    OPTIONAL: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  ComfyUI's name
        return {"required": cls.INPUTS, "optional": cls.OPTIONAL}


class Load(Node):
    DESCRIPTION = "A checkpoint: starter, kandinsky, stable-unclip, a folder, or OWNER/NAME on the hub."
    RETURN_TYPES = (MODEL,)
    INPUTS: ClassVar = {
        "checkpoint": ("STRING", {"default": "starter"}),
        "device": (["cpu", "cuda", "mps"],),
        "dtype": (["float32", "float16", "bfloat16"],),
    }

    def run(self, checkpoint: str, device: str, dtype: str) -> tuple[Any]:
        return (unialign_gen.load(checkpoint, device=device, dtype=dtype),)


class Encode(Node):
    DESCRIPTION = (
        "Words, a sound or pictures, whatever is connected, each as one unit embedding; several are mixed in equal parts."
    )
    RETURN_TYPES = (EMBEDS,)
    INPUTS: ClassVar = {"model": (MODEL,), "text": ("STRING", {"multiline": True, "default": ""})}
    OPTIONAL: ClassVar = {"audio": ("AUDIO",), "image": ("IMAGE",), "prior_strength": ("FLOAT", STRENGTH)}

    def run(
        self,
        model: Any,
        text: str,
        audio: dict[str, Any] | None = None,
        image: Tensor | None = None,
        prior_strength: float = -1.0,
    ) -> tuple[Tensor]:
        """`audio`: {"waveform": (B, channels, n), "sample_rate"}; `image`: (B, H, W, 3) in [0, 1]. A batch is mixed."""
        prompts: dict[str, Any] = {"text": text} if text.strip() else {}
        if audio is not None:
            prompts["audio"] = tuple((int(audio["sample_rate"]), sound) for sound in audio["waveform"])
        if image is not None:
            prompts["image"] = tuple(image)
        found = model.embed(**prompts, prior_strength=None if prior_strength < 0 else prior_strength)
        tell(found.notes)
        return (torch.as_tensor(found).clone(),)


class Mix(Node):
    DESCRIPTION = "Two embeddings on the unit sphere; a negative weight steers away. Chain nodes for more."
    RETURN_TYPES = (EMBEDS,)
    INPUTS: ClassVar = {
        "a": (EMBEDS,),
        "b": (EMBEDS,),
        "weight_a": ("FLOAT", WEIGHT),
        "weight_b": ("FLOAT", WEIGHT),
        "method": (list(METHODS),),
    }

    def run(self, a: Tensor, b: Tensor, weight_a: float, weight_b: float, method: Any) -> tuple[Tensor]:
        return (mix([a, b], [weight_a, weight_b], method),)


class Draw(Node):
    DESCRIPTION = "Pictures of an embedding. Steps 0 and guidance 0 stand for the checkpoint's own."
    RETURN_TYPES = ("IMAGE",)
    INPUTS: ClassVar = {
        "model": (MODEL,),
        "embeds": (EMBEDS,),
        "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "control_after_generate": True}),
        "pictures": ("INT", {"default": 1, "min": 1, "max": 64}),
        "steps": ("INT", {"default": 0, "min": 0, "max": 1000}),
        "guidance": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 30.0, "step": 0.5}),
    }

    def run(self, model: Any, embeds: Tensor, seed: int, pictures: int, steps: int, guidance: float) -> tuple[Tensor]:
        result = model(
            embeds=embeds,
            seed=seed,
            num_images_per_prompt=pictures,
            num_inference_steps=steps or None,
            guidance_scale=guidance or None,
            output_type="np",
        )
        tell(result.notes)
        return (torch.as_tensor(result.images),)  # (B, H, W, 3) in [0, 1]


@dataclass
class VisionOutput:
    """What ComfyUI's own nodes read of a CLIP vision model: here the embedding alone, (B, d)."""

    image_embeds: Tensor
    last_hidden_state: Tensor | None = None
    penultimate_hidden_states: Tensor | None = None

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


class ImageEmbeds(Node):
    DESCRIPTION = "The embedding at the decoder's own scale, for unCLIPConditioning and others that take a CLIP vision output."
    RETURN_TYPES = ("CLIP_VISION_OUTPUT",)
    INPUTS: ClassVar = {"model": (MODEL,), "embeds": (EMBEDS,)}

    def run(self, model: Any, embeds: Tensor) -> tuple[VisionOutput]:
        return (VisionOutput(model.embed_scale(embeds.to(model.embed_scale.device))),)


def tell(notes: Sequence[Note]) -> None:
    """What was lost or guessed, in ComfyUI's log."""
    for note in notes:
        logging.getLogger("unialign_gen").warning(str(note))


NODE_CLASS_MAPPINGS = {f"UniAlign{node.__name__}": node for node in (Load, Encode, Mix, Draw, ImageEmbeds)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "UniAlignLoad": "Load UniAlign checkpoint",
    "UniAlignEncode": "Encode prompts (UniAlign)",
    "UniAlignMix": "Mix embeddings (UniAlign)",
    "UniAlignDraw": "Draw embedding (UniAlign)",
    "UniAlignImageEmbeds": "Embedding to CLIP vision output (UniAlign)",
}
