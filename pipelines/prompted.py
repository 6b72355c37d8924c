"""What the decoders' pipelines share: a request in, embeddings at the decoder's scale and a generator for each picture out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor

from unialign_gen.aligner import Aligner, Embeddings
from unialign_gen.concepts import checkpoint_folder
from unialign_gen.errors import InputError, as_input_error
from unialign_gen.mixing import Method, path
from unialign_gen.notes import Note, collected, note, tell
from unialign_gen.request import Request
from unialign_gen.request.arguments import ask, takes_request

from .alone import draw_things, set_in
from .beside import Strips, drawn_beside
from .best_of import sample_best
from .conditions import Conditions, check_sides, checked_latents
from .drawn_colour import tell_colours
from .editing import Canvas, Edit, Mode, accepted, editor, to_tensor
from .embed_scale import EmbedScale
from .inputs import inputs_of
from .named import Row, tell_not_understood, tell_one_point, understanding_in, words_of
from .output import FROM_UNIT, PictureOutput
from .prior import EmbeddingPrior, each, temperature_of
from .prompts import checked_vector, encode_prompts, generators, mixed_prompts, moved_prompts, picture_seeds
from .upscaler import Upscaler

BESIDE_ALIGNER = ("understanding.json", "understanding.safetensors", "concepts.json", "concepts.safetensors")  # known names
ENLARGED = 8  # pictures at a time, which bounds the memory


class PromptedPipeline:
    """Mixed into a diffusers pipeline that has `aligner`, `embed_scale`, `prior`, `unet`, and two defaults in its config."""

    decoder_options: ClassVar[tuple[str, ...]] = ()  # those of `request.OPTIONS` that this decoder takes
    modes: Mapping[str, Mode] = {}  # how it edits, by `Edit.mode`
    moving: ClassVar[bool] = False  # whether it draws clips instead of pictures
    strips_drawn: ClassVar[bool] = False  # whether it draws things beside each other, each of its own embedding
    aligner: Aligner
    embed_scale: EmbedScale
    prior: EmbeddingPrior | None
    upscaler: Upscaler | None
    unet: Any
    vae: Any  # or `movq`
    scheduler: Any
    config: Any
    drawn_multiple: int = 8  # what widths and heights of pictures are multiples of, before they are enlarged
    _execution_device: torch.device
    maybe_free_model_hooks: Callable[[], None]

    @property
    def latent_factor(self) -> int:
        """Pixels a side of one latent."""
        return int(getattr(self, "movq_scale_factor" if hasattr(self, "movq") else "vae_scale_factor"))

    @property
    def sample_side(self) -> int:
        """Side in pixels of the square pictures the decoder was trained on."""
        return int(self.unet.config.sample_size) * self.latent_factor

    @property
    def size_multiple(self) -> int:
        """What widths and heights of edits are multiples of, as in training."""
        return self.latent_factor**2

    @property
    def decoder_dtype(self) -> torch.dtype:
        """Of the embeddings that the decoder takes."""
        return self.unet.dtype

    def save_pretrained(self, save_directory: str | Path, *more: Any, **options: Any) -> None:
        """As diffusers' own, with what the checkpoint knows by name beside it; a note on edits that are not written."""
        super().save_pretrained(save_directory, *more, **options)  # type: ignore[misc]
        if lost := [name for name, mode in self.modes.items() if mode != type(self).modes.get(name)]:
            note("not saved", f"{', '.join(lost)}: weights of their own, not written: load it by its name")
        folder = checkpoint_folder(self)
        if folder is None or folder.resolve() == Path(save_directory).resolve():
            return
        for file in (folder / name for name in BESIDE_ALIGNER):
            if file.is_file():
                shutil.copy(file, save_directory)

    @takes_request
    def __call__(self, request: Request) -> PictureOutput:
        """Draws pictures: a `PictureOutput` with `images`, prompt by prompt."""
        out = self.draw(request)
        return out if request.return_dict else (out.images,)  # type: ignore[return-value]

    @torch.no_grad()
    def draw(self, request: Request) -> PictureOutput:
        """Draws what a request asks for.

        Raises:
            InputError: something in it that cannot be used.
        """
        self.check_options(request)
        with collected() as notes:
            conditions, used = self.conditions(request)
            with as_input_error("{error}", ValueError):  # diffusers' own checks, of sizes and the like
                images = self.upscaled(used, conditions)
        return self.looked_at(images, notes, used, conditions)

    def looked_at(self, images: Any, notes: list[Note], used: Request, conditions: Conditions) -> PictureOutput:
        """What was drawn, with a note more where a thing on white has not the colour that was asked for."""
        with collected() as seen:
            texts = any(p.kind == "text" for row in used.prompts for p in row)  # without one no text encoder is needed
            if self.config.get("things_alone") and texts:
                tell_colours(images, used, conditions.strips, words_of(self.aligner))
        return PictureOutput(images=images, notes=[*notes, *seen], request=used)

    def check_options(self, request: Request) -> None:
        """Whether this decoder takes the options of a request."""
        unknown = set(request.options) - set(self.decoder_options)
        if unknown:
            raise InputError(f"this decoder takes no {', '.join(sorted(unknown))}: leave it out")

    def sample(self, request: Request, conditions: Conditions) -> Any:
        """The decoder's own part of `draw`: images in the request's output type."""
        raise NotImplementedError

    def sample_strips(self, request: Request, conditions: Conditions) -> Any:
        """`sample`, with things beside each other where the conditions say so."""
        strips = conditions.strips
        if not any(strips):
            return self.sample(request, conditions)
        with drawn_beside(self.unet, strips, [None if s is None else self.strip_conditions(s.embeds, request) for s in strips]):
            return self.sample(request, conditions)

    @property
    def edit_modes(self) -> tuple[str, ...]:
        """What `edit` can do here, of `img2img`, `inpaint`, `control`, `control+img2img`, `control+inpaint`."""
        return tuple(self.modes)

    def edit(
        self, picture: Any = None, mask: Any = None, *, strength: float | None = None, control: Any = None, **options: Any
    ) -> PictureOutput:
        """Changes a picture towards prompts: img2img, inpainting with a `mask`, ControlNet with a `control` map.

        Args:
            picture, mask, strength, control: see `Edit`; one for all prompts.
            options: the prompts and everything else that a call takes, but `latents`, and PIL as the only output type.

        Returns:
            Pictures of the size of `picture`, or of `height` and `width`, to which it is brought first.

        Raises:
            InputError: as in a call; a way of editing that this decoder does not have; a picture that cannot be read.

        Example:
            >>> import unialign_gen
            >>> from PIL import Image
            >>> generate = unialign_gen.load("starter")
            >>> grey = Image.new("RGB", (96, 64), "grey")
            >>> generate.edit(grey, text="a red car", strength=0.5, seed=0, num_inference_steps=2).images[0].size
            (96, 64)
        """
        asked = ask(**options)
        out = self.draw_edit(Edit(picture, mask, strength, control), asked)
        return out if asked.return_dict else (out.images,)  # type: ignore[return-value]

    @torch.no_grad()
    def draw_edit(self, edit: Edit, request: Request) -> PictureOutput:
        """`edit`, of a request."""
        if edit.mode not in self.modes:
            ways = f"it does {', '.join(self.modes)}" if self.modes else "it does not edit"
            raise InputError(f"this decoder has no {edit.mode}: {ways}")
        if request.latents is not None or request.output_type != "pil" or (request.upscale, request.best_of) != (None, None):
            unwanted = "latents, output_type, upscale, best_of"
            raise InputError(f"an edit ends with PIL pictures of the picture's size, from one noise: leave out {unwanted}")
        self.check_options(request)
        check_sides(request, self.drawn_multiple)
        with collected() as notes:
            if request.mix == "beside":
                raise InputError("an edit draws one point: choose another mix than beside")
            canvas = Canvas.of(edit, request, self.sample_side, self.size_multiple)
            conditions, used = self.conditions(request, apart=False)
            if edit.picture is not None and int(conditions.steps * edit.share) == 0 < edit.share:
                least = 1 / conditions.steps
                raise InputError(f"strength {edit.share:g} of {conditions.steps} steps is none of them: at least {least:.2g}")
            if canvas.original is not None and edit.share == 0:
                images = [canvas.original.copy() for _ in conditions.image_embeds]
            else:
                mode = self.modes[edit.mode]
                if request.callback_on_step_end and not accepted(mode.kind, callback_on_step_end=True):
                    raise InputError(f"this decoder's {edit.mode} has no callback: leave it out")
                with as_input_error("{error}", ValueError):  # diffusers' own checks, of sizes and the like
                    made = editor(self, mode, self.edit_kind(mode.kind), self.__dict__.setdefault("_edit_parts", {}))
                    drawn = self.sample_edit(made, edit, canvas, used, conditions)
                    if getattr(self, "upscaler", None) is not None and canvas.larger:
                        pixels = torch.stack([to_tensor(picture) for picture in drawn]).to(self._execution_device)
                        drawn = FROM_UNIT.postprocess(self.enlarged(pixels))
                    images = canvas.finish(drawn)
                    self.maybe_free_model_hooks()  # of the components that it was lent
        return PictureOutput(images=images, notes=notes, request=used)

    def edit_kind(self, kind: type[DiffusionPipeline]) -> type[DiffusionPipeline]:
        """The class that edits in place of diffusers' own."""
        return kind

    def sample_edit(self, made: Any, edit: Edit, canvas: Canvas, request: Request, conditions: Conditions) -> Any:
        """The decoder's own part of `draw_edit`: PIL pictures at the canvas's working size."""
        raise NotImplementedError

    def upscaled(self, request: Request, conditions: Conditions) -> Any:
        """What the decoder draws, at the size that was asked for, in the request's output type."""
        upscaler = getattr(self, "upscaler", None)
        most = 1 if upscaler is None else int(upscaler.config["scale"])
        scale = most if request.upscale is None else request.upscale
        if scale > most:
            raise InputError(f"this decoder's pictures can be made {most} times as large at most, got upscale={scale}")
        if upscaler is None:
            scale = 1
        check_sides(request, scale * self.drawn_multiple)
        height, width = (None if side is None else side // scale for side in (request.height, request.width))
        drawn = replace(request, height=height, width=width)
        drawn = replace(drawn, latents=checked_latents(self, drawn, len(conditions.image_embeds)))
        latent = request.output_type == "latent"
        alone = bool(self.config.get("things_alone")) and any(conditions.strips)
        if alone:
            made = draw_things(self, drawn, conditions)  # (things, ...)
        elif conditions.best_of == 1 and (scale == 1 or latent):
            return self.sample_strips(drawn, conditions)
        else:
            made = sample_best(self, drawn if latent else replace(drawn, output_type="pt"), conditions)  # (B, 3, h, w)
        if scale > 1 and not latent:
            large = map(self.enlarged, made.split(ENLARGED))
            made = torch.cat([some if scale == most else F.avg_pool2d(some, most // scale) for some in large])
        if alone:
            made = set_in(self, made, conditions, latent)
        return made if latent else FROM_UNIT.postprocess(made, request.output_type)

    def latents_of(self, pictures: Tensor) -> Tensor:
        """Clean latents (B, C, h, w) of pictures (B, 3, H, W) in [0, 1]."""
        signed = (2 * pictures - 1).to(self._execution_device, self.decoder_dtype)
        if hasattr(self, "movq"):
            return self.movq.encode(signed).latents
        return self.vae.encode(signed).latent_dist.mode() * self.vae.config.scaling_factor

    def pixels_of(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of clean latents (B, C, h, w)."""
        if hasattr(self, "movq"):
            signed = self.movq.decode(latents, force_not_quantize=True).sample
        else:
            signed = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (signed.float() / 2 + 0.5).clamp(0, 1)

    def strip_conditions(self, embeds: Tensor, request: Request) -> Tensor:
        """What the UNet takes for embeddings (k, d) at decoder scale."""
        return embeds

    def enlarged(self, small: Tensor) -> Tensor:
        """Pictures (B, 3, h, w) in [0, 1] as large as the upscaler makes them."""
        assert self.upscaler is not None
        return (self.upscaler((2 * small - 1).to(self.upscaler.dtype)).float() / 2 + 0.5).clamp(0, 1)

    @takes_request
    def embed(self, request: Request) -> Embeddings:
        """Unit embeddings (B, d) of the prompts, mixed, with `notes`: the mean of what may be drawn, unless `prior_temperature`
        is named; 0 as `prior_strength` keeps them as they were encoded.
        """
        with collected() as notes:
            mixed = self.mixed(replace(request, pictures=1))[0]
        return Embeddings.of(mixed, notes)

    @torch.no_grad()
    def encoded(self, request: Request) -> Request:
        """The request with the unit embeddings that its prompts are encoded to, so that they are read only once."""
        return replace(request, prompts=encode_prompts(self.aligner, request.prompts))

    @torch.no_grad()
    def mixed(self, request: Request, apart: bool = False) -> tuple[Tensor, Request]:
        """Unit embeddings (B * pictures, d), prompt by prompt, and the request with what its files were encoded to; `apart`, of
        a text that is drawn as several things, their mix.

        At a temperature of the prior each picture has its own; without one they are the mean, and those of a prompt are equal.
        """
        ready, rows = self.read(request, apart)
        return self.placed(ready, rows)[0], ready

    def read(self, request: Request, apart: bool) -> tuple[Request, list[Row]]:
        """The request with what its prompts are encoded to, and its `inputs`; notes of what was not understood.

        Raises:
            InputError: nothing to draw, or options of the prior where there is nothing that it moves.
        """
        if not request.prompts:
            raise InputError(f"nothing to draw: give at least one of {', '.join(self.aligner.modalities)} or embeds")
        for name in ("prior_strength", "prior_temperature"):
            if getattr(request, name) and request.of_embeds:
                raise InputError(f"{name} moves prompts that are encoded; embeds are drawn where they are: leave it out")
        ready = self.encoded(request)
        rows = self.inputs(ready, apart)
        moving = None if ready.prior_strength == 0 else self.prior
        if not apart:
            tell_one_point(ready.prompts, rows)
        tell_not_understood(rows, understanding_in(checkpoint_folder(self)), self.aligner, moving)
        return ready, rows

    def sampled(self, request: Request) -> Request:
        """The request as it is drawn: at the prior's own temperature where it names none, and has what that is for."""
        own = temperature_of(self.prior, request.prior_strength)
        given = request.prior_temperature is not None or request.of_embeds
        return request if given or not own else replace(request, prior_temperature=own)

    def candidates(self, request: Request) -> int:
        """From how many noises each picture is drawn: as asked, or the checkpoint's own; embeddings are drawn once unless more
        are asked for, so that pictures along a way follow each other.

        Raises:
            InputError: several, where noise is given or a callback asks for more than latents, or of clips.
        """
        fixed = request.latents is not None or bool({*request.callback_on_step_end_tensor_inputs} - {"latents"})
        if request.best_of is None:
            usual = not fixed and not request.of_embeds and "image" in self.aligner.modalities
            return int(self.config.get("default_best_of", 1)) if usual else 1
        if request.best_of > 1:
            if self.moving:
                raise InputError("best_of chooses among pictures, and this decoder draws clips: leave it out")
            if fixed:
                raise InputError("best_of draws from noises of its own: leave out latents, and a callback's other tensors")
        return request.best_of

    def placed(self, ready: Request, rows: list[Row]) -> tuple[Tensor, list[Strips | None]]:
        """`mixed`, of an encoded request and its inputs, and of each picture what stands beside each other in it, unit
        embeddings.

        Raises:
            InputError: inputs are to stand beside each other, and this decoder cannot draw that.
        """
        if ready.mix == "beside" and not self.strips_drawn:
            raise InputError("this decoder draws one point: choose another mix than beside")
        draws, times = None, ready.pictures
        if ready.prior_temperature:
            rows, times = [inputs for inputs in rows for _ in range(ready.pictures)], 1
            seeds = None if ready.seed is None else picture_seeds(ready.seed, len(ready.prompts), ready.pictures)
            draws = each(ready.generator if seeds is None else seeds, len(rows))
        prompts = [inputs for inputs, _, _ in rows]
        moved = moved_prompts(prompts, ready, self.prior, draws)
        unit = mixed_prompts(prompts, moved, ready)
        strips: list[Strips | None] = [None] * len(rows)
        for i, (inputs, boxes, grounds) in enumerate(rows):
            if boxes is not None:
                one = len(boxes) < len(inputs)
                texts = ("",) if one else tuple(p.name if p.kind == "text" else "" for p in inputs)
                strips[i] = Strips(unit[i : i + 1] if one else torch.stack(moved[i]), boxes, grounds, texts)
        return unit.repeat_interleave(times, 0), [one for one in strips for _ in range(times)]

    def inputs(self, ready: Request, apart: bool = True) -> list[Row]:
        """`inputs_of` an encoded request. Who does what with what is two things only where they are drawn `apart`."""
        known = None if ready.prior_strength == 0 else understanding_in(checkpoint_folder(self))
        flat = apart and bool(self.config.get("things_alone"))  # so that a ground can be put behind them
        return inputs_of(ready, known, self.aligner, self.prior, self.strips_drawn, apart, flat)

    def points(self, ready: Request) -> Tensor:
        """`mixed`, of a request that is encoded."""
        return self.placed(ready, self.inputs(ready, apart=False))[0]

    def alone(self, request: Request, apart: bool = False) -> list[Tensor]:
        """The unit embedding (d,) of every input of the first prompt as it is drawn alone; `apart` as in `mixed`."""
        single = [replace(request, pictures=1, prompts=((replace(p, weight=1.0),),), mix="lerp") for p in request.prompts[0]]
        return [self.mixed(one, apart)[0][0] for one in single]

    def conditions(self, request: Request, apart: bool = True) -> tuple[Conditions, Request]:
        """What the decoder samples from, and the request as it was used; `apart` as in `inputs`."""
        if request.seed is None and request.generator is None:  # from torch's own, which a caller may have seeded
            request = replace(request, seed=int(torch.randint(2**32, ())))
        if request.image_embeds is None:
            request, rows = self.read(self.sampled(request), apart)
            unit, found = self.placed(request, rows)
            wanted, strips = self.embed_scale(unit), self.scaled(found)
        else:
            strips = []
            # repeated here, for every decoder alike: diffusers 0.42 does it in one place, not in another
            wanted = self.checked_embeds(request.image_embeds).repeat_interleave(request.pictures, 0)
        wanted = wanted.to(self._execution_device, self.decoder_dtype)
        count, prompts = len(wanted), len(wanted) // request.pictures
        generator = request.generator
        if request.seed is not None:
            generator = generators(request.seed, prompts, request.pictures)
        generator = list(generator) if isinstance(generator, tuple) else generator
        if isinstance(generator, list) and len(generator) != count:
            raise InputError(f"{len(generator)} generators for {count} pictures: give one, or one for each")
        steps, guidance = self.steps_and_guidance(request)
        if self.config.get("distilled") and steps != self.config["default_steps"]:
            tell("distilled", own=self.config["default_steps"], steps=steps)
        best_of = self.candidates(request) if apart else 1  # an edit keeps some of the picture's own noise
        if best_of > 1:
            self.aligner.part("image")  # which chooses: before anything is drawn in vain
        used = replace(request, steps=steps, guidance=guidance, best_of=best_of if apart else None)
        return Conditions(wanted, prompts, generator, steps, guidance, strips, best_of), used

    def scaled(self, strips: list[Strips | None]) -> list[Strips | None]:
        """Strips of unit embeddings at the decoder's scale, on its device in its dtype."""
        to = {"device": self._execution_device, "dtype": self.decoder_dtype}
        return [s and replace(s, embeds=self.embed_scale(s.embeds).to(**to)) for s in strips]

    def steps_and_guidance(self, request: Request) -> tuple[int, float]:
        """Those of a request, or the checkpoint's own where it names none.

        Raises:
            InputError: guidance for a decoder that was distilled from a guided one, and takes none.
        """
        guidance = self.config["default_guidance"] if request.guidance is None else request.guidance
        if guidance > 1 and self.config.get("distilled"):
            raise InputError(f"this decoder draws without guidance, which is in its weights: leave out guidance {guidance:g}")
        return self.config["default_steps"] if request.steps is None else request.steps, guidance

    def checked_embeds(self, image_embeds: Tensor) -> Tensor:
        """Embeddings (B, d) at decoder scale as they are, if that is what they are."""
        width = self.aligner.embed_dim
        got: Any = tuple(image_embeds.shape) if isinstance(image_embeds, Tensor) else type(image_embeds).__name__
        if not isinstance(image_embeds, Tensor) or len(got) != 2 or got[1] != width or not got[0]:
            raise InputError(f"image_embeds must be a tensor of shape (B, {width}), got {got}")
        if not torch.isfinite(image_embeds.to(self.decoder_dtype)).all():
            raise InputError(f"image_embeds hold NaN, or values that are infinite in {self.decoder_dtype}")
        return image_embeds

    def best_of(self, count: int, **options: Any) -> PictureOutput:
        """A call with `best_of=count`, as version 0.1 had it."""
        return self(best_of=count, **options)

    def interpolate(
        self,
        start: Any,
        end: Any,
        frames: int,
        mix: Method = "slerp",
        seed: int = 0,
        batch: int = 8,
        **options: Any,
    ) -> PictureOutput:
        """Pictures along the way between two embeddings (d,), so that only the prompt moves.

        Every frame's generator starts from the same seed: initial noise, noise on the embedding and noise of the sampler's
        steps are the same for all. `batch` frames are drawn at a time, which bounds the memory. `options` are those of a
        call, of which words may be one a frame.
        """
        a, b = (checked_vector(one, self.aligner.embed_dim) for one in (start, end))
        asked = ask(embeds=path(a, b, frames, mix), seed=[seed] * frames, batch=batch, **options)
        with collected() as notes:
            steps, guidance = self.steps_and_guidance(asked)
            used = replace(self.encoded(asked), steps=steps, guidance=guidance)
            drawn = list[Any]()
            for rows in (slice(at, at + asked.batch) for at in range(0, frames, asked.batch)):
                part = used.prompts[rows]
                words = {name: v[rows] if isinstance(v, list | tuple) else v for name, v in used.options.items()}
                drawn.append(self.draw(replace(used, prompts=part, seed=(seed,) * len(part), options=words)).images)
        images: Any = [picture for part in drawn for picture in part]
        if not isinstance(drawn[0], list):
            images = torch.cat(drawn) if isinstance(drawn[0], Tensor) else np.concatenate(drawn)
        out = PictureOutput(images=images, notes=notes, request=used)
        return out if asked.return_dict else (out.images,)  # type: ignore[return-value]
