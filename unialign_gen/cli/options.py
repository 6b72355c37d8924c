"""Options that several commands share, those that go together as one parameter, see `console.flat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def checkpoint_names() -> list[str]:
    """For the shell's completion."""
    from ..loading.folders import PUBLISHED, SHIPPED

    return [*SHIPPED, *PUBLISHED]


def config_names() -> list[str]:
    """For the shell's completion, which falls back on files."""
    from ..configs import configs_folder

    return sorted(path.stem for path in configs_folder().glob("*.yaml"))


Checkpoint = Annotated[
    str,
    typer.Option(
        help="starter, a published one (`models` lists them), a folder that save_pretrained wrote, or OWNER/NAME[@REVISION].",
        autocompletion=checkpoint_names,
    ),
]
Decoder = Annotated[
    str | None,
    typer.Option(help="The starter's decoder: kandinsky (its first), kandinsky-distilled (4 steps) or stable-unclip."),
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        help="PART=FOLDER, FILE or REPOSITORY[@REVISION] of a published checkpoint; parts: decoder, lora, image, text ..."
    ),
]
AcceptLicense = Annotated[bool, typer.Option("--accept-license", help="Use parts whose licence is not permissive.")]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; the checkpoint's own by default.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance; 1 turns it off.")]
PriorStrength = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="How far prompts move towards what the decoder knows; 0 draws them as they are. The checkpoint's own by default.",
    ),
]
PriorTemperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=2,
        help="How far what a prompt leaves open differs from seed to seed; 0 draws the mean. The checkpoint's own by default.",
    ),
]
Upscale = Annotated[
    int | None,
    typer.Option(help="1, 2, 4 or 8 times the decoder's own size, where there is an upscaler; all that it can by default."),
]
BestOf = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Draw from so many noises and keep what the image encoder reads as nearest."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same picture.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps ...; auto takes a GPU where there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16; auto is float16 on a GPU.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Way = Annotated[Literal["lerp", "slerp", "spherical_mean"], typer.Option(help="How points between the two are found.")]
MixOption = Annotated[
    Literal["lerp", "slerp", "spherical_mean", "beside"],
    typer.Option(help="How prompts are mixed; beside: each in a strip of the picture as wide as its weight."),
]
Config = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or the name of a configuration that comes with the package, such as clips.",
        autocompletion=config_names,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE in place of what the file says, such as corpus.limit=100; repeatable."),
]
Heads = Annotated[Path | None, typer.Option(help="A training run, whose heads replace the checkpoint's own.")]
NoOverwrite = Annotated[bool, typer.Option("--no-overwrite", help="Stop if the output is there already.")]


@dataclass
class Prompts:
    """What is mixed in one prompt."""

    text: Annotated[
        list[str] | None, typer.Option(help="A text prompt. Options of one kind can be repeated: they are mixed.")
    ] = None
    audio: Annotated[list[Path] | None, typer.Option(help="A sound file, or a video's sound track.")] = None
    video: Annotated[list[Path] | None, typer.Option(help="A video file; its sound counts for three tenths.")] = None
    image: Annotated[list[Path] | None, typer.Option(help="A picture file.")] = None
    weight: Annotated[
        list[str] | None, typer.Option(help="KIND=NUMBER, such as text=0.7; KIND=N,N for repeated options; negative allowed.")
    ] = None


@dataclass
class Part:
    """What counts of every sound and video."""

    start: Annotated[
        float, typer.Option(min=0, help="Seconds into the sound or video at which the part that counts begins.")
    ] = 0.0
    seconds: Annotated[float | None, typer.Option(help="Only so much of the sound or video; to its end by default.")] = None
    track: Annotated[
        int | None, typer.Option(min=0, help="Which of several tracks, counted from 0; by default the file's own choice.")
    ] = None


@dataclass
class Space:
    """The encoders of a checkpoint."""

    checkpoint: Checkpoint = "starter"
    source: Source = None
    accept_license: AcceptLicense = False
    device: Device = "cpu"


@dataclass
class Model(Space):
    """A checkpoint with its decoder."""

    dtype: Dtype = "float32"
    decoder: Decoder = None
    heads: Heads = None
    variant: Annotated[
        str | None, typer.Option(help="Of the weight files, such as fp16; taken by itself where a folder has no other weights.")
    ] = None


@dataclass
class Sampling:
    """How a decoder draws."""

    steps: Steps = None
    guidance: Guidance = None
    prior_strength: PriorStrength = None
    seed: Seed = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """As a pipeline's call names them."""
        named = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        return {"seed": self.seed, "prior_strength": self.prior_strength, **named}
