"""Training objectives over dictionaries of unit embeddings, one a file."""

from .unialign import UniAlign, anchor_alignment, centroid, gram_volume, uniformity

__all__ = ["UniAlign", "anchor_alignment", "centroid", "gram_volume", "uniformity"]
