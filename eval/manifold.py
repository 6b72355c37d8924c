"""The first edition's name of `unialign_gen.eval.prdc`, for one release."""

from unialign_gen.deprecated import warn_renamed

from .prdc import PRDCScores as Manifold
from .prdc import prdc as manifold
from .prdc import radii

warn_renamed("unialign_gen.eval.manifold", "unialign_gen.eval.prdc")

__all__ = ["Manifold", "manifold", "radii"]
