"""Does the picture show what the prompt says? Share of generated pictures that the judge gives the prompt's concept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from unialign_gen.concepts import ConceptTable, concept_table
from unialign_gen.pipelines.prior import strength_of

from .data import SPLITS, Prompt, prompts
from .intervals import wilson
from .judge import Judge

BATCH = 16


def shares(top: Sequence[Sequence[str]], wanted: Sequence[Prompt]) -> dict[str, Any]:
    """Top-1 and top-5 shares with N and 95 % intervals. A prompt of several concepts is met by any of them."""
    first = sum(t[0] in p.concepts for t, p in zip(top, wanted, strict=True))
    five = sum(bool(set(t) & set(p.concepts)) for t, p in zip(top, wanted, strict=True))
    n = len(wanted)
    return {
        "top1": first / n if n else 0.0,
        "top5": five / n if n else 0.0,
        "n": n,
        "top1_ci95": list(wilson(first, n)),
        "top5_ci95": list(wilson(five, n)),
    }


def score(judge: Judge, pictures: Sequence[Image.Image], wanted: Sequence[Prompt]) -> dict[str, Any]:
    """The judge's shares on pictures of the prompts."""
    return shares(judge.top(pictures) if pictures else [], wanted)


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


def draw(pipeline: Any, wanted: Sequence[Prompt], seed: int, best_of: int = 1, **options: Any) -> list[Image.Image]:
    """One picture a prompt, the nearest of `best_of`; prompt i has seeds from `seed + i * best_of` on."""
    pictures: list[Image.Image] = []
    for at in tqdm(range(0, len(wanted), BATCH), desc=wanted[0].kind if wanted else "", disable=None):
        part = wanted[at : at + BATCH]
        seeds = [seed + (at + i) * best_of for i in range(len(part))]
        pictures += pipeline.best_of(best_of, **{part[0].kind: [p.value for p in part]}, seed=seeds, **options).images
    return pictures


def evaluate(
    pipeline: Any, root: Path, limit: int = 200, seed: int = 0, judge: Judge | None = None, best_of: int = 1, **options: Any
) -> dict[str, Any]:
    """Scores of both splits, beside the ceiling (the judge on the real pictures) and chance.

    Returns:
        `{"held_out": {"image", "text", "audio", "ceiling"}, "cross_source": {...}, "chance", "concepts", ...}`.
    """
    judge = judge or Judge.from_folder()
    result: dict[str, Any] = {}
    for split in SPLITS:
        wanted = prompts(root, split, limit)
        result[split] = {kind: score(judge, draw(pipeline, ps, seed, best_of, **options), ps) for kind, ps in wanted.items()}
        real = [Image.open(p.value).convert("RGB") for p in wanted["image"]]
        result[split]["ceiling"] = score(judge, real, wanted["image"])
    table = concept_table(pipeline)
    if table is not None:
        result["embedding"] = embedding_shares(pipeline, table, root, limit)
    result["chance"] = {"top1": 1 / len(judge.concepts), "top5": 5 / len(judge.concepts)}
    result["concepts"] = len(judge.concepts)
    result["limit"], result["seed"], result["best_of"] = limit, seed, best_of
    result["prior_strength"] = strength_of(pipeline.prior, options.get("prior_strength"))
    return result


def table(result: dict[str, Any]) -> str:
    """The result for a person to read."""
    lines = [f"{'split':<13}{'prompt':<9}{'top-1':>7}  {'95 % interval':<15}{'of ceiling':>10}{'top-5':>8}{'N':>6}"]
    for split in SPLITS:
        ceiling = result[split]["ceiling"]["top1"] or 1.0
        for kind, s in result[split].items():
            low, high = s["top1_ci95"]
            span = f"{low:.1%} - {high:.1%}"
            share = s["top1"] / ceiling
            lines.append(f"{split:<13}{kind:<9}{s['top1']:>7.1%}  {span:<15}{share:>10.0%}{s['top5']:>8.1%}{s['n']:>6}")
    for split, kinds in result.get("embedding", {}).items():
        for kind, s in kinds.items():
            low, high = s["top1_ci95"]
            span = f"{low:.1%} - {high:.1%}"
            lines.append(f"{split:<13}{kind:<9}{s['top1']:>7.1%}  {span:<15}{'embedding':>10}{s['top5']:>8.1%}{s['n']:>6}")
    lines.append(
        f"chance {result['chance']['top1']:.1%} and {result['chance']['top5']:.1%} among {result['concepts']} concepts"
    )
    return "\n".join(lines)
