"""The first edition's name of `unialign_gen.encoders`, for one release."""

import sys
from types import ModuleType

from ..deprecated import warn_renamed
from ..encoders import base as _base
from ..encoders import kinds, load_encoder, register, save_encoder

warn_renamed("unialign_gen.towers", "unialign_gen.encoders")
load_tower, save_tower = load_encoder, save_encoder
base = ModuleType(f"{__name__}.base", _base.__doc__)
base.Tower = _base.Encoder  # type: ignore[attr-defined]
sys.modules[base.__name__] = base

__all__ = ["base", "kinds", "load_tower", "register", "save_tower"]
