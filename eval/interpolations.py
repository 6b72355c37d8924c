"""Interpolations between two prompts of one clip, drawn frame by frame: what lies between modalities in a space."""

from __future__ import annotations

from typing import Any

import torch
from tqdm import tqdm

from unialign_gen.mixing import path

from .drawing import seed_of
from .generation import heads_of, settings_of
from .pictures import file_name, open_folder, save
from .study import Study


def draw(study: Study, start: str, end: str, clips: int, frames: int) -> list[dict[str, Any]]:
    """Pictures on the great circle from one kind of prompt to another, of the first clips, for every decoder and method.

    Each has a title and its files below the study's folder. Methods whose two prompts were not embedded have none.
    """
    found = []
    plan = study.plan
    for decoder, pipeline in study.pipelines.items():
        settings = settings_of(study, pipeline)
        for method in plan.methods:
            kinds = study.embedded.get((method.name, 0), {})
            if start not in kinds or end not in kinds:
                continue
            heads = {kind: heads_of(kind, method.runs[0], pipeline) for kind in (start, end)}
            for at, clip in enumerate(tqdm(study.ids[:clips], desc=f"interpolations, {decoder}, {method.name}", disable=None)):
                folder = plan.out / "interpolations" / decoder / method.name / file_name(clip).removesuffix(".png")
                points = path(kinds[start][at], kinds[end][at], frames)
                open_folder(folder, {**settings, "from": start, "to": end, "frames": frames, "heads": heads})
                files = [folder / f"{i:02d}.png" for i in range(frames)]
                if not all(f.is_file() for f in files):
                    seeds = [seed_of(clip, 0)] * frames
                    options = {"num_inference_steps": plan.steps, "guidance_scale": plan.guidance}
                    with torch.no_grad():
                        drawn = pipeline(embeds=points, seed=seeds, **options).images
                    for picture, file in zip(drawn, files, strict=True):
                        save(picture, file)
                title = f"{start} to {end}: {study.texts[at] or clip}; {decoder}, {method.name}"
                found.append({"title": title, "pictures": [str(f.relative_to(plan.out)) for f in files]})
    return found
