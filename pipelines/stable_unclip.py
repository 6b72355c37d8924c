"""Stable UnCLIP's decoder behind prompts of any modality."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.request import OPTIONS, Request

from .conditions import Conditions
from .embed_scale import EmbedScale
from .prior import EmbeddingPrior
from .prompted import PromptedPipeline
from .prompts import rows_of
from .upscaler import Upscaler


class UniAlignStableUnCLIPPipeline(PromptedPipeline, StableUnCLIPImg2ImgPipeline):
    """Text, sound, video, pictures and mixes of them to pictures, by a Stable UnCLIP decoder.

    The decoder has a text input of its own, cross-attention, here `decoder_prompt`; it is no part of the prompt's embedding
    and may stay empty. Sampling is that of diffusers' `StableUnCLIPImg2ImgPipeline`, without its vision encoder.

    A call takes `decoder_prompt`, `negative_decoder_prompt`, `noise_level` (level 0 adds a little noise too), `eta` and
    `cross_attention_kwargs` beside what every decoder takes.

    Args:
        aligner: prompts to unit embeddings.
        embed_scale: the norm the decoder expects; its unconditional embedding is zero.
        prior: what prompts are moved towards, if anything.
        upscaler: what makes the pictures larger, if anything.
        image_normalizer, image_noising_scheduler, tokenizer, text_encoder, unet, scheduler, vae: as in diffusers.
        default_steps, default_guidance, default_best_of: what a call uses when it names none.
        things_alone: whether each of several things is drawn alone and set in its place, for a decoder that was trained on
            pictures of one thing; else all are denoised together.

    Example:
        >>> import unialign_gen
        >>> generate = unialign_gen.load("starter", decoder="stable-unclip")
        >>> generate("a cat", decoder_prompt="pencil", noise_level=50, seed=0, num_inference_steps=1).images[0].size
        (512, 512)
    """

    decoder_options = OPTIONS
    strips_drawn = True
    model_cpu_offload_seq = "aligner->text_encoder->unet->vae"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["image_normalizer", "embed_scale", "prior", "upscaler"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]
    _optional_components: ClassVar[list[str]] = ["feature_extractor", "image_encoder", "prior", "upscaler"]

    def __init__(
        self,
        aligner: Aligner,
        embed_scale: EmbedScale,
        image_normalizer: StableUnCLIPImageNormalizer,
        image_noising_scheduler: KarrasDiffusionSchedulers,
        tokenizer: Any,
        text_encoder: Any,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        vae: AutoencoderKL,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        prior: EmbeddingPrior | None = None,
        upscaler: Upscaler | None = None,
        default_steps: int = 20,
        default_guidance: float = 10.0,
        things_alone: bool = False,
        default_best_of: int = 1,
    ):
        super().__init__(
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            image_normalizer=image_normalizer,
            image_noising_scheduler=image_noising_scheduler,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            vae=vae,
        )
        self.register_modules(aligner=aligner, embed_scale=embed_scale, prior=prior, upscaler=upscaler)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)
        self.register_to_config(default_best_of=default_best_of, things_alone=things_alone)

    def _encode_image(
        self, *, do_classifier_free_guidance: bool, noise_level: Tensor, generator: Any, image_embeds: Tensor, **_: Any
    ) -> Tensor:
        """Noised embeddings with their noise level (B, 2 d), zeros before them under guidance.

        Diffusers' own asks the vision encoder for its dtype even when embeddings are given; here that encoder need not exist.
        """
        labels = self.noise_image_embeddings(image_embeds=image_embeds, noise_level=noise_level, generator=generator)
        return torch.cat([torch.zeros_like(labels), labels]) if do_classifier_free_guidance else labels

    def strip_conditions(self, embeds: Tensor, request: Request) -> Tensor:
        level = torch.tensor([self.noise_level(request)], device=embeds.device)
        noise = torch.randn(1, embeds.shape[1], generator=torch.Generator().manual_seed(0))  # one for all strips
        return self.noise_image_embeddings(embeds, level, noise.expand_as(embeds).to(embeds))

    def noise_level(self, request: Request) -> int:
        """Of the noise on embeddings, 0 unless a request names one.

        Raises:
            InputError: there is no such level.
        """
        level: int = request.options.get("noise_level", 0)
        levels = self.image_noising_scheduler.config.num_train_timesteps
        if level >= levels:
            raise InputError(f"noise_level must be a whole number from 0 to {levels - 1}, got {level}")
        return level

    def sample(self, request: Request, conditions: Conditions) -> Any:
        unknown = set(request.callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise InputError(f"a callback can have {', '.join(self._callback_tensor_inputs)}, not {', '.join(unknown)}")
        options = {"eta": 0.0, **request.options, "noise_level": self.noise_level(request)}
        words, negative = options.pop("decoder_prompt", None), options.pop("negative_decoder_prompt", None)
        callback, latents = request.callback_on_step_end, request.latents

        def step_end(step: int, timestep: Tensor, now: Tensor) -> None:
            # diffusers' loop has the older kind of callback and keeps `now`: what is returned is written into it
            assert callback is not None
            changed = (callback(self, step, timestep, {"latents": now}) or {}).get("latents", now)
            if changed is not now:
                now.copy_(changed)

        unwanted = rows_of("negative_decoder_prompt", negative, conditions.prompts, request.pictures)
        if latents is not None:  # diffusers scales the noise it draws, and forgets to scale the noise it is given
            self.scheduler.set_timesteps(conditions.steps, device=self._execution_device)
            latents = latents * self.scheduler.init_noise_sigma
        return StableUnCLIPImg2ImgPipeline.__call__(
            self,
            prompt=rows_of("decoder_prompt", words, conditions.prompts, request.pictures),
            # without guidance diffusers wants no negative prompt at all
            negative_prompt=unwanted if conditions.guidance > 1 else None,
            image_embeds=conditions.image_embeds,
            height=request.height,
            width=request.width,
            num_inference_steps=conditions.steps,
            guidance_scale=conditions.guidance,
            generator=conditions.generator,
            latents=latents,
            output_type=request.output_type,
            callback=step_end if callback is not None else None,
            **options,
        ).images
