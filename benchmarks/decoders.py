"""Our pipelines beside diffusers' own, in one run: time, and how smooth an interpolation is with shared noise.

    python benchmarks/decoders.py

Prints JSON. Nothing else should run meanwhile. Both pipelines get the same `image_embeds`, seeds and steps on the starter's
decoders; runs alternate, and the ratio is the median of the pairs' ratios. Smoothness is the mean absolute difference of
neighbouring frames (pixels in [0, 1], 16 frames between two texts), over that of the same frames drawn from independent
noise.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import KandinskyV22Pipeline, StableUnCLIPImg2ImgPipeline
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import unialign_gen
from unialign_gen.mixing import path

RUNS, STEPS = 25, 20


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def kandinsky(ours: Any, z: torch.Tensor) -> Callable[[], Any]:
    """The call of diffusers' own pipeline that draws what ours draws."""
    theirs = KandinskyV22Pipeline(unet=ours.unet, scheduler=ours.scheduler, movq=ours.movq)
    theirs.set_progress_bar_config(disable=True)
    negative = ours.embed_scale.negative_image_embeds.expand_as(z)
    return lambda: theirs(
        image_embeds=z * ours.embed_scale.embed_norm,
        negative_image_embeds=negative,
        height=128,
        width=128,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(i) for i in range(len(z))],
    )


def unclip(ours: Any, z: torch.Tensor) -> Callable[[], Any]:
    """As `kandinsky`; diffusers asks a vision encoder for its dtype, so it is given the smallest one."""
    tiny = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    parts = {
        k: v for k, v in ours.components.items() if k not in ("aligner", "embed_scale", "image_encoder", "feature_extractor")
    }
    theirs = StableUnCLIPImg2ImgPipeline(image_encoder=CLIPVisionModelWithProjection(tiny), feature_extractor=None, **parts)
    theirs.set_progress_bar_config(disable=True)
    return lambda: theirs(
        prompt=[""] * len(z),
        image_embeds=z * ours.embed_scale.embed_norm,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(i) for i in range(len(z))],
    )


def compare(decoder: str) -> dict[str, float]:
    ours: Any = unialign_gen.load("starter", decoder=decoder)
    ours.set_progress_bar_config(disable=True)
    z = ours.embed(text=["a red car", "a green frog"])
    call = (kandinsky if decoder == "kandinsky" else unclip)(ours, z)

    def own() -> Any:
        return ours(image_embeds=z * ours.embed_scale.embed_norm, seed=[0, 1], guidance_scale=3.0, num_inference_steps=STEPS)

    same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(own().images, call().images, strict=True))
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(RUNS):
        times["ours"].append(seconds(own))
        times["theirs"].append(seconds(call))
    medians = {k: statistics.median(v) for k, v in times.items()}

    a, b = ours.embed(text=["a cat", "a lion"])
    options = {"num_inference_steps": STEPS, "output_type": "np"}
    shared = ours.interpolate(a, b, 16, seed=0, **options).images
    apart = ours(embeds=path(a, b, 16), seed=0, **options).images
    step = {name: float(np.abs(np.diff(frames, axis=0)).mean()) for name, frames in (("shared", shared), ("apart", apart))}
    return {
        "same_pictures": same,
        "seconds_ours": medians["ours"],
        "seconds_diffusers": medians["theirs"],
        "time_ratio": statistics.median(a / b for a, b in zip(times["ours"], times["theirs"], strict=True)),
        "neighbour_distance_shared": step["shared"],
        "neighbour_distance_independent": step["apart"],
        "distance_ratio": step["shared"] / step["apart"],
    }


def main() -> None:
    result = {decoder: compare(decoder) for decoder in ("kandinsky", "stable-unclip")}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
