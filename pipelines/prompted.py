"""What the decoders' pipelines share: prompts of any modality in, scaled embeddings and a generator for each picture out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.mixing import Method, path

from .embed_scale import EmbedScale
from .prior import EmbeddingPrior, move_to_known
from .prompts import Weights, embed_prompts, generators, plan

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class Request:
    """What a call asks for, checked.

    Attributes:
        image_embeds: (prompts * pictures, d) at decoder scale, prompt by prompt, on the decoder's device in its dtype.
        prompts: how many prompts there are.
        generator: one a picture, or as the caller gave it.
        steps, guidance: the caller's, or the checkpoint's own.
    """

    image_embeds: Tensor
    prompts: int
    generator: torch.Generator | list[torch.Generator] | None
    steps: int
    guidance: float


class PromptedPipeline:
    """Mixed into a diffusers pipeline that has `aligner`, `embed_scale`, `prior`, `unet`, and two defaults in its config."""

    aligner: Aligner
    embed_scale: EmbedScale
    prior: EmbeddingPrior | None
    unet: Any
    config: Any
    _execution_device: torch.device

    def embed(
        self,
        text: Any = None,
        audio: Any = None,
        video: Any = None,
        image: Any = None,
        embeds: Any = None,
        weights: Weights | None = None,
        mix: Method = "lerp",
        prior_strength: float | None = None,
    ) -> Tensor:
        """Unit embeddings (B, d) of the prompts as they are drawn, mixed; the arguments are those of a call.

        With `prior_strength=0` they are the aligner's own.

        Raises:
            InputError: a prompt, a weight or a strength that cannot be used; a strength with nothing to move.
        """
        inputs = {"text": text, "audio": audio, "video": video, "image": image, "embeds": embeds}
        if prior_strength and {kind for kind, value in inputs.items() if value is not None} == {"embeds"}:
            raise InputError("prior_strength moves prompts that are encoded; embeds are drawn where they are: leave it out")
        return embed_prompts(self.aligner, plan(inputs, weights), mix, move_to_known(self.prior, prior_strength))

    def request(
        self,
        inputs: dict[str, Any],
        weights: Weights | None,
        mix: Method,
        seed: int | Sequence[int] | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
        steps: int | None,
        guidance: float | None,
        per_prompt: int,
        output_type: str,
        image_embeds: Tensor | None = None,
        prior_strength: float | None = None,
    ) -> Request:
        """Checks a call's arguments and turns its prompts into what the decoder takes.

        Raises:
            InputError: an argument that cannot be used.
        """
        if output_type not in OUTPUT_TYPES:
            raise InputError(f"unknown output_type {output_type!r}: choose from {', '.join(OUTPUT_TYPES)}")
        if seed is not None and (generator is not None or latents is not None):
            raise InputError("give a seed, a generator or latents, not several of them")
        steps = self.config["default_steps"] if steps is None else steps
        guidance = self.config["default_guidance"] if guidance is None else guidance
        if steps < 1 or per_prompt < 1:
            raise InputError(f"steps and pictures must be at least 1, got {steps} and {per_prompt}")
        if not math.isfinite(guidance):
            raise InputError(f"guidance must be a finite number, got {guidance}")
        if image_embeds is None:
            scaled = self.embed_scale(self.embed(**inputs, weights=weights, mix=mix, prior_strength=prior_strength))
        else:
            others = {**inputs, "prior_strength": prior_strength, **(weights or {})}
            scaled = self.ready(image_embeds, [k for k, v in others.items() if v is not None])
        if seed is not None:
            generator = generators(seed, len(scaled), per_prompt)
        # repeated here, for every decoder alike: diffusers 0.42 does it in one place, not in another
        wanted = scaled.repeat_interleave(per_prompt, 0)
        return Request(wanted.to(self._execution_device, self.unet.dtype), len(scaled), generator, steps, guidance)

    def ready(self, image_embeds: Tensor, others: Sequence[str]) -> Tensor:
        """Embeddings (B, d) at decoder scale as they are, if that is what they are."""
        width = self.aligner.embed_dim
        if others:
            raise InputError(f"image_embeds are used as they are: leave out {', '.join(others)}, or give them as embeds to mix")
        if image_embeds.ndim != 2 or image_embeds.shape[1] != width:
            raise InputError(f"image_embeds must have shape (B, {width}), got {tuple(image_embeds.shape)}")
        if not torch.isfinite(image_embeds).all():
            raise InputError("image_embeds hold NaN or infinite values")
        return image_embeds

    def best_of(
        self,
        candidates: int,
        text: Any = None,
        audio: Any = None,
        video: Any = None,
        image: Any = None,
        embeds: Any = None,
        weights: Weights | None = None,
        mix: Method = "lerp",
        seed: int | Sequence[int] | None = None,
        batch: int = 8,
        prior_strength: float | None = None,
        **options: Any,
    ) -> ImagePipelineOutput:
        """One picture a prompt: of so many, the one that the image encoder reads as nearest to what was to be drawn.

        That is the prompt after the prior. Choosing by a model is Ramesh et al. 2021's.

        Costs that many times as much as one picture; `batch` are drawn at a time, which bounds the memory. `options` are those
        of a call; with a `seed`, candidate j of prompt i is the picture j that the call itself draws with
        `num_images_per_prompt=candidates`.

        Raises:
            InputError: as in a call; options that do not go with choosing; no image encoder.
        """
        for name in ("image_embeds", "num_images_per_prompt", "output_type", "return_dict", "latents"):
            if name in options:
                raise InputError(f"best_of chooses one PIL picture a prompt: leave out {name}")
        if candidates < 1 or batch < 1:
            raise InputError(f"candidates and batch must be at least 1, got {candidates} and {batch}")
        if seed is not None and options.get("generator") is not None:
            raise InputError("give a seed or a generator, not both")
        wanted = self.embed(text, audio, video, image, embeds, weights, mix, prior_strength)
        if candidates == 1:
            return self(embeds=list(wanted), seed=seed, **options)  # type: ignore[operator]
        self.aligner.part("image")  # before anything is drawn in vain
        noise = options.pop("generator", None) if seed is None else generators(seed, len(wanted), candidates)
        words = {k: v for k, v in options.items() if k.endswith("decoder_prompt") and isinstance(v, (list, tuple))}
        for name, rows in words.items():
            if len(rows) != len(wanted):
                raise InputError(f"{len(rows)} values of {name} for {len(wanted)} prompts: give one, or one for each")
        chosen = []
        for i, point in enumerate(wanted):
            mine = noise[i * candidates : (i + 1) * candidates] if isinstance(noise, list) else noise
            own = {k: v[i] for k, v in words.items()}
            best, nearest = None, -math.inf
            for at in range(0, candidates, batch):
                count = min(batch, candidates - at)
                part = mine[at : at + count] if isinstance(mine, list) else mine
                options |= {**own, "num_images_per_prompt": count, "generator": part}
                drawn = self(embeds=point, **options).images  # type: ignore[operator]
                cosines = self.aligner.embed("image", drawn) @ point.to(self.aligner.place.device)
                if float(cosines.max()) > nearest:
                    best, nearest = drawn[int(cosines.argmax())], float(cosines.max())
            chosen.append(best)
        return ImagePipelineOutput(images=chosen)

    def interpolate(
        self,
        start: Tensor,
        end: Tensor,
        frames: int,
        mix: Method = "slerp",
        seed: int = 0,
        batch: int = 8,
        **options: Any,
    ) -> ImagePipelineOutput:
        """Pictures along the way between two embeddings (d,), so that only the prompt moves.

        Every frame's generator starts from the same seed: initial noise, noise on the embedding and noise of the sampler's
        steps are the same for all. `batch` frames are drawn at a time, which bounds the memory. `options` are those of a
        call.
        """
        parts = path(start, end, frames, mix).split(batch)
        drawn = [self(embeds=part, seed=[seed] * len(part), **options).images for part in parts]  # type: ignore[operator]
        if isinstance(drawn[0], list):
            return ImagePipelineOutput(images=[picture for part in drawn for picture in part])
        join = torch.cat if isinstance(drawn[0], Tensor) else np.concatenate
        return ImagePipelineOutput(images=join(drawn))
