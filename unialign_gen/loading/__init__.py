"""Checkpoints: where they lie, what the published ones are put together from, and how one becomes a pipeline."""

from .aligners import frozen_head, open_aligner
from .devices import check_device, check_names, dtype_of
from .folders import (
    DECODERS,
    PUBLISHED,
    REPOSITORY,
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
from .pipeline import load_pipeline
from .table import describe

__all__ = [
    "DECODERS",
    "PUBLISHED",
    "REPOSITORY",
    "SHIPPED",
    "calibration_folder",
    "check_device",
    "check_names",
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
