"""Training objectives over dictionaries of embeddings: `UniAlign(...)({"image": z_i, "text": z_t})` -> scalar.

All share one call signature: modality to tensor (B, d), of any norm, and optionally modality to bool (B,), which samples
have it. Under torch.distributed each rank gives its own rows; value and gradients are those of the whole batch. `parts` gives
the terms by name, `check_modalities` says before the first batch what an objective cannot use, `after_step` belongs after the
optimiser's. `functional` has them as plain functions. Needs torch alone.
"""

from . import functional
from .alignment import anchor_alignment
from .batch import Batch, prepare
from .cauchy_schwarz import CauchySchwarz
from .centroid import centroid
from .infonce import AnchoredInfoNCE, InfoNCE, MeanOfOthers
from .modgap import ModGap
from .objective import Objective
from .pmrl import PMRL
from .registry import OBJECTIVES, build
from .scalar import SCALAR, query_weighted_scores
from .siglip import SigLIP
from .symile import Symile
from .tuples import GRAM, TRIANGLE
from .unialign import UniAlign
from .uniformity import uniformity
from .volume import cross_volumes, gram_volume

__all__ = [
    "UniAlign",
    "InfoNCE",
    "AnchoredInfoNCE",
    "MeanOfOthers",
    "GRAM",
    "TRIANGLE",
    "PMRL",
    "ModGap",
    "Symile",
    "CauchySchwarz",
    "SigLIP",
    "SCALAR",
    "Objective",
    "uniformity",
    "anchor_alignment",
    "centroid",
    "gram_volume",
    "cross_volumes",
    "query_weighted_scores",
    "functional",
    "OBJECTIVES",
    "build",
    "Batch",
    "prepare",
]
