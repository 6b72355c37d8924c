"""The generation protocol, table 3: pictures of every method's prompts, to be measured against the clips' own.

extract -> embed -> draw -> measure. Each step keeps what it made in one folder and goes on from there; the first and the third
are shared among processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unialign_gen.data.extract import Process
from unialign_gen.data.extract_config import digest as digest_of_weights
from unialign_gen.loading import load_pipeline, methods
from unialign_gen.mixing import path
from unialign_gen.output import make_folder

from .pictures import Cell, draw, file_name, open_folder, save, seed_of
from .study import FRAMES, SELF, Plan, Study, barrier, prepare


def settings_of(study: Study, pipeline: Any) -> dict[str, Any]:
    """All that a picture depends on but for its prompt: decoder, clips, encoders, and how it is drawn."""
    plan = study.plan
    weights = {n: digest_of_weights(m) for n, m in pipeline.components.items() if n in ("unet", "movq", "vae", "embed_scale")}
    return {
        "decoder": weights,
        "steps": plan.steps or pipeline.config["default_steps"],
        "guidance": pipeline.config["default_guidance"] if plan.guidance is None else plan.guidance,
        "scheduler": type(pipeline.scheduler).__name__,
        "dtype": str(pipeline.unet.dtype),
        "clips": study.digest,
        "batch": plan.batch,
        "frame": plan.frame,
        "corpus": study.features.index["corpus"]["content"],
        "encoders": {m: t["digest"] for m, t in study.features.index["encoders"].items()},
    }


def heads_of(kind: str, run: Path | None, pipeline: Any) -> dict[str, str]:
    """Digests of the heads that a kind of prompt goes through, by modality."""
    heads: dict[str, Any] = {m: methods.head(m, run, pipeline.aligner) for m in kind.split("+")}
    return {m: digest_of_weights(head)[:16] for m, head in heads.items()}


def cells_of(study: Study, decoder: str, pipeline: Any) -> Iterator[tuple[Cell, Tensor, dict[str, Any]]]:
    """Every cell of a decoder, with its prompts' embeddings and all that its pictures depend on."""
    plan, settings = study.plan, settings_of(study, pipeline)
    runs: dict[str, tuple[Path | None, ...]] = {m.name: m.runs for m in plan.methods}
    for kind in plan.kinds:
        for name, several in ({SELF: (None,)} if kind == "image" else runs).items():
            heads = [heads_of(kind, run, pipeline) for run in several]
            for seed in range(plan.seeds):
                number = seed if len(several) > 1 else 0
                index = {**settings, "kind": kind, "draw": seed, "heads": heads[number]}
                yield Cell(decoder, name, kind, seed), study.embedded[name, number][kind], index


def run(plan: Plan, process: Process | None = None) -> Study | None:
    """Extracts, embeds and draws; returns the study to the first process once all pictures are there, None to the others."""
    process = process or Process.from_environment()
    make_folder(plan.out)
    study = prepare(plan, process)
    options = {"dtype": plan.dtype, "sources": plan.own_sources, "accept_license": plan.accept_license}
    for decoder in plan.decoders:
        pipeline = load_pipeline(plan.checkpoint, device=process.device(plan.device), decoder=decoder, **options)
        pipeline.set_progress_bar_config(disable=True)
        name = decoder or plan.checkpoint.rstrip("/").rsplit("/", 1)[-1]
        cells = list(cells_of(study, name, pipeline))
        draw(pipeline, cells, study.ids, plan.out, plan.batch, process, **plan.drawing)
        study.pipelines[name], study.cells[name] = pipeline, [cell for cell, *_ in cells]
    barrier(process)
    return study if process.rank == 0 else None


def interpolate(study: Study, start: str, end: str, clips: int, frames: int) -> list[dict[str, Any]]:
    """Pictures on the great circle from one kind of prompt to another, of the first clips, for every decoder and method.

    Each has a title and its files below the study's folder. Methods whose two prompts were not embedded have none.
    """
    plan, found = study.plan, []
    chosen = [m for m in plan.methods if {start, end} <= set(study.embedded.get((m.name, 0), ()))]
    for decoder, method in ((d, m) for d in study.pipelines for m in chosen):
        pipeline, kinds = study.pipelines[decoder], study.embedded[method.name, 0]
        heads = {kind: heads_of(kind, method.runs[0], pipeline) for kind in (start, end)}
        index = {**settings_of(study, pipeline), "from": start, "to": end, "frames": frames, "heads": heads}
        for at, clip in enumerate(tqdm(study.ids[:clips], desc=f"interpolations, {decoder}, {method.name}", disable=None)):
            folder = plan.out / "interpolations" / decoder / method.name / file_name(clip).removesuffix(".png")
            open_folder(folder, index)
            files = [folder / f"{i:02d}.png" for i in range(frames)]
            if not all(f.is_file() for f in files):
                points = path(kinds[start][at], kinds[end][at], frames)
                with torch.no_grad():
                    drawn = pipeline(embeds=points, seed=[seed_of(clip, 0)] * frames, **plan.drawing).images
                for picture, file in zip(drawn, files, strict=True):
                    save(picture, file)
            title = f"{start} to {end}: {study.texts[at] or clip}; {decoder}, {method.name}"
            found.append({"title": title, "pictures": [str(f.relative_to(plan.out)) for f in files]})
    return found


def describe(study: Study) -> dict[str, Any]:
    """What every figure of the study is to be read with."""
    plan = study.plan
    own = all(study.corpus.samples[i].image for i in study.keep.tolist())
    return {
        "dataset": study.name,
        "clips": len(study.ids),
        "digest": study.corpus.digest(),
        "left_out": len(study.left_out),
        "reference": "the corpus' own pictures" if own else f"frame {plan.frame} of {FRAMES} evenly spaced ones, whole",
        "checkpoint": plan.checkpoint,
        "decoders": list(study.pipelines),
        "methods": {m.name: [methods.digest(r) for r in m.runs] for m in plan.methods},
        "prompts": list(plan.kinds),
        "draws": plan.seeds,
        "steps": plan.steps or "the decoder's own",
        "guidance": "the decoder's own" if plan.guidance is None else plan.guidance,
        "video prompts": f"{FRAMES} frames, without sound",
    }
