"""mteb's tasks for a saved aligner: text, sound, pictures and video as unit embeddings of one space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from unialign_gen import __version__
from unialign_gen.aligner import Aligner
from unialign_gen.errors import as_input_error
from unialign_gen.mixing import mix

from .figures import Estimate, Row, row

MODALITIES = ("text", "image", "audio", "video")


class AlignerEncoder(AbsEncoder):
    """What `mteb.evaluate` runs. Inputs of several modalities are mixed in equal parts on the sphere.

    Example:
        >>> from unialign_gen.loading import open_aligner
        >>> AlignerEncoder(open_aligner("starter"), "starter").mteb_model_meta.modalities
        ['text', 'image', 'audio', 'video']
    """

    def __init__(self, aligner: Aligner, name: str):
        self.model = aligner
        known = [m for m in MODALITIES if m in aligner.modalities]
        about: dict[str, Any] = {"name": f"unialign_gen/{name}", "revision": __version__, "modalities": known}
        about |= {"embed_dim": aligner.embed_dim, "similarity_fn_name": ScoringFunction.COSINE}
        self.mteb_model_meta = ModelMeta.create_empty(about)

    def encode(self, inputs: Iterable[dict[str, Any]], **_: Any) -> np.ndarray:
        """Unit embeddings (N, d) of batches that name what they hold by modality."""
        parts = []
        for batch in inputs:
            kinds = [m for m in MODALITIES if m in batch and m in self.model.modalities]
            z = [torch.as_tensor(self.model.embed(kind, list(batch[kind]))) for kind in kinds]
            parts.append(mix(z) if len(z) > 1 else z[0])
        return torch.cat(parts).cpu().numpy()


def evaluate(aligner: Aligner, name: str, tasks: Sequence[Any], cache: Path) -> list[Row]:
    """Each task's main score on each split and subset, as rows of figures.

    Args:
        tasks: names of mteb's tasks, or tasks.
        cache: a folder that mteb keeps its results in: what is there is not measured again.

    Raises:
        InputError: mteb knows no such task, or its data cannot be had.
    """
    wrong = f"{', '.join(map(str, tasks))} cannot be run: {{short}}"
    with as_input_error("mteb has no such task: {short}", KeyError), as_input_error(wrong, OSError, ImportError, RuntimeError):
        chosen = [mteb.get_task(t) if isinstance(t, str) else t for t in tasks]
        found = mteb.evaluate(AlignerEncoder(aligner, name), chosen, cache=mteb.ResultCache(cache), show_progress_bar=False)
    return [
        row(
            task.metadata.main_score,
            Estimate(entry["main_score"]),
            dataset=result.task_name,
            method=name,
            task=split,
            subset=entry["hf_subset"],
        )
        for result, task in zip(found.task_results, chosen, strict=True)
        for split, entries in result.scores.items()
        for entry in entries
    ]
