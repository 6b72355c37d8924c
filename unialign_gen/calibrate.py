"""The first edition's name of `unialign_gen.loading.scale`, for one release."""

from .deprecated import warn_renamed
from .loading.scale import Calibration, measure, pictures_in

warn_renamed("unialign_gen.calibrate", "unialign_gen.loading.scale")
__all__ = ["Calibration", "measure", "pictures_in"]
