"""Checkpoints: where they lie, what the published ones are put together from, and how one becomes a pipeline."""

from .folders import (
    DECODERS,
    PUBLISHED,
    SHIPPED,
    calibration_folder,
    decoder_folder,
    find,
    own_prior,
    own_settings,
    prior_folder,
    shipped_folder,
    unconditional_is_zero,
    user_folder,
)
from .pipeline import check_device, dtype_of, frozen_head, load_pipeline, open_aligner
from .table import describe

__all__ = [
    "DECODERS",
    "PUBLISHED",
    "SHIPPED",
    "calibration_folder",
    "check_device",
    "decoder_folder",
    "describe",
    "dtype_of",
    "find",
    "frozen_head",
    "load_pipeline",
    "open_aligner",
    "own_prior",
    "own_settings",
    "prior_folder",
    "shipped_folder",
    "unconditional_is_zero",
    "user_folder",
]
