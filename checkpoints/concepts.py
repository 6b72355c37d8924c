"""Does the picture show what the prompt says?

Share of generated pictures that the judge gives the prompt's concept, their Frechet distance to real ones in the judge's
features, and what `faithfulness` measures on fixed lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unialign_gen.concepts import ConceptTable, checkpoint_folder, concept_table
from unialign_gen.eval.figures import from_halves, halves
from unialign_gen.eval.frechet import frechet_distance
from unialign_gen.eval.judge import Judge
from unialign_gen.pipelines.named import understanding_in
from unialign_gen.pipelines.prior import strength_of

from . import faithfulness
from .evaluation_sets import SPLITS, Prompt, prompts

BATCH = 16


def shares(top: Sequence[Sequence[str]], wanted: Sequence[Prompt]) -> dict[str, Any]:
    """Top-1 and top-5 shares with N and 95 % intervals. A prompt of several concepts is met by any of them."""
    found: dict[str, Any] = {}
    for k in (1, 5):
        hits = faithfulness.share([bool(set(t[:k]) & set(p.concepts)) for t, p in zip(top, wanted, strict=True)])
        found |= {f"top{k}": hits["value"], f"top{k}_ci95": hits["ci95"]}
    return found | {"n": len(wanted)}


def score(judge: Judge, features: Tensor, wanted: Sequence[Prompt], real: Tensor | None = None) -> dict[str, Any]:
    """The judge's shares on pictures of the prompts, and the pictures' Frechet distance to real ones.

    Args:
        features: the judge's, of the pictures (N, d).
        real: the same of real pictures (M, d); without them, or below eight pictures, there is no distance.
    """
    found = shares(judge.named(features), wanted)
    if real is not None and min(len(features), len(real)) >= 8:
        count = min(len(features), len(real))
        parts = [torch.from_numpy(rows) for rows in halves(count, 10)]
        some = [frechet_distance(features[:count][rows], real[:count][rows]) for rows in parts]
        distance = from_halves(frechet_distance(features, real), some, count, low=0.0)
        found |= {"frechet": distance.value, "frechet_ci95": [distance.low, distance.high]}
    return found


def embedding_shares(pipeline: Any, table: ConceptTable, root: Path, limit: int) -> dict[str, Any]:
    """Without drawing: how often a prompt's embedding, as it is encoded, lies nearest to its concept's training pictures.

    Adds rendered instruments (`render`) and spoken names (`speech`) to the modalities; each split as in `prompts`.
    """
    out: dict[str, Any] = {}
    for split in SPLITS:
        out[split] = {}
        for name, wanted in prompts(root, split, limit, extra=True).items():
            if wanted:
                points = pipeline.aligner.embed(wanted[0].kind, [p.value for p in wanted])
                out[split][name] = shares(table.nearest(points), wanted)
    return out


def understanding(pipeline: Any) -> Callable[[Sequence[str]], list[bool]] | None:
    """Whether the checkpoint understands texts; None where it has no limit for that."""
    known = understanding_in(checkpoint_folder(pipeline))
    if known is None:
        return None
    return lambda texts: [u.understood for u in known(pipeline.aligner.embed("text", list(texts)), "text")]


def draw(pipeline: Any, wanted: Sequence[Prompt], seed: int, **options: Any) -> tuple[list[Image.Image], list[Tensor]]:
    """One picture a prompt, and the unit embedding (d,) that it was drawn of; prompt i has the seed `seed + i`."""
    pictures: list[Image.Image] = []
    points: list[Tensor] = []
    for at in tqdm(range(0, len(wanted), BATCH), desc=wanted[0].kind if wanted else "", disable=None):
        part = wanted[at : at + BATCH]
        seeds = range(seed + at, seed + at + len(part))
        out = pipeline(**{part[0].kind: [p.value for p in part]}, seed=seeds, **options)
        pictures += out.images
        points += pipeline.points(out.request).cpu()
    return pictures, points


def hues_kept(drawn: Sequence[Image.Image], wanted: Sequence[Prompt]) -> dict[str, Any]:
    """The share of drawings whose hue is that of the picture that they were drawn from, of pictures that have one."""
    hues = [faithfulness.dominant_hue(Image.open(p.value).convert("RGB")) for p in wanted]
    made = [faithfulness.dominant_hue(picture) for picture in drawn]
    return faithfulness.share([hue == own for hue, own in zip(made, hues, strict=True) if own])


def evaluate(
    pipeline: Any, root: Path, limit: int = 200, seed: int = 0, judge: Judge | None = None, **options: Any
) -> dict[str, Any]:
    """Scores of both splits, beside the ceiling (the judge on the real pictures) and chance.

    Returns:
        `{"held_out": {"image", "text", "audio", "ceiling"}, "cross_source": {...}, "faithfulness", "chance", ...}`.
    """
    judge = judge or Judge.from_folder()
    result: dict[str, Any] = {}
    for split in SPLITS:
        wanted = prompts(root, split, limit)
        real = judge.features([Image.open(p.value).convert("RGB") for p in wanted["image"]])
        result[split] = {}
        for kind, ps in wanted.items():
            drawn, _ = draw(pipeline, ps, seed, **options)
            result[split][kind] = score(judge, judge.features(drawn), ps, real)
            if kind == "image":
                result[split][kind]["hue_kept"] = hues_kept(drawn, ps)
        result[split]["ceiling"] = score(judge, real, wanted["image"])
    drawn_for = partial(draw, pipeline, seed=seed, **options)
    result["faithfulness"] = faithfulness.evaluate(pipeline, root, drawn_for, judge, limit, understanding(pipeline))
    table = concept_table(pipeline)
    if table is not None:
        result["embedding"] = embedding_shares(pipeline, table, root, limit)
    result["chance"] = {"top1": 1 / len(judge.concepts), "top5": 5 / len(judge.concepts)}
    result |= {"concepts": len(judge.concepts), "limit": limit, "seed": seed, "best_of": options.get("best_of")}
    return result | {"prior_strength": strength_of(pipeline.prior, options.get("prior_strength"))}


def table(result: dict[str, Any]) -> str:
    """The result for a person to read."""
    lines = [
        f"{'split':<13}{'prompt':<9}{'top-1':>7}  {'95 % interval':<15}{'of ceiling':>10}{'top-5':>8}{'N':>6}{'Frechet':>9}"
    ]
    drawn = [(split, kind, s) for split in SPLITS for kind, s in result[split].items()]
    embedded = [(split, kind, s) for split, kinds in result.get("embedding", {}).items() for kind, s in kinds.items()]
    for split, kind, s in [*drawn, *embedded]:
        low, high = s["top1_ci95"]
        share = f"{s['top1'] / (result[split]['ceiling']['top1'] or 1.0):.0%}" if (split, kind, s) in drawn else "embedding"
        away = f"{s['frechet']:.1f}" if "frechet" in s else ""
        span = f"{low:.1%} - {high:.1%}"
        row = f"{split:<13}{kind:<9}{s['top1']:>7.1%}  {span:<15}{share:>10}{s['top5']:>8.1%}{s['n']:>6}{away:>9}"
        lines.append(row.rstrip())
    kept = {f"hue kept, {split}": result[split]["image"]["hue_kept"] for split in SPLITS if "image" in result[split]}
    lines.append(faithfulness.table(result["faithfulness"] | kept))
    chance = result["chance"]
    return "\n".join([*lines, f"chance {chance['top1']:.1%} and {chance['top5']:.1%} among {result['concepts']} concepts"])
