"""The first edition's name of `unialign_gen.loading.description`, for one release."""

from .deprecated import warn_renamed
from .loading.description import OUTSIDE, PARTS, SOUND_LICENCES, on_disk, read, replace_sources, wanted_files

warn_renamed("unialign_gen.published", "unialign_gen.loading.description")
__all__ = ["OUTSIDE", "PARTS", "SOUND_LICENCES", "on_disk", "read", "replace_sources", "wanted_files"]
