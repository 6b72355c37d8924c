"""Ranks of retrieval are in `unialign_gen.retrieval`; the protocol that reports them is `unialign_gen.eval.search`."""

from unialign_gen.retrieval import Cosine, DualSoftmax, QueryWeightedCentroid, Reranked, Volume, both_ways, ranks, recalls

__all__ = ["Cosine", "Volume", "QueryWeightedCentroid", "DualSoftmax", "Reranked", "ranks", "both_ways", "recalls"]
