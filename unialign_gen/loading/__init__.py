"""Checkpoints: where they lie, what the published ones are put together from, and how one becomes a pipeline."""

from .aligners import frozen_head, open_aligner
from .devices import check_device, check_names, dtype_of
from .folders import (
    DECODERS,
    DISTILLED,
    PUBLISHED,
    REPOSITORY,
    SHIPPED,
    calibration_folder,
    find,
    own_prior,
    own_settings,
    shipped_folder,
    unconditional_is_zero,
)
from .pipeline import load_pipeline, quiet
from .table import describe

__all__ = [
    "DECODERS",
    "DISTILLED",
    "PUBLISHED",
    "REPOSITORY",
    "SHIPPED",
    "calibration_folder",
    "check_device",
    "check_names",
    "describe",
    "dtype_of",
    "find",
    "frozen_head",
    "load_pipeline",
    "open_aligner",
    "own_prior",
    "own_settings",
    "quiet",
    "shipped_folder",
    "unconditional_is_zero",
]
