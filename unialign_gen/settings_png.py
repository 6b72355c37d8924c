"""The first edition's name of `unialign_gen.request.picture_settings`, for one release."""

from .deprecated import warn_renamed
from .request import Prompt
from .request.picture_settings import PictureSettings, parse, read_picture, save_picture

warn_renamed("unialign_gen.settings_png", "unialign_gen.request.picture_settings")
Settings, read_png, save_png = PictureSettings, read_picture, save_picture
__all__ = ["Prompt", "Settings", "parse", "read_png", "save_png"]
