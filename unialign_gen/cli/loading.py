"""Options about weights and devices, to a loaded pipeline."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..console import stage
from ..errors import InputError

if TYPE_CHECKING:
    from .. import AnyPipeline
    from .options import Model


def parse_sources(entries: list[str] | None) -> dict[str, str]:
    """`["decoder=FOLDER"]` -> `{"decoder": "FOLDER"}`."""
    out = {}
    for entry in entries or []:
        part, equals, value = entry.partition("=")
        if not equals or not value:
            raise InputError(f"--source {entry!r}: write PART=FOLDER, such as decoder=/models/unclip")
        out[part] = value
    return out


def load(model: Model, clips: bool = True) -> AnyPipeline:
    """The pipeline that options name; without `clips` one that draws pictures.

    Raises:
        InputError: no such checkpoint or device, or one that draws clips where pictures are wanted.
    """
    from ..loading import check_names, find, quiet

    find(model.checkpoint, model.decoder)
    options = dict(vars(model))
    options["sources"] = parse_sources(options.pop("source"))
    check_names(model.device, model.dtype)
    stage(f"loading {model.checkpoint}")
    from .. import load as load_pipeline

    quiet()
    pipeline = load_pipeline(**options)
    if pipeline.moving and not clips:
        raise InputError(f"{model.checkpoint} draws clips: use animate")
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), leave=False)
    return pipeline
