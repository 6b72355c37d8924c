"""Kandinsky 2.2's decoder behind prompts of any modality."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers import DDPMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel

from unialign_gen.aligner import Aligner
from unialign_gen.request import Request

from .embed_scale import EmbedScale
from .prior import EmbeddingPrior
from .prompted import Conditions, PromptedPipeline
from .upscaler import Upscaler


class UniAlignKandinskyPipeline(PromptedPipeline, KandinskyV22Pipeline):
    """Text, sound, video, pictures and mixes of them to pictures, by a Kandinsky 2.2 decoder.

    Args:
        aligner: prompts to unit embeddings.
        unet, scheduler, movq: the decoder, as in diffusers.
        embed_scale: the norm the decoder expects, and its unconditional embedding.
        prior: what prompts are moved towards, if anything.
        upscaler: what makes the pictures larger, if anything.
        default_steps, default_guidance: what a call uses when it names none.

    Example:
        >>> import unialign_gen
        >>> generate = unialign_gen.load("starter")
        >>> generate(text=["a red car", "a cat"], seed=0, num_inference_steps=1).images[1].size
        (128, 128)
    """

    model_cpu_offload_seq = "aligner->unet->movq"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["embed_scale", "prior", "upscaler"]
    _optional_components: ClassVar[list[str]] = ["prior", "upscaler"]

    def __init__(
        self,
        aligner: Aligner,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        movq: VQModel,
        embed_scale: EmbedScale,
        prior: EmbeddingPrior | None = None,
        upscaler: Upscaler | None = None,
        default_steps: int = 20,
        default_guidance: float = 3.0,
    ):
        super().__init__(unet=unet, scheduler=scheduler, movq=movq)
        self.register_modules(aligner=aligner, embed_scale=embed_scale, prior=prior, upscaler=upscaler)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)

    @property
    def sample_side(self) -> int:
        """Side in pixels of the square pictures the decoder was trained on."""
        return int(self.unet.config.sample_size) * self.movq_scale_factor

    def sample(self, request: Request, conditions: Conditions) -> Any:
        embeds = conditions.image_embeds
        negative = self.embed_scale.negative_image_embeds.to(embeds).expand_as(embeds)
        callback = request.callback_on_step_end
        images = KandinskyV22Pipeline.__call__(
            self,
            image_embeds=embeds,
            negative_image_embeds=negative,
            height=request.height or self.sample_side,
            width=request.width or self.sample_side,
            num_inference_steps=conditions.steps,
            guidance_scale=conditions.guidance,
            generator=conditions.generator,
            latents=request.latents,
            output_type=request.output_type,
            callback_on_step_end=None if callback is None else lambda *now: callback(*now) or {},
            callback_on_step_end_tensor_inputs=list(request.callback_on_step_end_tensor_inputs),
        ).images
        # diffusers leaves tensors in [-1, 1] here, unlike everywhere else
        return (images * 0.5 + 0.5).clamp(0, 1) if request.output_type == "pt" else images
