"""Training objectives over dictionaries of embeddings: `UniAlign(...)({"image": z_i, "text": z_t})` -> scalar.

All share one call signature: modality to tensor (B, d), of any norm, and optionally modality to bool (B,), which samples
have it. Under torch.distributed each rank gives its own rows; value and gradients are those of the whole batch.
"""

from .alignment import anchor_alignment
from .batch import Batch, prepare
from .centroid import centroid
from .gap_shift import GapShift
from .infonce import AnchoredInfoNCE, InfoNCE
from .pmrl import PMRL
from .registry import OBJECTIVES, build
from .tuples import GRAM, TRIANGLE
from .unialign import UniAlign
from .uniformity import uniformity
from .volume import cross_volumes, gram_volume

__all__ = [
    "UniAlign",
    "InfoNCE",
    "AnchoredInfoNCE",
    "GRAM",
    "TRIANGLE",
    "PMRL",
    "GapShift",
    "uniformity",
    "anchor_alignment",
    "centroid",
    "gram_volume",
    "cross_volumes",
    "OBJECTIVES",
    "build",
    "Batch",
    "prepare",
]
