"""Kandinsky 2.2's decoder behind prompts of any modality."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    KandinskyV22Img2ImgPipeline,
    KandinskyV22InpaintPipeline,
    KandinskyV22Pipeline,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.request import Request

from .conditions import Conditions, step_end
from .editing import Canvas, Edit, Mode, accepted, to_tensor
from .embed_scale import EmbedScale
from .prior import EmbeddingPrior
from .prompted import PromptedPipeline
from .upscaler import Upscaler


class UniAlignKandinskyPipeline(PromptedPipeline, KandinskyV22Pipeline):
    """Text, sound, video, pictures and mixes of them to pictures, by a Kandinsky 2.2 decoder.

    Args:
        aligner: prompts to unit embeddings.
        unet, scheduler, movq: the decoder, as in diffusers.
        embed_scale: the norm the decoder expects, and its unconditional embedding.
        prior: what prompts are moved towards, if anything.
        upscaler: what makes the pictures larger, if anything.
        default_steps, default_guidance, default_best_of: what a call uses when it names none.
        things_alone: whether each of several things is drawn alone and set in its place, for a decoder that was trained on
            pictures of one thing; else all are denoised together.
        distilled: whether guidance is in the weights, and the default steps are those that they were trained for.

    Example:
        >>> import unialign_gen
        >>> generate = unialign_gen.load("starter")
        >>> generate(text=["a red car", "a cat"], seed=0, num_inference_steps=1).images[1].size
        (512, 512)
    """

    strips_drawn = True
    model_cpu_offload_seq = "aligner->unet->movq"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["embed_scale", "prior", "upscaler"]
    _optional_components: ClassVar[list[str]] = ["prior", "upscaler"]
    drawn_multiple = PromptedPipeline.size_multiple  # type: ignore[assignment]  # diffusers rounds others up

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
        things_alone: bool = False,
        distilled: bool = False,
        default_best_of: int = 1,
    ):
        super().__init__(unet=unet, scheduler=scheduler, movq=movq)
        self.register_modules(aligner=aligner, embed_scale=embed_scale, prior=prior, upscaler=upscaler)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)
        self.register_to_config(default_best_of=default_best_of, things_alone=things_alone, distilled=distilled)

    def sample(self, request: Request, conditions: Conditions) -> Any:
        with any_scheduler(self):
            images = KandinskyV22Pipeline.__call__(
                self,
                **self.shared(request, conditions),
                height=request.height or self.sample_side,
                width=request.width or self.sample_side,
                latents=request.latents,
                output_type=request.output_type,
                **step_end(request),
            ).images
        # diffusers leaves tensors in [-1, 1] here, unlike everywhere else
        return (images * 0.5 + 0.5).clamp(0, 1) if request.output_type == "pt" else images

    def shared(self, request: Request, conditions: Conditions) -> dict[str, Any]:
        """What all of Kandinsky's pipelines take."""
        embeds = conditions.image_embeds
        return {
            "image_embeds": embeds,
            "negative_image_embeds": self.embed_scale.negative_image_embeds.to(embeds).expand_as(embeds),
            "num_inference_steps": conditions.steps,
            "guidance_scale": conditions.guidance,
            "generator": conditions.generator,
        }

    def edit_kind(self, kind: type[DiffusionPipeline]) -> type[DiffusionPipeline]:
        return LatentImg2Img if kind is KandinskyV22Img2ImgPipeline else kind

    def sample_edit(self, made: Any, edit: Edit, canvas: Canvas, request: Request, conditions: Conditions) -> Any:
        if edit.share < 1 and edit.mask is not None and not accepted(type(made), strength=1):
            raise InputError("this decoder redraws all that the mask marks: leave strength out")
        count = len(conditions.image_embeds)  # every picture has noise of its own, hence a copy of the picture
        options = accepted(
            type(made),
            image=[canvas.picture] * count,
            mask_image=[canvas.mask] * count,
            strength=edit.share,
            hint=None
            if canvas.control is None
            else torch.stack([to_tensor(canvas.control)] * count).to(conditions.image_embeds),
            **step_end(request),
        )
        width, height = canvas.size
        with any_scheduler(made):
            return made(**self.shared(request, conditions), **options, width=width, height=height).images


@contextmanager
def any_scheduler(pipeline: Any) -> Iterator[None]:
    """Inside, diffusers' loops of Kandinsky draw with any scheduler; they give all a generator, and scale the input for none.

    Raises:
        InputError: it is not of DDPM's noise, does not draw step by step, or begins at another scale where diffusers inpaints.
    """
    scheduler = pipeline.scheduler
    takes = inspect.signature(getattr(type(scheduler), "step", print)).parameters
    needs = {name for name, one in takes.items() if one.default is one.empty} - {"self"}
    if (
        not hasattr(scheduler, "alphas_cumprod")
        or needs != {"model_output", "timestep", "sample"}
        or getattr(scheduler, "order", 1) > 1  # where noise has no end, as at the starter's first step, Heun's is no picture
        or (isinstance(pipeline, KandinskyV22InpaintPipeline) and scheduler.init_noise_sigma != 1)
    ):
        known = "DDPM, DDIM, DPMSolverMultistep, UniPCMultistep"
        raise InputError(f"this cannot be drawn with {type(scheduler).__name__}: take a scheduler like {known}")

    def scaled(unet: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**given, "sample": scheduler.scale_model_input(given["sample"], given["timestep"])}

    patched, step = "step" in vars(scheduler), scheduler.step
    # where nothing is to be scaled the UNet stays as it is, which torch.compile asks for
    scales = scheduler.init_noise_sigma != 1
    hook = pipeline.unet.register_forward_pre_hook(scaled, with_kwargs=True) if scales else nullcontext()
    scheduler.step = lambda *args, **options: step(*args, **{k: v for k, v in options.items() if k in takes})
    try:
        with hook:
            yield
    finally:
        del scheduler.step
        if patched:
            scheduler.step = step


class LatentImg2Img(KandinskyV22Img2ImgPipeline):
    """Img2img as in diffusers, for latents of any width: theirs of other than 4 channels are encoded a second time."""

    def prepare_latents(
        self, image: Tensor, timestep: Tensor, batch: int, pictures: int, dtype: Any, device: Any, generator: Any = None
    ) -> Tensor:
        self.clean = image.to(device, dtype)  # (B, C, h, w)
        self.noise = randn_tensor(image.shape, generator=generator, device=device, dtype=dtype)
        return self.scheduler.add_noise(self.clean, self.noise, timestep)


class LatentInpaint(LatentImg2Img):
    """Inpainting by a decoder that was never trained to: after each step what the mask keeps is put back, as noisy as the rest.

    RePaint's equation 8 (Lugmayr et al. 2022, arXiv 2201.09865) without its resampling, as Stable Diffusion's pipeline does it.
    """

    def __call__(
        self,
        image: Any,
        mask_image: list[Image.Image],
        strength: float = 1.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
        **options: Any,
    ) -> Any:
        marked = torch.stack([torch.from_numpy(np.asarray(mask, np.float32) > 0) for mask in mask_image])  # (B, H, W)
        self.marked = marked[:, None].float()

        def keep(pipeline: Any, step: int, timestep: Tensor, now: dict[str, Any]) -> dict[str, Any]:
            changed = callback_on_step_end(pipeline, step, timestep, now) if callback_on_step_end else {}
            return {**changed, "latents": self.kept(step, changed.get("latents", now["latents"]))}

        names = list({"latents", *callback_on_step_end_tensor_inputs})
        return super().__call__(
            image=image,
            strength=strength,
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=names,
            **options,
        )

    def kept(self, step: int, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) after a step, with the picture's own where nothing is marked."""
        inside = F.adaptive_max_pool2d(self.marked, latents.shape[-2:]).to(latents.device) > 0  # (B, 1, h, w)
        later = self.scheduler.timesteps[-self.num_timesteps :][step + 1 : step + 2]
        clean = self.scheduler.add_noise(self.clean, self.noise, later.expand(len(latents))) if len(later) else self.clean
        return torch.where(inside, latents, clean)


UniAlignKandinskyPipeline.modes = {"img2img": Mode(KandinskyV22Img2ImgPipeline), "inpaint": Mode(LatentInpaint)}
