"""What the decoders' pipelines share: a request in, embeddings at the decoder's scale and a generator for each picture out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.pil_utils import numpy_to_pil
from torch import Tensor

from unialign_gen.aligner import Aligner, Embeddings
from unialign_gen.concepts import Understanding, checkpoint_folder
from unialign_gen.errors import InputError
from unialign_gen.mixing import Method, check_embedding, mix, path
from unialign_gen.notes import Note, collected, tell
from unialign_gen.request import Prompt, Request
from unialign_gen.request.arguments import ask, takes_count_and_request, takes_request

from .editing import Canvas, Edit, Mode, accepted, editor, to_tensor
from .embed_scale import EmbedScale
from .prior import EmbeddingPrior, each, move_to_known, temperature_of
from .upscaler import Upscaler


@dataclass
class PictureOutput(ImagePipelineOutput):
    """What was drawn.

    Attributes:
        images: prompt by prompt.
        notes: what was lost or guessed on the way.
        request: what was drawn, with the embeddings that its files were encoded to and the steps and guidance that were
            used; `request.picture(i)` draws picture i alone.
    """

    notes: list[Note] = field(default_factory=list)
    request: Request = field(default_factory=Request)


@dataclass
class Conditions:
    """What a decoder samples from.

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

    decoder_options: ClassVar[tuple[str, ...]] = ()  # those of `request.OPTIONS` that this decoder takes
    modes: Mapping[str, Mode] = {}  # how it edits, by `Edit.mode`
    moving: ClassVar[bool] = False  # whether it draws clips instead of pictures
    aligner: Aligner
    embed_scale: EmbedScale
    prior: EmbeddingPrior | None
    upscaler: Upscaler | None
    unet: Any
    config: Any
    sample_side: int  # side in pixels of the square pictures that the decoder was trained on
    size_multiple: int  # what widths and heights are multiples of
    _execution_device: torch.device
    maybe_free_model_hooks: Callable[[], None]

    @property
    def decoder_dtype(self) -> torch.dtype:
        """Of the embeddings that the decoder takes."""
        return self.unet.dtype

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
            with diffusers_checks():
                images = self.upscaled(used, conditions)
        return PictureOutput(images=images, notes=notes, request=used)

    def check_options(self, request: Request) -> None:
        """Whether this decoder takes the options of a request."""
        unknown = set(request.options) - set(self.decoder_options)
        if unknown:
            raise InputError(f"this decoder takes no {', '.join(sorted(unknown))}: leave it out")

    def sample(self, request: Request, conditions: Conditions) -> Any:
        """The decoder's own part of `draw`: images in the request's output type."""
        raise NotImplementedError

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
        return self.draw_edit(Edit(picture, mask, strength, control), ask(**options))

    @torch.no_grad()
    def draw_edit(self, edit: Edit, request: Request) -> PictureOutput:
        """`edit`, of a request."""
        if edit.mode not in self.modes:
            ways = f"it does {', '.join(self.modes)}" if self.modes else "it does not edit"
            raise InputError(f"this decoder has no {edit.mode}: {ways}")
        if request.latents is not None or request.output_type != "pil" or request.upscale is not None:
            raise InputError("an edit ends with PIL pictures of the picture's size: leave out latents, output_type, upscale")
        self.check_options(request)
        with collected() as notes:
            canvas = Canvas.of(edit, request, self.sample_side, self.size_multiple)
            conditions, used = self.conditions(request)
            if edit.picture is not None and int(conditions.steps * edit.share) == 0 < edit.share:
                least = 1 / conditions.steps
                raise InputError(f"strength {edit.share:g} of {conditions.steps} steps is none of them: at least {least:.2g}")
            if canvas.original is not None and edit.share == 0:
                images = [canvas.original.copy() for _ in conditions.image_embeds]
            else:
                mode = self.modes[edit.mode]
                if request.callback_on_step_end and not accepted(mode.kind, callback_on_step_end=True):
                    raise InputError(f"this decoder's {edit.mode} has no callback: leave it out")
                with diffusers_checks():
                    made = editor(self, mode, self.edit_kind(mode.kind), self.__dict__.setdefault("_edit_parts", {}))
                    drawn = self.sample_edit(made, edit, canvas, used, conditions)
                    if getattr(self, "upscaler", None) is not None and canvas.larger:
                        pixels = torch.stack([to_tensor(picture) for picture in drawn]).to(self._execution_device)
                        drawn = pil_of(self.enlarged(pixels))
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
        if upscaler is None or scale == 1 or request.output_type == "latent":
            return self.sample(request, conditions)
        sides = (request.height, request.width)
        if any(side is not None and side % scale for side in sides):
            raise InputError(f"height and width must be multiples of {scale}, got {sides[0]} and {sides[1]}")
        height, width = (None if side is None else side // scale for side in sides)
        small = self.sample(replace(request, height=height, width=width, output_type="pt"), conditions)  # (B, 3, h, w)
        made = F.avg_pool2d(self.enlarged(small), most // scale)
        return made if request.output_type == "pt" else arrays_of(made) if request.output_type == "np" else pil_of(made)

    def enlarged(self, small: Tensor) -> Tensor:
        """Pictures (B, 3, h, w) in [0, 1] as large as the upscaler makes them."""
        assert self.upscaler is not None
        return (self.upscaler((2 * small - 1).to(self.upscaler.dtype)).float() / 2 + 0.5).clamp(0, 1)

    @takes_request
    def embed(self, request: Request) -> Embeddings:
        """Unit embeddings (B, d) of the prompts as they are drawn, mixed, with `notes`; 0 as `prior_strength` keeps them as
        they were encoded.
        """
        with collected() as notes:
            mixed = self.mixed(replace(request, pictures=1))[0]
        return Embeddings.of(mixed, notes)

    @torch.no_grad()
    def encoded(self, request: Request) -> Request:
        """The request with the unit embeddings that its prompts are encoded to, so that they are read only once."""
        return replace(request, prompts=encode_prompts(self.aligner, request.prompts))

    @torch.no_grad()
    def mixed(self, request: Request) -> tuple[Tensor, Request]:
        """Unit embeddings (B * pictures, d), prompt by prompt, and the request with what its files were encoded to.

        At a temperature of the prior each picture has its own; otherwise those of a prompt are equal.
        """
        if not request.prompts:
            raise InputError(f"nothing to draw: give at least one of {', '.join(self.aligner.modalities)} or embeds")
        kinds = {p.kind for inputs in request.prompts for p in inputs}
        if request.prior_strength and kinds == {"embeds"}:
            raise InputError("prior_strength moves prompts that are encoded; embeds are drawn where they are: leave it out")
        ready = self.encoded(request)
        self.tell_not_understood(ready)
        return self.points(ready), ready

    def points(self, ready: Request) -> Tensor:
        """`mixed`, of a request that is encoded."""
        if not temperature_of(self.prior, ready.prior_temperature):
            return mix_prompts(ready.prompts, ready, self.prior).repeat_interleave(ready.pictures, 0)
        rows = [inputs for inputs in ready.prompts for _ in range(ready.pictures)]
        draws = ready.generator
        if ready.seed is not None:
            draws = generators(ready.seed, len(ready.prompts), ready.pictures, stream=PRIOR_STREAM)
        return mix_prompts(rows, ready, self.prior, each(draws, len(rows)))

    def tell_not_understood(self, ready: Request) -> None:
        """A note on every encoded prompt that is like nothing the checkpoint knows."""
        known = understanding_in(checkpoint_folder(self))
        if known is None:
            return
        for prompt in (p for row in ready.prompts for p in row if p.kind != "embeds"):
            (found,) = known(prompt.embedding[None], prompt.kind)
            if not found.understood:
                tell("not understood", name=repr(prompt.name), guesses=", ".join(found.nearest))

    def alone(self, request: Request) -> list[Tensor]:
        """The unit embedding (d,) of every input of the first prompt as it is drawn alone."""
        single = [replace(request, pictures=1, prompts=((replace(p, weight=1.0),),), mix="lerp") for p in request.prompts[0]]
        return [self.mixed(one)[0][0] for one in single]

    def conditions(self, request: Request) -> tuple[Conditions, Request]:
        """What the decoder samples from, and the request as it was used."""
        if request.image_embeds is None:
            unit, request = self.mixed(request)
            wanted = self.embed_scale(unit)
        else:
            # repeated here, for every decoder alike: diffusers 0.42 does it in one place, not in another
            wanted = self.checked_embeds(request.image_embeds).repeat_interleave(request.pictures, 0)
        wanted = wanted.to(self._execution_device, self.decoder_dtype)
        count, prompts = len(wanted), len(wanted) // request.pictures
        generator = request.generator
        if request.seed is not None:
            generator = generators(request.seed, prompts, request.pictures)
        if isinstance(generator, list) and len(generator) != count:
            raise InputError(f"{len(generator)} generators for {count} pictures: give one, or one for each")
        latents = request.latents
        if latents is not None and (not isinstance(latents, Tensor) or latents.ndim != 4 or len(latents) != count):
            shape = tuple(getattr(latents, "shape", ())) or type(latents).__name__
            raise InputError(f"latents must be a tensor ({count}, channels, height, width), one for each picture, got {shape}")
        steps, guidance = self.steps_and_guidance(request)
        return Conditions(wanted, prompts, generator, steps, guidance), replace(request, steps=steps, guidance=guidance)

    def steps_and_guidance(self, request: Request) -> tuple[int, float]:
        """Those of a request, or the checkpoint's own where it names none."""
        return (
            self.config["default_steps"] if request.steps is None else request.steps,
            self.config["default_guidance"] if request.guidance is None else request.guidance,
        )

    def checked_embeds(self, image_embeds: Tensor) -> Tensor:
        """Embeddings (B, d) at decoder scale as they are, if that is what they are."""
        width = self.aligner.embed_dim
        if not isinstance(image_embeds, Tensor) or image_embeds.ndim != 2 or image_embeds.shape[1] != width:
            shape = tuple(getattr(image_embeds, "shape", ()))
            raise InputError(f"image_embeds must be a tensor of shape (B, {width}), got {shape or type(image_embeds).__name__}")
        if not torch.isfinite(image_embeds).all():
            raise InputError("image_embeds hold NaN or infinite values")
        return image_embeds

    @takes_count_and_request
    def best_of(self, count: int, request: Request) -> PictureOutput:
        """One picture a prompt: of `count` candidates the one that the image encoder reads as nearest to what was asked for.

        That is the prompt's mean after the prior. Choosing by a model is Ramesh et al. 2021's. Costs as much as drawing them
        all; `batch` are drawn at a time. With a `seed`, candidate j of prompt i is the picture j that the call itself draws
        with `num_images_per_prompt=count`.
        """
        return self.draw_best(count, request)

    @torch.no_grad()
    def draw_best(self, count: int, request: Request) -> PictureOutput:
        """`best_of`, of a request.

        Raises:
            InputError: as in a call; options that do not go with choosing; no image encoder.
        """
        plain = Request()
        for name, called in {"pictures": "num_images_per_prompt", **{n: n for n in NOT_CHOSEN}}.items():
            given = getattr(request, name)
            if given is not None and given != getattr(plain, name):
                raise InputError(f"best_of chooses one PIL picture a prompt: leave out {called}")
        if self.moving:
            raise InputError("best_of chooses among pictures, and this decoder draws clips: leave it out")
        if count < 1:
            raise InputError(f"candidates must be at least 1, got {count}")
        if count == 1:
            return self.draw(request)
        self.aligner.part("image")  # before anything is drawn in vain
        with collected() as notes:
            points, used = self.mixed(replace(request, prior_temperature=0.0))
            used = replace(used, prior_temperature=request.prior_temperature)
            drawn_from = self.points(replace(used, pictures=count))
            for name, rows in request.options.items():
                if isinstance(rows, list | tuple) and len(rows) != len(points):
                    raise InputError(f"{len(rows)} values of {name} for {len(points)} prompts: give one, or one for each")
            seeds = None if request.seed is None else first_seeds(request.seed, len(points), count)
            images, chosen = [], []
            for i, point in enumerate(points):
                best, nearest, at = None, -math.inf, 0
                one = replace(used.picture(i), prompts=(), prior_strength=None, seed=None)
                while at < count:
                    some = min(request.batch, count - at)
                    seed = None if seeds is None else tuple(seeds[i] + at + j for j in range(some))
                    noise = one.generator
                    if isinstance(noise, list):
                        noise = noise[i * count + at : i * count + at + some]
                    ready = tuple((Prompt("embeds", z),) for z in drawn_from[i * count + at :][:some])
                    drawn = self.draw(replace(one, prompts=ready, seed=seed, generator=noise)).images
                    cosines = self.aligner.embed("image", drawn) @ point.to(self.aligner.place.device)
                    if float(cosines.max()) > nearest:
                        best, nearest = at + int(cosines.argmax()), float(cosines.max())
                        picture = drawn[int(cosines.argmax())]
                    at += some
                images.append(picture)
                chosen.append(0 if seeds is None or best is None else seeds[i] + best)
        steps, guidance = self.steps_and_guidance(request)
        used = replace(used, steps=steps, guidance=guidance, seed=None if seeds is None else tuple(chosen))
        return PictureOutput(images=images, notes=notes, request=used)

    def interpolate(
        self,
        start: Tensor,
        end: Tensor,
        frames: int,
        mix: Method = "slerp",
        seed: int = 0,
        batch: int = 8,
        **options: Any,
    ) -> PictureOutput:
        """Pictures along the way between two embeddings (d,), so that only the prompt moves.

        Every frame's generator starts from the same seed: initial noise, noise on the embedding and noise of the sampler's
        steps are the same for all. `batch` frames are drawn at a time, which bounds the memory. `options` are those of a
        call.
        """
        parts = path(start, end, frames, mix).split(batch)
        with collected() as notes:
            drawn = [self.draw(ask(embeds=part, seed=[seed] * len(part), **options)).images for part in parts]
        if isinstance(drawn[0], list):
            return PictureOutput(images=[picture for part in drawn for picture in part], notes=notes)
        join = torch.cat if isinstance(drawn[0], Tensor) else np.concatenate
        return PictureOutput(images=join(drawn), notes=notes)


@contextmanager
def diffusers_checks() -> Iterator[None]:
    """What diffusers' own checks find, of sizes and the like, as one line."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(" ".join(str(error).split())) from error


def arrays_of(pixels: Tensor) -> np.ndarray:
    """Pictures (B, 3, h, w) in [0, 1] as (B, h, w, 3)."""
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def pil_of(pixels: Tensor) -> list[Any]:
    """Pictures (B, 3, h, w) in [0, 1] as PIL pictures."""
    return numpy_to_pil(arrays_of(pixels))


PRIOR_STREAM = 1 << 62  # so that the prior's numbers and the decoder's first noise have nothing to do with each other
NOT_CHOSEN = ("image_embeds", "output_type", "return_dict", "latents")  # options that do not go with `best_of`


@lru_cache(maxsize=8)
def understanding_in(folder: Path | None) -> Understanding | None:
    """What a checkpoint's folder says of which prompts it understands; None where it says nothing."""
    return None if folder is None else Understanding.from_checkpoint(folder)


def encode_prompts(aligner: Aligner, prompts: Sequence[Sequence[Prompt]]) -> tuple[tuple[Prompt, ...], ...]:
    """The same prompts with the unit embeddings (d,) of their values.

    Each modality is encoded in one go, an input that repeats only once; what has an embedding is not read again.
    """
    found: dict[tuple[str, Any], Tensor] = {}

    def key(prompt: Prompt) -> tuple[str, Any]:
        return prompt.kind, prompt.value if isinstance(prompt.value, str) else id(prompt.value)

    inputs = [p for row in prompts for p in row]
    for kind in dict.fromkeys(p.kind for p in inputs if p.kind != "embeds"):
        wanted = {key(p): p.value for p in inputs if p.kind == kind and p.embedding is None}
        if wanted:
            found.update(zip(wanted, aligner.embed(kind, list(wanted.values())), strict=True))

    def encoded(prompt: Prompt) -> Prompt:
        if prompt.kind == "embeds":
            return replace(prompt, embedding=checked_vector(prompt.value, aligner.embed_dim))
        if prompt.embedding is None:
            return replace(prompt, embedding=found[key(prompt)])
        unit = checked_vector(prompt.embedding, aligner.embed_dim, prompt.name)
        kept = torch.as_tensor(prompt.embedding, dtype=unit.dtype, device=unit.device)
        # one that is of norm 1 stays bit for bit what it was encoded to
        return replace(prompt, embedding=kept if torch.allclose(kept, unit, atol=1e-6) else unit)

    return tuple(tuple(encoded(p) for p in row) for row in prompts)


def mix_prompts(
    prompts: Sequence[Sequence[Prompt]], request: Request, prior: EmbeddingPrior | None, draws: Sequence[Any] | None = None
) -> Tensor:
    """Unit embeddings (B, d) of encoded prompts.

    The prior moves what was encoded, before it is mixed: weights keep their meaning, and ready embeddings stay what they are.
    `draws` are the generators (B) of what prompts leave open, at the request's temperature; without them it stays at its mean.
    """
    temperature = 0.0 if draws is None else temperature_of(prior, request.prior_temperature)
    move = move_to_known(prior, request.prior_strength, temperature)

    def points(row: Sequence[Prompt], draw: Any) -> list[Tensor]:
        vectors = [p.embedding for p in row]
        moved = [i for i, p in enumerate(row) if p.kind != "embeds"]
        if move is not None and moved:
            for i, vector in zip(moved, move(torch.stack([vectors[i] for i in moved]), draw), strict=True):
                vectors[i] = vector
        return [v.to(vectors[0].device) for v in vectors]

    mixed = zip(prompts, draws or [None] * len(prompts), strict=True)
    return torch.stack([mix(points(row, draw), [p.weight for p in row], request.mix) for row, draw in mixed])


def checked_vector(value: Any, width: int, name: str = "embeds") -> Tensor:
    """A ready embedding (d,) as a unit vector.

    Raises:
        InputError: another shape, not finite, or zero.
    """
    vector = as_vector(value)
    if vector.shape != (width,):
        what = "embeds must have" if name == "embeds" else f"{name} was kept for another model: this one has"
        raise InputError(f"{what} {width} values a prompt, got shape {tuple(vector.shape)}")
    return check_embedding(vector)


def as_vector(value: Any) -> Tensor:
    """One embedding as a tensor.

    Raises:
        InputError: it is no array of numbers.
    """
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"embeds must be vectors of numbers, got {type(value).__name__}") from error


def first_seeds(seed: int | Sequence[int], count: int, per_prompt: int) -> list[int]:
    """Each prompt's first seed: `seed + i * per_prompt`, or `seed[i]`.

    Raises:
        InputError: a list of seeds that does not fit the batch.
    """
    if isinstance(seed, int):
        return [seed + i * per_prompt for i in range(count)]
    if len(seed) != count:
        raise InputError(f"{len(seed)} seeds for {count} prompts: give one for each")
    return list(seed)


def generators(seed: int | Sequence[int], count: int, per_prompt: int, stream: int = 0) -> list[torch.Generator]:
    """One CPU generator a picture: prompt i, picture j draws from its prompt's first seed + j; other numbers in each stream."""
    seeds = [s + j for s in first_seeds(seed, count, per_prompt) for j in range(per_prompt)]
    return [torch.Generator().manual_seed(s ^ stream) for s in seeds]


def rows_of(name: str, given: str | Sequence[str] | None, prompts: int, pictures: int) -> list[str]:
    """Words for each picture, from one text for all or one a prompt.

    Raises:
        InputError: several texts, and another number of prompts.
    """
    each = [given or ""] * prompts if given is None or isinstance(given, str) else list(given)
    if len(each) != prompts:
        raise InputError(f"{len(each)} values of {name} for {prompts} prompts: give one, or one for each")
    return [row for row in each for _ in range(pictures)]


def step_end(request: Request) -> dict[str, Any]:
    """A request's callback as diffusers takes it, which wants to be given something back."""
    callback = request.callback_on_step_end
    return {
        "callback_on_step_end": None if callback is None else lambda *now: callback(*now) or {},
        "callback_on_step_end_tensor_inputs": list(request.callback_on_step_end_tensor_inputs),
    }
