"""What survives of a point: the same pictures' embeddings through every decoder, drawn from several seeds and read back.

Five numbers a decoder: the cosine of a drawing's embedding to the point it was drawn from; the Frechet distance of the drawings
to the real pictures, and the variety between seeds (mean cosine distance of the drawings of one point), both in the judge's
features; pictures a second; and memory. Points are in each decoder's own space, hence of its own image encoder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from unialign_gen.errors import InputError
from unialign_gen.eval.figures import bootstrap
from unialign_gen.eval.frechet import frechet_distance
from unialign_gen.eval.judge import Judge
from unialign_gen.eval.scores import spread_of_seeds

COLUMNS = ("cosine", "frechet", "variety", "pictures_a_second", "memory_gb")


@torch.no_grad()
def evaluate(
    pipeline: Any, pictures: Sequence[Image.Image], judge: Judge, seeds: int = 4, batch: int = 8, **options: Any
) -> dict[str, Any]:
    """The five numbers of one decoder, with a 95 % interval of the cosine, over points.

    Args:
        pictures: real ones, at least two.
        seeds: drawings of each, at least two; drawing j of picture i is drawn from seed j, as by every decoder.
        options: of the pipeline's call, such as `num_inference_steps`.

    Raises:
        InputError: too few pictures or seeds, or a decoder of clips.
    """
    if len(pictures) < 2 or seeds < 2:
        raise InputError(f"{len(pictures)} pictures and {seeds} seeds: variety and distance need two of each")
    if pipeline.moving:
        raise InputError("this decoder draws clips: measured are pictures")
    device = torch.device(pipeline._execution_device)
    points = pipeline.aligner.embed("image", pictures)  # (N, d)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    drawn: list[Image.Image] = []
    began = time.perf_counter()
    for seed in range(seeds):
        for part in points.split(batch):
            drawn += pipeline(embeds=part, seed=[seed] * len(part), **options).images
    took = time.perf_counter() - began
    weights = [p for part in pipeline.components.values() if isinstance(part, torch.nn.Module) for p in part.parameters()]
    size = sum(p.numel() * p.element_size() for p in weights)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else size
    read = torch.cat([pipeline.aligner.embed("image", drawn[at : at + batch]) for at in range(0, len(drawn), batch)])
    cosines = (read.view(seeds, len(points), -1) * points).sum(-1).mean(0)  # (N,)
    features = judge.features(drawn)  # (seeds * N, d)
    interval = bootstrap(cosines.double().cpu().numpy())
    return {
        "cosine": interval.value,
        "cosine_ci95": [interval.low, interval.high],
        "frechet": frechet_distance(features, judge.features(pictures)),
        "variety": float(spread_of_seeds(features.view(seeds, len(points), -1).unbind()).mean()),
        "pictures_a_second": len(drawn) / took,
        "memory_gb": peak / 1e9,
        "memory_is": "peak on the device" if device.type == "cuda" else "weights",
        "points": len(points),
        "seeds": seeds,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Decoders as rows of Markdown."""
    lines = [f"| decoder | {' | '.join(COLUMNS)} |", f"|---|{'--:|' * len(COLUMNS)}"]
    lines += [f"| {name} | {' | '.join(f'{row[c]:.3f}' for c in COLUMNS)} |" for name, row in rows.items()]
    return "\n".join(lines)
