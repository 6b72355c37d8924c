"""Options about weights and devices, to a loaded pipeline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import stage
from ..errors import InputError

if TYPE_CHECKING:
    from .. import AnyPipeline


def parse_sources(entries: list[str] | None) -> dict[str, str]:
    """`["decoder=FOLDER"]` -> `{"decoder": "FOLDER"}`."""
    out = {}
    for entry in entries or []:
        part, equals, value = entry.partition("=")
        if not equals or not value:
            raise InputError(f"--source {entry!r}: write PART=FOLDER, such as decoder=/models/unclip")
        out[part] = value
    return out


def quiet() -> None:
    """No progress bars of loading."""
    from diffusers.utils import logging
    from transformers.utils import logging as logging_of_transformers

    logging.disable_progress_bar()
    logging_of_transformers.disable_progress_bar()


def load(
    checkpoint: str,
    device: str,
    dtype: str,
    decoder: str | None = None,
    source: list[str] | None = None,
    accept_license: bool = False,
    heads: Path | None = None,
    variant: str | None = None,
) -> AnyPipeline:
    from ..loading import check_names, find

    find(checkpoint, decoder)
    sources = parse_sources(source)
    check_names(device, dtype)
    stage(f"loading {checkpoint}")
    from .. import load as load_pipeline

    quiet()
    pipeline = load_pipeline(
        checkpoint,
        device=device,
        dtype=dtype,
        decoder=decoder,
        sources=sources,
        accept_license=accept_license,
        heads=heads,
        variant=variant,
    )
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), leave=False)
    return pipeline
