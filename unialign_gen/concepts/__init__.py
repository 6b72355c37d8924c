"""A checkpoint's named concepts: which lie near an embedding, and whether anything does."""

from .table import ConceptTable, checkpoint_folder, concept_table, lay_out, spread
from .understanding import Understanding, Understood

__all__ = ["ConceptTable", "Understanding", "Understood", "checkpoint_folder", "concept_table", "lay_out", "spread"]
