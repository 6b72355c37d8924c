"""Captions of a corpus into a JSONL file that `captions.read` takes, batch by batch, resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import as_input_error
from ..output import make_folder
from .cache import check_same
from .corpus import Corpus, Sample
from .decode import decoders, described, ordered
from .storage import write_rows, write_whole

if TYPE_CHECKING:
    from PIL import Image


def about(path: Path) -> Path:
    """Where it is kept what the captions of a file were made with."""
    return path.with_name(path.name + ".about.json")


def problems_of(path: Path) -> Path:
    """Where the files that have no caption are listed, each with its reason."""
    return path.with_name(path.name + ".report.jsonl")


def run(
    corpus: Corpus,
    model: Callable[[Sequence[Sequence[Image.Image]]], list[list[str]]],
    out: Path,
    settings: dict[str, Any],
    frames: int = 1,
    batch: int = 8,
    workers: int = 2,
    progress: bool = True,
) -> dict[str, Any]:
    """Captions every sample with a picture or a video that `out` does not have yet.

    A batch is appended in one write, so that a run that is killed loses at most one; a last line that was torn off is
    dropped and done again.

    Args:
        model: clips of frames -> the captions of each.
        settings: model, prompt and so on; a file that was made with others is refused.
        frames: of each video.

    Returns:
        counts: `captioned` in this run, `before`, `broken`, `without` a picture or video.

    Raises:
        InputError: the file was made with other settings, or cannot be understood.
    """
    from tqdm import tqdm

    known = resume(out, settings)
    seen = [s for s in corpus.samples if s.image or s.video]
    todo = [s for s in seen if s.id not in known]
    broken: list[dict[str, str]] = [{"id": m.id, "kind": "missing", "reason": m.reason} for m in corpus.missing]
    done = 0
    with (
        decoders(workers) as pool,
        tqdm(total=len(todo), unit="sample", disable=None if progress else True) as bar,
        out.open("ab", buffering=0) as f,
    ):
        decoded = ordered(pool, partial(pictures, frames=frames), todo, batch + 2 * workers)
        while group := list(islice(decoded, batch)):
            good = [(sample, found) for sample, found in group if not isinstance(found, str)]
            texts = model([found for _, found in good]) if good else []
            broken += [{"id": s.id, "kind": "broken", "reason": found} for s, found in group if isinstance(found, str)]
            lines = ""
            for (sample, _), captions in zip(good, texts, strict=True):
                if captions:
                    lines += json.dumps({"id": sample.id, "captions": captions}, ensure_ascii=False) + "\n"
                    done += 1
                else:
                    broken.append({"id": sample.id, "kind": "broken", "reason": "the model gave an empty caption"})
            f.write(lines.encode())
            os.fsync(f.fileno())
            bar.update(len(group))
    write_rows(problems_of(out), broken)
    return {
        "out": str(out),
        "captioned": done,
        "before": len(seen) - len(todo),
        "broken": sum(row["kind"] == "broken" for row in broken),
        "without": len(corpus.samples) - len(seen),
    }


def resume(out: Path, settings: dict[str, Any]) -> set[str]:
    """Ids that have captions already; cuts off a last line that is not complete.

    Writes down what the captions are made with, or finds that it is what is written there.
    """
    make_folder(out.parent)
    if not out.exists():
        write_whole(about(out), (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())
        return set()
    with as_input_error(f"{out} was not made by this command: choose another file", OSError, ValueError):
        before = json.loads(about(out).read_text("utf-8"))
    check_same(out, before, settings)
    data = out.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(out, end)
    with as_input_error(
        f"{out} is damaged, a line in it is not a caption: delete that line ({{error}})", ValueError, KeyError, TypeError
    ):
        return {json.loads(line)["id"] for line in data[:end].splitlines()}


def pictures(sample: Sample, frames: int) -> tuple[Sample, list[Image.Image] | str]:
    """A sample's picture, or frames of its video, or why there are none."""
    from ..media import load_image, load_video

    try:
        return sample, load_video(sample.video, frames).frames if sample.video else [load_image(sample.image or "")]
    except Exception as error:
        return sample, described(error)
