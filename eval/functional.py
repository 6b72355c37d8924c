"""The metrics as functions of features (N, d) of generated and (M, d) of real pictures."""

from .frechet import frechet_distance, frechet_infinity
from .kid import cmmd, kid
from .mind import mind
from .prdc import prdc

__all__ = ["cmmd", "frechet_distance", "frechet_infinity", "kid", "mind", "prdc"]
