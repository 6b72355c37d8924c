"""Seconds an item of what the guides in docs/ do, at full size with random weights, and the minutes that follow.

    python benchmarks/costs.py --device cuda --dtype float16
    python benchmarks/costs.py --device cpu --only vit-h --repeats 1        (3 GB; ViT-bigG needs 8)

On a processor they are the seconds of one core, whatever else it does meanwhile. Networks are built from their published sizes,
so nothing is downloaded. Decoding a clip is measured by `extraction.py`; how long a picture takes depends on decoder and steps:
draw one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
import typer
from accelerate import init_empty_weights
from timing import seconds

from unialign_gen.encoders.beats import BEATs
from unialign_gen.encoders.open_clip import OpenClip, description
from unialign_gen.encoders.registry import NOWHERE
from unialign_gen.encoders.yamnet import YAMNet
from unialign_gen.heads import Head
from unialign_gen.objectives import build

CLIPS, FRAMES, EPOCHS = 160_000, 8, 50  # of VGGSound's 199,467 clips about a fifth is gone
ROWS = 512  # of a training step
SPACES = {"vit-h": ("ViT-H-14", 1024), "bigg": ("ViT-bigG-14", 1280)}


def median(run: Callable[[], Any], device: str, repeats: int) -> float:
    """Seconds of a run; of a processor those of its cores."""
    return seconds(run, repeats, time.process_time if device == "cpu" else time.perf_counter, device)


def of_encoder(make: Callable[[], Any], inputs: torch.Tensor, device: str, dtype: torch.dtype, repeats: int) -> float:
    """Seconds an input."""
    with init_empty_weights(include_buffers=False):
        encoder = make()
    drawn = {
        k: torch.empty(v.shape, dtype=dtype, device=device).normal_(std=0.02)
        for k, v in encoder.state_dict().items()
        if v.is_meta
    }
    encoder.load_state_dict(drawn, strict=False, assign=True)
    encoder = encoder.to(device, dtype).eval()
    given = inputs.to(device, dtype if inputs.is_floating_point() else inputs.dtype)
    with torch.no_grad():
        return median(lambda: encoder(given), device, repeats) / len(inputs)


def of_training(width: int, device: str, repeats: int) -> float:
    """Seconds a step of the shipped generation recipes: two heads, a frozen anchor, UniAlign."""
    heads = torch.nn.ModuleDict({m: Head(width, width, 2048, 0.1) for m in ("text", "audio")}).to(device)
    objective = build("unialign", anchor="video").to(device)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=2e-5)
    x = torch.randn(ROWS, width, device=device)

    def step() -> None:
        optimiser.zero_grad()
        normalise = torch.nn.functional.normalize
        z = {m: normalise(head(x), dim=1) for m, head in heads.items()} | {"video": normalise(x, dim=1)}
        objective(z).backward()
        optimiser.step()

    return median(step, device, repeats)


def main(
    device: Annotated[str, typer.Option(help="cpu, cuda ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the encoders: float32, float16 or bfloat16.")] = "float32",
    only: Annotated[str | None, typer.Option(help="vit-h or bigg; both by default.")] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Items that an encoder sees at once.")] = 4,
) -> None:
    """A row for each thing that a guide does: seconds an item, items, minutes."""
    kind = getattr(torch, dtype)
    mels = torch.randn(batch, 998, 128)
    table: list[tuple[str, float, int]] = [("sound, BEATs, 10 s", of_encoder(BEATs, mels, device, kind, repeats), CLIPS)]
    table.append(("sound, YAMNet, 10 s", of_encoder(YAMNet, mels[..., :64].contiguous(), device, kind, repeats), CLIPS))
    for name in [only] if only else SPACES:
        model, width = SPACES[name]
        pixels, tokens = torch.randn(batch, 3, 224, 224), torch.randint(1, 49000, (batch, 77))
        for what, inputs, count in (("picture", pixels, CLIPS * FRAMES), ("text", tokens, CLIPS)):
            side = partial(OpenClip, "image" if what == "picture" else what, *description(NOWHERE, {"model": model}))
            table.append((f"{what}, {name}", of_encoder(side, inputs, device, kind, repeats), count))
        table.append((f"training step of {ROWS}, {name}", of_training(width, device, repeats), CLIPS * EPOCHS // ROWS))
    lines = ["| what | seconds an item | items | minutes |", "|---|--:|--:|--:|"]
    lines += [f"| {what} | {each:.2g} | {count:,} | {each * count / 60:,.0f} |" for what, each, count in table]
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
