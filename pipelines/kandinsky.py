"""Kandinsky 2.2's decoder behind prompts of any modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler, ImagePipelineOutput, KandinskyV22Pipeline, UNet2DConditionModel, VQModel
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.mixing import Method

from .embed_scale import EmbedScale
from .prior import EmbeddingPrior
from .prompted import PromptedPipeline
from .prompts import Weights


class UniAlignKandinskyPipeline(PromptedPipeline, KandinskyV22Pipeline):
    """Text, sound, video, pictures and mixes of them to pictures, by a Kandinsky 2.2 decoder.

    Args:
        aligner: prompts to unit embeddings.
        unet, scheduler, movq: the decoder, as in diffusers.
        embed_scale: the norm the decoder expects, and its unconditional embedding.
        prior: what prompts are moved towards, if anything.
        default_steps, default_guidance: what a call uses when it names none.
    """

    model_cpu_offload_seq = "aligner->unet->movq"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["embed_scale", "prior"]
    _optional_components: ClassVar[list[str]] = ["prior"]

    def __init__(
        self,
        aligner: Aligner,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        movq: VQModel,
        embed_scale: EmbedScale,
        prior: EmbeddingPrior | None = None,
        default_steps: int = 20,
        default_guidance: float = 3.0,
    ):
        super().__init__(unet=unet, scheduler=scheduler, movq=movq)
        self.register_modules(aligner=aligner, embed_scale=embed_scale, prior=prior)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)

    @property
    def sample_side(self) -> int:
        """Side in pixels of the square pictures the decoder was trained on."""
        return int(self.unet.config.sample_size) * self.movq_scale_factor

    @torch.no_grad()
    def __call__(  # type: ignore[override]  # the prompts come first, the rest is KandinskyV22Pipeline's
        self,
        text: Any = None,
        audio: Any = None,
        video: Any = None,
        image: Any = None,
        embeds: Any = None,
        image_embeds: Tensor | None = None,
        weights: Weights | None = None,
        mix: Method = "lerp",
        prior_strength: float | None = None,
        seed: int | Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any, ...]:
        """Draws pictures.

        Args:
            text: a string; audio, video, image: a file, or `media.Sound` / `PIL.Image`; embeds: a vector (d,), any norm.
                A list of any of these is a batch (lists of one length; a single input joins every prompt of it), a
                tuple is a mix inside one prompt.
            image_embeds: embeddings (B, d) at the decoder's own scale, used as they are in place of any prompt.
            weights: modality to weight, or to a sequence of weights for a tuple; equal by default, negative allowed.
            mix: `lerp`, `slerp` or `spherical_mean`, see `mixing.mix`.
            prior_strength: 0 to 1, how far prompts move towards what the decoder knows, see `EmbeddingPrior`; the
                checkpoint's own by default. `embeds` and `image_embeds` stay where they are.
            seed: prompt i, picture j draws from `seed + i * num_images_per_prompt + j`; a list gives one a prompt.
            num_inference_steps, guidance_scale: the checkpoint's own by default; guidance 1 or less turns it off.
            generator, latents, callback_on_step_end: as in diffusers; latents (B * n, C, h, w).
            height, width: in pixels; the decoder's own by default.
            output_type: `pil`; `np` (B, H, W, 3) or `pt` (B, 3, H, W) in [0, 1]; `latent`.

        Returns:
            `ImagePipelineOutput` with `images`, prompt by prompt; a tuple if `return_dict` is false.

        Raises:
            InputError: an input that cannot be used; one line says which and why.
        """
        inputs = {"text": text, "audio": audio, "video": video, "image": image, "embeds": embeds}
        asked = self.request(
            inputs,
            weights,
            mix,
            seed,
            generator,
            latents,
            num_inference_steps,
            guidance_scale,
            num_images_per_prompt,
            output_type,
            image_embeds,
            prior_strength,
        )
        negative = self.embed_scale.negative_image_embeds.to(asked.image_embeds).expand_as(asked.image_embeds)
        out = super().__call__(
            image_embeds=asked.image_embeds,
            negative_image_embeds=negative,
            height=height or self.sample_side,
            width=width or self.sample_side,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            generator=asked.generator,
            latents=latents,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=list(callback_on_step_end_tensor_inputs),
        )
        if output_type == "pt":  # diffusers leaves it in [-1, 1] here, unlike everywhere else
            out = ImagePipelineOutput(images=(out.images * 0.5 + 0.5).clamp(0, 1))
        return out if return_dict else (out.images,)
