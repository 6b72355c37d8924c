"""The first edition's name of `unialign_gen.loading`, for one release."""

from .deprecated import warn_renamed
from .loading import DECODERS, PUBLISHED, SHIPPED, describe, find, load_pipeline, own_prior, own_settings, shipped_folder

warn_renamed("unialign_gen.checkpoint", "unialign_gen.loading")

__all__ = ["DECODERS", "PUBLISHED", "SHIPPED", "describe", "find", "load_pipeline"]
__all__ += ["own_prior", "own_settings", "shipped_folder"]
