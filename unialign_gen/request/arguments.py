"""The keyword arguments of a call, as a `Request`: how prompts and weights are written, said once for every method."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from ..errors import InputError
from .request import OPTIONS, Mix, Options, OutputType, Prompt, Request, checked, plain, short

Weights = Mapping[str, float | Sequence[float]] | Sequence[float] | float


def inputs_of(kind: str, value: Any) -> list[tuple[Any, ...]]:
    """A modality's argument as the inputs of each prompt: a list is a batch, a tuple a mix inside one prompt.

    But `(rate, samples)` is one sound, as gradio and SciPy hand it over.
    """

    def mixed(item: Any) -> bool:
        sound = kind == "audio" and isinstance(item, tuple) and len(item) == 2 and hasattr(item[1], "__len__")
        return isinstance(item, tuple) and not (sound and isinstance(plain(item[0]), int | float))

    if kind == "embeds" and hasattr(value, "ndim"):
        value = list(value) if value.ndim == 2 else [value]
    batch = value if isinstance(value, list) else [value]
    if not batch:
        raise InputError(f"{kind} is an empty list")
    if any(mixed(item) and not item for item in batch):
        raise InputError(f"{kind} has an empty tuple: nothing to mix")
    return [item if mixed(item) else (item,) for item in batch]


def weights_of(name: str, weight: Any, count: int) -> list[float]:
    """The weights of `count` inputs: one for each, or one for all."""
    weight = plain(weight)
    if isinstance(weight, int | float):
        weight = [weight] * count
    elif isinstance(weight, str | bytes | Mapping) or not hasattr(weight, "__iter__"):
        raise InputError(f"weights must be numbers, got {short(weight)} for {name}")
    values = [plain(v) for v in weight]
    bad = [v for v in values if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v)]
    if bad:
        raise InputError(f"weights must be finite numbers, got {short(bad[0])} for {name}")
    if len(values) != count:
        raise InputError(f"{len(values)} weights for {count} {name} inputs: give one for each, or one for all")
    return [float(v) for v in values]


def prompts_of(given: Mapping[str, Any], weights: Weights | None) -> tuple[tuple[Prompt, ...], ...]:
    """The inputs of every prompt of a batch.

    Args:
        given: modality to one input, a tuple of inputs (mixed) or a list (a batch) of either.
        weights: modality to weight; or, without names, one for each input in their order, or one for all.

    Raises:
        InputError: lists of different lengths, or weights that do not match the inputs.
    """
    rows = {kind: inputs_of(kind, value) for kind, value in given.items() if value is not None}
    lengths = {kind: len(batch) for kind, batch in rows.items() if len(batch) > 1}
    if len(set(lengths.values())) > 1:
        raise InputError(f"lists of different lengths: {lengths}")
    named = weights if isinstance(weights, Mapping) else {}
    unknown = [str(kind) for kind in named if kind not in rows]
    if unknown:
        raise InputError(f"a weight for {', '.join(sorted(unknown))}, but no such prompt was given")
    prompts = []
    for i in range(max(lengths.values(), default=1) if rows else 0):
        inputs: list[Prompt] = []
        for kind, batch in rows.items():
            row = batch[i if len(batch) > 1 else 0]
            values = weights_of(kind, named.get(kind, 1.0), len(row))
            inputs += [Prompt(kind, value, weight) for value, weight in zip(row, values, strict=True)]
        if weights is not None and not isinstance(weights, Mapping):
            inputs = [replace(p, weight=w) for p, w in zip(inputs, weights_of("prompt", weights, len(inputs)), strict=True)]
        prompts.append(tuple(inputs))
    return tuple(prompts)


def ask(
    text: Any = None,
    audio: Any = None,
    video: Any = None,
    image: Any = None,
    embeds: Any = None,
    image_embeds: Any = None,
    weights: Weights | None = None,
    mix: Mix = "lerp",
    prior_strength: float | None = None,
    seed: int | Sequence[int] | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    latents: Any = None,
    height: int | None = None,
    width: int | None = None,
    prior_temperature: float | None = None,
    upscale: Literal[1, 2, 4, 8] | None = None,
    best_of: int | None = None,
    output_type: OutputType = "pil",
    return_dict: bool = True,
    callback_on_step_end: Callable[..., Any] | None = None,
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    batch: int = 8,
    decoder_prompt: str | Sequence[str] | None = None,
    negative_decoder_prompt: str | Sequence[str] | None = None,
    noise_level: int | None = None,
    eta: float | None = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    **others: Any,
) -> Request:
    """The arguments of a call, checked.

    Args:
        text: a string, which may also be called `prompt`. audio, video, image: a file or an array, see `media`.
            embeds: a vector (d,) of any norm. A list of any of these is a batch (lists of one length; a single input joins
            every prompt of it), a tuple is a mix inside one prompt; so a video that is a list of pictures stands in a list.
        image_embeds: embeddings (B, d) at the decoder's own scale, used as they are in place of any prompt.
        weights: modality to weight, or to a sequence of weights for a tuple; without names one for each input in order.
            Equal by default, negative allowed.
        mix: `lerp`, `slerp` or `spherical_mean`, see `mixing.mix`; or `beside`, each input in a strip of the picture as wide
            as its weight.
        prior_strength: 0 to 1, how far prompts move towards what the decoder knows, see `EmbeddingPrior`; the checkpoint's
            own by default. `embeds` and `image_embeds` stay where they are.
        prior_temperature: how far what a prompt leaves open differs from seed to seed: 0 is the mean of what it may mean, 1
            differs as real pictures of a thing do; by default the checkpoint's own for pictures, 0 for embeddings.
        seed: prompt i, picture j draws from `seed + i * num_images_per_prompt + j`; a sequence gives one a prompt. Where none
            is given the result's request has the one that was drawn.
        num_inference_steps, guidance_scale: the checkpoint's own by default; guidance 1 or less turns it off.
        generator, latents, callback_on_step_end: as in diffusers; latents (B * n, C, h, w) of unit variance. The callback
            may return new `latents`, or None; of things that are drawn alone and of several noises it sees the first of each
            picture.
        height, width: of the pictures in pixels; the decoder's own by default.
        upscale: 1, 2, 4 or 8 times the decoder's own size, where the checkpoint has an upscaler; all that it can by default.
        output_type: `pil`; `np` (B, H, W, 3) or `pt` (B, 3, H, W) in [0, 1]; `latent`.
        return_dict: False for a tuple of the images alone.
        best_of: draws each picture from so many noises and keeps the one that the image encoder reads as nearest to what was to
            be drawn; the checkpoint's own number by default, 1 for embeddings. Seeds differ as much as without it.
        batch: pictures that `best_of` and `interpolate` draw at a time.
        decoder_prompt, negative_decoder_prompt: words for a decoder's own text input, one for all or one a prompt; they do
            not move the embedding.
        noise_level: of Stable UnCLIP, noise on the embedding, 0 to 999, more for more variation.
        eta, cross_attention_kwargs: as in diffusers.
        others: prompts of modalities of one's own, by name.

    Raises:
        InputError: an argument that cannot be used; one line says which and why.

    Example:
        >>> request = ask(text="a robot", audio="cow.flac", weights={"text": 0.6, "audio": 0.4}, seed=3)
        >>> [(p.kind, p.weight) for p in request.prompts[0]]
        [('text', 0.6), ('audio', 0.4)]
    """
    if "prompt" in others:
        if text is not None:
            raise InputError("prompt is another name of text: give one of them")
        text = others.pop("prompt")
    given = {"text": text, "audio": audio, "video": video, "image": image, "embeds": embeds, **others}
    if image_embeds is not None:
        own = {"mix": None if mix == "lerp" else mix, "weights": weights}
        own |= {"prior_strength": prior_strength, "prior_temperature": prior_temperature}
        unwanted = [k for k, v in {**given, **own}.items() if v is not None]
        if unwanted:
            raise InputError(
                f"image_embeds are used as they are: leave out {', '.join(unwanted)}, or give them as embeds to mix"
            )
    if seed is not None and (generator is not None or latents is not None):
        raise InputError("give a seed, a generator or latents, not several of them")
    every = generator if isinstance(generator, list | tuple) else [generator]
    if generator is not None and not all(hasattr(one, "manual_seed") for one in every):
        raise InputError(f"generator must be a torch.Generator, or a list of them, got {short(generator)}")
    values = (decoder_prompt, negative_decoder_prompt, noise_level, eta, cross_attention_kwargs)
    return checked(
        Request,
        prompts=prompts_of(given, weights),
        mix=mix,
        prior_strength=prior_strength,
        prior_temperature=prior_temperature,
        seed=seed,
        steps=num_inference_steps,
        guidance=guidance_scale,
        pictures=num_images_per_prompt,
        height=height,
        width=width,
        upscale=upscale,
        best_of=best_of,
        batch=batch,
        options=Options.given(dict(zip(OPTIONS, values, strict=True))),
        image_embeds=image_embeds,
        generator=generator,
        latents=latents,
        callback_on_step_end=callback_on_step_end,
        callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        output_type=output_type,
        return_dict=return_dict,
    )


P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


def _takes(build: Callable[P, Request]) -> Callable[[Callable[[S, Request], R]], Callable[Concatenate[S, P], R]]:
    """Gives a method of a request the parameters that build one, which an editor shows."""

    def taking(method: Callable[[S, Request], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def call(self: S, *args: P.args, **options: P.kwargs) -> R:
            return method(self, build(*args, **options))

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        call.__signature__ = inspect.Signature([own, *inspect.signature(build).parameters.values()])  # type: ignore[attr-defined]
        said = (inspect.cleandoc(part.__doc__ or "") for part in (method, build))
        call.__doc__ = "{}\n\n{}".format(next(said), next(said).split("\n", 2)[2])
        return call

    return taking


takes_request = _takes(ask)  # a method of a Request, called with the arguments of `ask`
