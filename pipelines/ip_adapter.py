"""Decoders that take the embedding through an IP-Adapter (Ye et al. 2023): SDXL, Stable Diffusion 1.5, AnimateDiff.

One mixin is set before whichever of diffusers' classes a decoder's description names: see `adapter_class`. Rows of embeddings
go to the UNet as they are. Diffusers' own way repeats the argument by the number of its prompts (huggingface/diffusers#9813),
so that it cannot draw several embeddings together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from unialign_gen.errors import InputError
from unialign_gen.mixing import check_embedding
from unialign_gen.request import Request
from unialign_gen.request.arguments import ask

from .conditions import Conditions, step_end
from .editing import Canvas, Edit, accepted
from .prompted import PromptedPipeline
from .prompts import as_vector, rows_of

WORDS = ("decoder_prompt", "negative_decoder_prompt")
FRAMES = 16  # of a clip, what AnimateDiff was trained on; more need FreeNoise
MOST_FRAMES = 256
STRIDE = 4  # frames by which FreeNoise's windows follow one another


class RowsOfEmbeddings:
    """Mixed into a diffusers pipeline with an IP-Adapter: one embedding a picture, zeros above them under guidance."""

    def prepare_ip_adapter_image_embeds(
        self, ip_adapter_image: Any, ip_adapter_image_embeds: list[Tensor], device: Any, count: int, guided: bool
    ) -> list[Tensor]:
        """What the UNet takes (B, 1, d), or (2 B, 1, d) under guidance, of embeddings (B, 1, d)."""
        (rows,) = ip_adapter_image_embeds
        rows = rows.to(device)
        return [torch.cat([torch.zeros_like(rows), rows]) if guided else rows]


class IPAdapterPipeline(PromptedPipeline, RowsOfEmbeddings, DiffusionPipeline):
    """Text, sound, video, pictures and mixes of them through an IP-Adapter; `adapter_class` makes classes of it.

    Words may be given beside, as `decoder_prompt` and `negative_decoder_prompt`; `set_ip_adapter_scale`, `load_lora_weights`
    and the like are diffusers' own. What is put together of published parts is not written down again as one folder.

    Example:
        >>> from diffusers import StableDiffusionPipeline
        >>> adapter_class(IPAdapterPipeline, StableDiffusionPipeline).decoder_options
        ('decoder_prompt', 'negative_decoder_prompt', 'eta', 'cross_attention_kwargs')
    """

    base: ClassVar[type[DiffusionPipeline]]
    decoder_options: ClassVar[tuple[str, ...]] = (*WORDS, "eta", "cross_attention_kwargs")
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["embed_scale", "prior"]

    def sample(self, request: Request, conditions: Conditions, **more: Any) -> Any:
        # of one side alone Stable Diffusion 1.5's class takes neither
        own = self.sample_side if request.height or request.width else None
        sides = {"height": request.height or own, "width": request.width or own}
        options = {**sides, "latents": request.latents, **more}
        return self.run(self, type(self).base, request, conditions, **options, output_type=request.output_type)

    def run(self, made: Any, kind: type[DiffusionPipeline], request: Request, conditions: Conditions, **more: Any) -> Any:
        """Calls one of diffusers' classes with what all of this family take."""
        options = dict(request.options)
        several = accepted(kind, num_images_per_prompt=request.pictures)  # then words are encoded once a prompt
        repeats = 1 if several else request.pictures
        given = {name: options.pop(name, None) for name in WORDS}
        words: list[Any] = [rows_of(name, text, conditions.prompts, repeats) for name, text in given.items()]
        if getattr(self, "free_noise_enabled", False):
            words = [row for (row,) in words]  # one clip, and one text
        if given["negative_decoder_prompt"] is None:
            words[1] = None  # not the same as no words: SDXL then takes zeros
        out = kind.__call__(
            made,
            prompt=words[0],
            negative_prompt=words[1],
            ip_adapter_image_embeds=[conditions.image_embeds[:, None]],
            num_inference_steps=conditions.steps,
            guidance_scale=conditions.guidance,
            generator=conditions.generator,
            **several,
            **accepted(kind, **step_end(request)),
            **options,
            **more,
        )
        return out.images if hasattr(out, "images") else out.frames

    def set_attention_slice(self, slice_size: Any) -> None:
        """As diffusers' own, which takes the adapter out, for all attention but that to the adapter."""
        kept = {name: one for name, one in self.unet.attn_processors.items() if "IPAdapter" in type(one).__name__}
        super().set_attention_slice(slice_size)
        self.unet.set_attn_processor({**self.unet.attn_processors, **kept})

    def pixels_of(self, latents: Tensor) -> Tensor:
        upcast = issubclass(self.base, StableDiffusionXLPipeline) and self.vae.config.force_upcast  # as diffusers' own class
        if not upcast or self.vae.dtype != torch.float16:
            return super().pixels_of(latents)
        self.vae.to(torch.float32)
        try:
            return super().pixels_of(latents.float())
        finally:
            self.vae.to(torch.float16)

    def edit_kind(self, kind: type[DiffusionPipeline]) -> type[DiffusionPipeline]:
        return with_rows(kind)  # type: ignore[arg-type]

    def sample_edit(self, made: Any, edit: Edit, canvas: Canvas, request: Request, conditions: Conditions) -> Any:
        kind, (width, height) = type(made), canvas.size
        options = accepted(kind, strength=edit.share, width=width, height=height)
        if canvas.picture is None:  # drawn along the map alone
            options["image"] = canvas.control
        else:
            options |= {"image": canvas.picture, **accepted(kind, control_image=canvas.control)}
        if canvas.mask is not None:  # one for each, or all are encoded with the first one's generator
            count = len(conditions.image_embeds)
            options |= {"image": [canvas.picture] * count, "mask_image": [canvas.mask] * count}
        return self.run(made, kind, request, conditions, **options)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """
        Raises:
            InputError: always; diffusers does not read back a UNet that was saved with its IP-Adapter.
        """
        raise InputError("a decoder that is put together of published parts is not saved as one: keep its sources")


@lru_cache
def with_rows(kind: type[DiffusionPipeline]) -> type[DiffusionPipeline]:
    """One of diffusers' classes, taking one embedding a picture."""
    return type(kind.__name__, (RowsOfEmbeddings, kind), {})


@lru_cache
def adapter_class(front: type[IPAdapterPipeline], base: type[DiffusionPipeline]) -> type[DiffusionPipeline]:
    """`front` set before one of diffusers' classes, whose components it takes beside our own.

    Example:
        >>> from diffusers import StableDiffusionXLPipeline
        >>> adapter_class(IPAdapterPipeline, StableDiffusionXLPipeline).model_cpu_offload_seq
        'aligner->text_encoder->text_encoder_2->image_encoder->unet->vae'
    """
    theirs = inspect.signature(base.__init__).parameters

    def __init__(  # noqa: N807  a method, made here
        self: Any, aligner: Any, embed_scale: Any, prior: Any = None, default_steps: int = 30, default_guidance: float = 5.0,
        **parts: Any,
    ) -> None:  # fmt: skip
        base.__init__(self, **parts)
        self.register_modules(aligner=aligner, embed_scale=embed_scale, prior=prior)
        self.register_to_config(default_steps=default_steps, default_guidance=default_guidance)

    ours = [p for p in inspect.signature(__init__).parameters.values() if p.kind is not p.VAR_KEYWORD]
    named = [p.replace(kind=p.KEYWORD_ONLY) for name, p in theirs.items() if name != "self"]
    # diffusers looks for its components here
    setattr(__init__, "__signature__", inspect.Signature([*ours, *named]))  # noqa: B010
    members = {
        "__init__": __init__,
        "base": base,
        "model_cpu_offload_seq": f"aligner->{base.model_cpu_offload_seq}",
        "_optional_components": [*base._optional_components, "prior"],
    }
    return type(f"{front.__name__}Of{base.__name__}", (front, base), members)


class MovingPipeline(IPAdapterPipeline):
    """AnimateDiff (Guo et al. 2023): clips instead of pictures. `images` holds for each a list of 16 frames.

    `along` leads one clip by a path of embeddings, one a frame, where diffusers repeats one embedding over all frames.

    Example:
        >>> from diffusers import AnimateDiffPipeline
        >>> adapter_class(MovingPipeline, AnimateDiffPipeline).moving
        True
    """

    moving: ClassVar[bool] = True

    def along(self, path: Tensor, seed: int = 0, **options: Any) -> list[Any]:
        """The frames of one clip whose embedding changes from frame to frame.

        Args:
            path: unit embeddings (F, d), one a frame. More than 16 are drawn with FreeNoise (Qiu et al. 2023): windows of 16
                frames, 4 apart, share their noise and are averaged.
            options: those of a call, but prompts and several pictures.

        Returns:
            F pictures.

        Raises:
            InputError: not a path, or an option that cannot be used.
        """
        path = as_vector(path)
        if path.ndim != 2 or path.shape[1] != self.aligner.embed_dim or not len(path):
            raise InputError(f"a path is embeddings (frames, {self.aligner.embed_dim}), got {tuple(path.shape)}")
        if len(path) > MOST_FRAMES:
            raise InputError(
                f"{len(path)} frames: a clip is drawn as a whole, of at most {MOST_FRAMES}: ask for fewer a second"
            )
        request = ask(embeds=path[0], seed=seed, **options)
        if request.pictures > 1 or len(request.prompts) > 1 or len(request.prompts[0]) > 1:
            raise InputError("a path is one clip, drawn where the path is: leave out prompts and num_images_per_prompt")
        self.path = self.embed_scale(torch.stack([check_embedding(z) for z in path]))
        try:
            return self.draw(request).images[0]
        finally:
            del self.path

    def sample(self, request: Request, conditions: Conditions, **more: Any) -> Any:
        path = getattr(self, "path", None)
        if path is None:
            return super().sample(request, conditions, num_frames=FRAMES, **more)
        long = len(path) > FRAMES
        if long:
            self.enable_free_noise(context_length=FRAMES, context_stride=STRIDE)  # type: ignore[attr-defined]
            noise = conditions.generator
            conditions = replace(conditions, generator=noise[0] if isinstance(noise, list) else noise)
        hook = self.unet.encoder_hid_proj.register_forward_hook(one_a_frame(path))
        try:
            return super().sample(request, conditions, num_frames=len(path), **more)
        finally:
            hook.remove()
            if long:
                self.disable_free_noise()  # type: ignore[attr-defined]


class FrameRows:
    """Tokens (B F, 1, t, d) that are one a frame already, where AnimateDiff's UNet repeats those of a clip."""

    def __init__(self, tokens: Tensor):
        self.tokens, self.shape = tokens, tokens.shape

    def repeat_interleave(self, *_: Any, **__: Any) -> Tensor:
        return self.tokens


def one_a_frame(path: Tensor) -> Callable[..., list[FrameRows]]:
    """A hook on an adapter's projection: tokens of each frame's embedding (F, d) in place of those of the clip's.

    They are computed at the first step, frame by frame, so that a constant path is drawn bit for bit as diffusers draws it.
    """
    kept: list[FrameRows] = []

    def hook(module: Any, given: tuple[list[Tensor]], tokens: Any) -> list[FrameRows]:
        if not kept:
            (clip,) = given[0]  # (1, 1, d), or (2, 1, d) under guidance with the embedding below
            frames = [module.forward([torch.cat([clip[:-1], z.to(clip)[None, None]])])[0] for z in path]
            kept.append(FrameRows(torch.stack(frames, 1).flatten(0, 1)))  # (2, F, 1, t, d) -> (2 F, 1, t, d)
        return kept

    return hook
