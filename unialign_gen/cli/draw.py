"""Pictures and embeddings of prompts: `generate`, `interpolate`, `embed`, `showcase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import app, check_output, guarded, report
from .loading import load
from .options import (
    AcceptLicense,
    AsJson,
    Audio,
    BestOf,
    Checkpoint,
    Decoder,
    Device,
    Dtype,
    Guidance,
    Heads,
    Image,
    Mix,
    MixOption,
    PriorStrength,
    Seed,
    Source,
    Steps,
    Text,
    Variant,
    Video,
    Weight,
)
from .prompts import check_prompt, check_weights, parse_weights, prompts

BATCH = 8  # pictures drawn at a time


@app.command()
@guarded
def generate(
    text: Text = None,
    audio: Audio = None,
    video: Video = None,
    image: Image = None,
    weight: Weight = None,
    out: Annotated[Path, typer.Option(help="A PNG, JPEG or WebP file; several pictures get -1, -2 ...")] = Path("out.png"),
    mix: MixOption = Mix.lerp,
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    heads: Heads = None,
    variant: Variant = None,
    steps: Steps = None,
    guidance: Guidance = None,
    prior_strength: PriorStrength = None,
    num_images: Annotated[int, typer.Option(min=1, max=1000, help="How many pictures.")] = 1,
    best_of: BestOf = 1,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Draw one prompt, which may mix several inputs."""
    weights = parse_weights(weight)
    given = prompts(text, audio, video, image)
    check_weights(weights, given)
    check_output(out, (".png", ".jpg", ".jpeg", ".webp"))
    pipeline = load(checkpoint, device, dtype, decoder, source, accept_license, heads, variant)
    wanted = pipeline.embed(**given, weights=weights, mix=mix.value, prior_strength=prior_strength)[0]
    together = max(1, BATCH // best_of)
    pictures: list[Any] = []
    for at in range(0, num_images, together):
        pictures += pipeline.best_of(
            best_of,
            embeds=[wanted] * min(together, num_images - at),
            seed=seed + at * best_of,
            num_inference_steps=steps,
            guidance_scale=guidance,
        ).images
    names = [out] if num_images == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(num_images)]
    for name, picture in zip(names, pictures, strict=True):
        picture.save(name)
    files = [str(n) for n in names]
    report({"files": files, "seed": seed, "checkpoint": checkpoint}, as_json, "\n".join(files))


@app.command()
@guarded
def interpolate(
    start: Annotated[str, typer.Option("--from", help="KIND:VALUE, such as text:'a cat' or audio:thunder.wav.")],
    end: Annotated[str, typer.Option("--to", help="KIND:VALUE.")],
    frames: Annotated[int, typer.Option(min=2, max=1000, help="Pictures, both ends included.")] = 16,
    out: Annotated[Path, typer.Option(help="By its suffix: .gif, .mp4, or .png for a grid of pictures.")] = Path("morph.gif"),
    mix: MixOption = Mix.slerp,
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    heads: Heads = None,
    variant: Variant = None,
    steps: Steps = None,
    guidance: Guidance = None,
    prior_strength: PriorStrength = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Draw the way between two prompts, all from one noise."""
    check_output(out, (".png", ".gif", ".mp4"))
    ends = []
    for option, entry in (("--from", start), ("--to", end)):
        kind, colon, value = entry.partition(":")
        if not colon or kind not in ("text", "audio", "video", "image"):
            raise InputError(f"{option} {entry!r}: write text:WORDS, audio:FILE, video:FILE or image:FILE")
        check_prompt(kind, value)
        ends.append({kind: value})
    pipeline = load(checkpoint, device, dtype, decoder, source, accept_license, heads, variant)
    a, b = (pipeline.embed(**e, prior_strength=prior_strength)[0] for e in ends)
    pictures = pipeline.interpolate(
        a, b, frames, mix=mix.value, seed=seed, num_inference_steps=steps, guidance_scale=guidance
    ).images
    from ..sheets import save_sequence

    save_sequence(pictures, out)
    report({"files": [str(out)], "frames": frames, "seed": seed}, as_json, str(out))


@app.command()
@guarded
def embed(
    text: Text = None,
    audio: Audio = None,
    video: Video = None,
    image: Image = None,
    weight: Weight = None,
    out: Annotated[Path, typer.Option(help="A safetensors file.")] = Path("embedding.safetensors"),
    mix: MixOption = Mix.lerp,
    checkpoint: Checkpoint = "starter",
    source: Source = None,
    accept_license: AcceptLicense = False,
    heads: Heads = None,
    variant: Variant = None,
    prior_strength: PriorStrength = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Write the unit embedding of each input as it is drawn, and of their mix; with --prior-strength 0 as it was encoded."""
    weights = parse_weights(weight)
    given = prompts(text, audio, video, image)
    check_weights(weights, given)
    check_output(out, (".safetensors",))
    pipeline = load(checkpoint, device, dtype, None, source, accept_license, heads, variant)
    from safetensors.torch import save_file

    from ..pipelines.prior import strength_of

    strength = {"prior_strength": prior_strength}
    tensors = {kind: pipeline.embed(**{kind: list(values)}, **strength).cpu().contiguous() for kind, values in given.items()}
    parts = {kind: tuple(tensors[kind]) for kind in given}
    flat = tuple(e for rows in parts.values() for e in rows)
    shares: list[float] = []
    for kind, rows in parts.items():
        value = weights.get(kind, 1.0)
        shares += [value] * len(rows) if isinstance(value, float) else list(value)
    tensors["mix"] = pipeline.embed(embeds=flat, weights={"embeds": shares}, mix=mix.value).cpu().contiguous()
    strength_used = str(strength_of(pipeline.prior, prior_strength))
    save_file(tensors, out, metadata={"checkpoint": checkpoint, "normalised": "true", "prior_strength": strength_used})
    shapes = {k: list(v.shape) for k, v in tensors.items()}
    report({"file": str(out), "shapes": shapes}, as_json, f"{out}: {', '.join(f'{k} {v}' for k, v in shapes.items())}")


@app.command()
@guarded
def showcase(
    out: Annotated[Path, typer.Option(help="A PNG file.")] = Path("showcase.png"),
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    best_of: BestOf = 4,
    as_json: AsJson = False,
) -> None:
    """Draw a labelled sheet of examples: words, sounds, mixes, a video, a way between two prompts."""
    check_output(out, (".png",))
    pipeline = load(checkpoint, "cpu", "float32", decoder)
    from ..showcase import draw_sheet

    draw_sheet(pipeline, best_of=best_of).save(out)
    report({"files": [str(out)]}, as_json, str(out))
