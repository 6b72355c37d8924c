"""A checkpoint's named concepts: which lie near an embedding, and whether anything does."""

from .table import ConceptTable, concept_table, lay_out, spread
from .understanding import Understanding, Understood

__all__ = ["ConceptTable", "Understanding", "Understood", "concept_table", "lay_out", "spread"]
