"""Stable UnCLIP's decoder behind prompts of any modality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.mixing import Method

from .embed_scale import EmbedScale
from .prior import EmbeddingPrior
from .prompted import PromptedPipeline
from .prompts import Weights


class UniAlignStableUnCLIPPipeline(PromptedPipeline, StableUnCLIPImg2ImgPipeline):
    """Text, sound, video, pictures and mixes of them to pictures, by a Stable UnCLIP decoder.

    The decoder has a text input of its own, cross-attention, here `decoder_prompt`; it is no part of the prompt's embedding
    and may stay empty. Sampling is that of diffusers' `StableUnCLIPImg2ImgPipeline`, without its vision encoder.

    Args:
        aligner: prompts to unit embeddings.
        embed_scale: the norm the decoder expects; its unconditional embedding is zero.
        prior: what prompts are moved towards, if anything.
        image_normalizer, image_noising_scheduler, tokenizer, text_encoder, unet, scheduler, vae: as in diffusers.
        default_steps, default_guidance: what a call uses when it names none.
    """

    model_cpu_offload_seq = "aligner->text_encoder->unet->vae"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["image_normalizer", "embed_scale", "prior"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]
    _optional_components: ClassVar[list[str]] = ["feature_extractor", "image_encoder", "prior"]

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
        default_steps: int = 20,
        default_guidance: float = 10.0,
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
        self.register_modules(aligner=aligner, embed_scale=embed_scale, prior=prior)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)

    def _encode_image(
        self,
        image: Any,
        device: torch.device,
        batch_size: int,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        noise_level: Tensor,
        generator: Any,
        image_embeds: Tensor,
    ) -> Tensor:
        """Noised embeddings with their noise level (B, 2 d), zeros before them under guidance.

        Diffusers' own asks the vision encoder for its dtype even when embeddings are given; here that encoder need not exist.
        """
        labels = self.noise_image_embeddings(image_embeds=image_embeds, noise_level=noise_level, generator=generator)
        return torch.cat([torch.zeros_like(labels), labels]) if do_classifier_free_guidance else labels

    @torch.no_grad()
    def __call__(  # type: ignore[override]  # the prompts come first, the rest is StableUnCLIPImg2ImgPipeline's
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
        decoder_prompt: str | Sequence[str] | None = None,
        negative_decoder_prompt: str | Sequence[str] | None = None,
        noise_level: int = 0,
        eta: float = 0.0,
        cross_attention_kwargs: dict[str, Any] | None = None,
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
            generator, latents: as in diffusers; latents (B * n, C, h, w) of unit variance.
            height, width: in pixels, multiples of 8; the decoder's own by default.
            output_type: `pil`; `np` (B, H, W, 3) or `pt` (B, 3, H, W) in [0, 1]; `latent`.
            callback_on_step_end: as in diffusers; may return new `latents`, the only tensor it can have.
            decoder_prompt, negative_decoder_prompt: words for the decoder's own cross-attention, one for all or one a
                prompt; empty by default. They do not move the embedding: `text` does.
            noise_level: noise on the embedding, 0 to 999, more for more variation. Level 0 adds a little noise too.
            eta, cross_attention_kwargs: as in diffusers.

        Returns:
            `ImagePipelineOutput` with `images`, prompt by prompt; a tuple if `return_dict` is false.

        Raises:
            InputError: an input that cannot be used; one line says which and why.
        """
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise InputError(f"a callback can have {', '.join(self._callback_tensor_inputs)}, not {', '.join(unknown)}")
        levels = self.image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < levels:
            raise InputError(f"noise_level must be between 0 and {levels - 1}, got {noise_level}")
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

        def words(given: str | Sequence[str] | None, name: str) -> list[str]:
            rows = [given or ""] * asked.prompts if given is None or isinstance(given, str) else list(given)
            if len(rows) != asked.prompts:
                raise InputError(f"{len(rows)} values of {name} for {asked.prompts} prompts: give one, or one for each")
            return [row for row in rows for _ in range(num_images_per_prompt)]

        def step_end(step: int, timestep: Tensor, now: Tensor) -> None:
            # diffusers' loop has the older kind of callback and keeps `now`: what is returned is written into it
            assert callback_on_step_end is not None
            changed = (callback_on_step_end(self, step, timestep, {"latents": now}) or {}).get("latents", now)
            if changed is not now:
                now.copy_(changed)

        if latents is not None:  # diffusers scales the noise it draws, and forgets to scale the noise it is given
            self.scheduler.set_timesteps(asked.steps, device=self._execution_device)
            latents = latents.to(self._execution_device, self.unet.dtype) * self.scheduler.init_noise_sigma
        # without guidance diffusers wants no negative prompt at all
        negative = words(negative_decoder_prompt, "negative_decoder_prompt") if asked.guidance > 1 else None
        out = super().__call__(
            prompt=words(decoder_prompt, "decoder_prompt"),
            negative_prompt=negative,
            image_embeds=asked.image_embeds,
            height=height,
            width=width,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            generator=asked.generator,
            latents=latents,
            output_type=output_type,
            callback=step_end if callback_on_step_end is not None else None,
            cross_attention_kwargs=cross_attention_kwargs,
            noise_level=noise_level,
            eta=eta,
        )
        return out if return_dict else (out.images,)
