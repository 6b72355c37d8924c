"""The command line. Heavy imports wait until a command needs them, so that `--help` answers at once."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import InputError

if TYPE_CHECKING:
    from .pipelines import UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline

app = typer.Typer(
    help="Text, sound, video, pictures and mixes of them, to pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate = typer.Typer(help="Measure a checkpoint.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluate, name="eval")


BATCH = 8  # pictures drawn at a time


class Mix(str, Enum):
    lerp = "lerp"
    slerp = "slerp"
    spherical_mean = "spherical_mean"


Checkpoint = Annotated[str, typer.Option(help="starter, stable-unclip, kandinsky, or a folder that save_pretrained wrote.")]
Decoder = Annotated[str | None, typer.Option(help="The starter's decoder: kandinsky (its first) or stable-unclip.")]
Source = Annotated[
    list[str] | None,
    typer.Option(
        help="PART=FOLDER, FILE or REPOSITORY[@REVISION] of a published checkpoint; parts: decoder, image, text, audio ..."
    ),
]
AcceptLicense = Annotated[bool, typer.Option("--accept-license", help="Use parts whose licence is not permissive.")]
Text = Annotated[list[str] | None, typer.Option(help="A text prompt. Options of one kind can be repeated: they are mixed.")]
Audio = Annotated[list[Path] | None, typer.Option(help="A sound file, or a video's sound track.")]
Video = Annotated[list[Path] | None, typer.Option(help="A video file; its sound counts for three tenths.")]
Image = Annotated[list[Path] | None, typer.Option(help="A picture file.")]
Weight = Annotated[
    list[str] | None, typer.Option(help="KIND=NUMBER, such as text=0.7; KIND=N,N for repeated options; negative allowed.")
]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; the checkpoint's own by default.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance; 1 turns it off.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same picture.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps ...")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MixOption = Annotated[Mix, typer.Option(help="How prompts are mixed.")]


def show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if category is UserWarning:
        sys.stderr.write(f"warning: {message}\n")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """What the user got wrong is one line on stderr and exit code 2; a warning is one line too."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        warnings.showwarning = show_warning  # type: ignore[assignment]
        try:
            command(*args, **kwargs)
        except InputError as error:
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            raise typer.Exit(2) from error
        except Exception as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's; not imported here
                raise
            sys.stderr.write("error: the device's memory is full: use --dtype float16, fewer pictures or another --device\n")
            raise typer.Exit(2) from error

    return run


def parse_weights(entries: list[str] | None) -> dict[str, tuple[float, ...] | float]:
    """`["text=0.7", "audio=1,-0.5"]` -> `{"text": 0.7, "audio": (1.0, -0.5)}`."""
    out: dict[str, tuple[float, ...] | float] = {}
    for entry in entries or []:
        kind, equals, numbers = entry.partition("=")
        try:
            values = tuple(float(n) for n in numbers.split(","))
        except ValueError:
            values = ()
        if not equals or not values or kind not in ("text", "audio", "video", "image"):
            raise InputError(f"--weight {entry!r}: write text=0.7, audio=0.3, video=... or image=...")
        if kind in out:
            raise InputError(f"--weight {kind} is given twice")
        out[kind] = values if len(values) > 1 else values[0]
    return out


def check_weights(weights: dict[str, tuple[float, ...] | float], given: dict[str, tuple[Any, ...]]) -> None:
    """Whether the weights fit the prompts, before anything is loaded; the pipeline would say the same, later."""
    for kind, value in weights.items():
        values = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(v) for v in values):
            raise InputError(f"--weight {kind}: weights must be finite numbers")
        if kind not in given:
            raise InputError(f"--weight {kind}: no such prompt was given")
        if len(values) not in (1, len(given[kind])):
            raise InputError(
                f"--weight {kind}: {len(values)} weights for {len(given[kind])} inputs: give one for each, or one for all"
            )


def prompts(
    text: list[str] | None, audio: list[Path] | None, video: list[Path] | None, image: list[Path] | None
) -> dict[str, tuple[Any, ...]]:
    """The prompt options that were given, as tuples, which a pipeline mixes."""
    given = {"text": text, "audio": audio, "video": video, "image": image}
    found = {kind: tuple(str(v) for v in values) for kind, values in given.items() if values}
    if not found:
        raise InputError("nothing to draw: give --text, --audio, --video or --image")
    for kind, values in found.items():
        for value in values:
            check_prompt(kind, value)
    return found


def check_prompt(kind: str, value: str) -> None:
    """What can be seen to be wrong before anything heavy is loaded."""
    from .media import check_file

    if kind == "text":
        if not value.strip():
            raise InputError("a text prompt is empty")
    else:
        check_file(value)


def check_output(path: Path, suffixes: tuple[str, ...]) -> Path:
    if path.suffix.lower() not in suffixes:
        raise InputError(f"--out {path}: the name must end in {', '.join(suffixes)}")
    if not path.resolve().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")
    return path


def parse_sources(entries: list[str] | None) -> dict[str, str]:
    """`["decoder=FOLDER"]` -> `{"decoder": "FOLDER"}`."""
    out = {}
    for entry in entries or []:
        part, equals, value = entry.partition("=")
        if not equals or not value:
            raise InputError(f"--source {entry!r}: write PART=FOLDER, such as decoder=/models/unclip")
        out[part] = value
    return out


def check_device(device: str) -> None:
    """Whether this machine has it."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device!r} is not available here") from error


def load(
    checkpoint: str,
    device: str,
    dtype: str,
    decoder: str | None = None,
    source: list[str] | None = None,
    accept_license: bool = False,
) -> UniAlignKandinskyPipeline | UniAlignStableUnCLIPPipeline:
    from .checkpoint import find

    find(checkpoint, decoder)
    sources = parse_sources(source)
    import torch
    from diffusers.utils import logging
    from transformers.utils import logging as logging_of_transformers

    from . import load as load_pipeline

    logging.disable_progress_bar()
    logging_of_transformers.disable_progress_bar()

    check_device(device)
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in kinds:
        raise InputError(f"--dtype {dtype!r}: choose from {', '.join(kinds)}")
    pipeline = load_pipeline(
        checkpoint,
        device=device,
        dtype=kinds[dtype],
        decoder=decoder,
        sources=sources,
        accept_license=accept_license,
    )
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), leave=False)
    return pipeline


def report(result: dict[str, Any], as_json: bool, line: str) -> None:
    typer.echo(json.dumps(result) if as_json else line)


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
    steps: Steps = None,
    guidance: Guidance = None,
    num_images: Annotated[int, typer.Option(min=1, max=1000, help="How many pictures.")] = 1,
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
    pipeline = load(checkpoint, device, dtype, decoder, source, accept_license)
    pictures: list[Any] = []
    for at in range(0, num_images, BATCH):
        pictures += pipeline(
            **given,
            weights=weights,
            mix=mix.value,
            seed=seed + at,
            num_inference_steps=steps,
            guidance_scale=guidance,
            num_images_per_prompt=min(BATCH, num_images - at),
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
    out: Annotated[Path, typer.Option(help="By its suffix: .gif, .mp4, or .png for a row of pictures.")] = Path("morph.gif"),
    mix: MixOption = Mix.slerp,
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    source: Source = None,
    accept_license: AcceptLicense = False,
    steps: Steps = None,
    guidance: Guidance = None,
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
    pipeline = load(checkpoint, device, dtype, decoder, source, accept_license)
    a, b = (pipeline.embed(**e)[0] for e in ends)
    pictures = pipeline.interpolate(
        a, b, frames, mix=mix.value, seed=seed, num_inference_steps=steps, guidance_scale=guidance
    ).images
    from .sheets import save_sequence

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
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Write the unit embedding of each input, and of their mix, to a file."""
    weights = parse_weights(weight)
    given = prompts(text, audio, video, image)
    check_weights(weights, given)
    check_output(out, (".safetensors",))
    pipeline = load(checkpoint, device, dtype, None, source, accept_license)
    from safetensors.torch import save_file

    tensors = {kind: pipeline.embed(**{kind: list(values)}).cpu().contiguous() for kind, values in given.items()}
    parts = {kind: tuple(tensors[kind]) for kind in given}
    flat = tuple(e for rows in parts.values() for e in rows)
    shares: list[float] = []
    for kind, rows in parts.items():
        value = weights.get(kind, 1.0)
        shares += [value] * len(rows) if isinstance(value, float) else list(value)
    tensors["mix"] = pipeline.embed(embeds=flat, weights={"embeds": shares}, mix=mix.value).cpu().contiguous()
    save_file(tensors, out, metadata={"checkpoint": checkpoint, "normalised": "true"})
    shapes = {k: list(v.shape) for k, v in tensors.items()}
    report({"file": str(out), "shapes": shapes}, as_json, f"{out}: {', '.join(f'{k} {v}' for k, v in shapes.items())}")


@app.command()
@guarded
def models(as_json: AsJson = False) -> None:
    """List the checkpoints: what each needs, and what of that is on this disk."""
    from .checkpoint import describe

    rows = describe()
    lines = []
    for row in rows:
        here = "on this disk" if row["on_disk"] else "not complete"
        size = f"{row['bytes'] / 1e6:.0f} MB" if "bytes" in row else ""
        lines.append(f"{row['name']:<14} {here:<13} {row['pipeline'] or '':<30} {size}".rstrip())
        for part, need in row.get("needs", {}).items():
            found = "here" if need["on_disk"] else "missing"
            lines.append(
                f"  {part:<12} {found:<13} {need['source'] or 'no public source, give --source':<50} {need['licence']}"
            )
    report({"models": rows}, as_json, "\n".join(lines))


@app.command()
@guarded
def calibrate(
    images: Annotated[Path, typer.Option(help="A folder of pictures, a few hundred like those you will make.")],
    checkpoint: Checkpoint = "stable-unclip",
    out: Annotated[Path | None, typer.Option(help="A folder; by default where the checkpoint looks for it.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many pictures.")] = 1000,
    source: Source = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure the norm of raw image embeddings, which a published decoder needs, and write it as its embed_scale."""
    from .checkpoint import calibration_folder, find, image_part, unconditional_is_zero

    folder = find(checkpoint)
    if not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: this is a file, give a folder")
    check_device(device)
    from .calibrate import measure, pictures_in
    from .pipelines import EmbedScale

    files = pictures_in(images)[:limit]
    part = image_part(checkpoint, parse_sources(source)).to(device)
    found = measure(part, files)
    place = out or (calibration_folder(checkpoint) if not (folder / "aligner").is_dir() else folder / "embed_scale")
    scale = EmbedScale(part.tower.dim, found.embed_norm, found.embed_norm_std)
    if not unconditional_is_zero(folder):
        scale.negative_image_embeds.copy_(found.negative)
    scale.save_pretrained(place)
    result = {
        "embed_norm": found.embed_norm,
        "embed_norm_std": found.embed_norm_std,
        "count": found.count,
        "skipped": found.skipped,
        "folder": str(place),
    }
    norm = f"embed_norm {found.embed_norm:.4f}, spread {found.embed_norm_std:.4f}"
    report(result, as_json, f"{norm}, {found.count} pictures, {len(found.skipped)} skipped\n{place}")


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="A PNG file.")] = Path("demo.png"),
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    as_json: AsJson = False,
) -> None:
    """Draw a labelled sheet of examples: words, sounds, mixes, a video, a way between two prompts."""
    check_output(out, (".png",))
    pipeline = load(checkpoint, "cpu", "float32", decoder)
    from .showcase import draw_sheet

    draw_sheet(pipeline).save(out)
    report({"files": [str(out)]}, as_json, str(out))


@evaluate.command()
@guarded
def concepts(
    checkpoint: Checkpoint = "starter",
    decoder: Decoder = None,
    data: Annotated[Path | None, typer.Option(help="The data set that the recipe builds.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many prompts of each kind.")] = 200,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Share of generated pictures that an independent judge assigns to the prompt's concept."""
    from .checkpoint import find

    find(checkpoint, decoder)
    from .eval.concepts import evaluate as run
    from .eval.concepts import table
    from .eval.data import data_root

    root = data_root(data)
    pipeline = load(checkpoint, "cpu", "float32", decoder)
    pipeline.set_progress_bar_config(disable=True)
    result = run(pipeline, root, limit=limit, seed=seed)
    report(result, as_json, table(result))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
