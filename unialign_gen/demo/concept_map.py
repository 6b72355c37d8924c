"""The concepts of a checkpoint on a plane, and where a new prompt lies among them.

The positions come with the checkpoint (`concepts.lay_out`). A prompt was not there when the map was made: it is put at the
weighted mean of the positions of its nearest concepts, with weights softmax(cosine / 0.05): near one concept it lies on it,
between two it lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..concepts import ConceptTable

NEIGHBOURS = 5
SHARPNESS = 0.05


@dataclass
class ConceptMap:
    """The concepts and their positions (n, 2) in [0, 1]."""

    table: ConceptTable
    places: Tensor

    @classmethod
    def of(cls, table: ConceptTable | None) -> ConceptMap | None:
        """The map of a table; None where it has none."""
        return None if table is None or table.places is None else cls(table, table.places)

    def place(self, vector: Tensor) -> tuple[Tensor, list[int]]:
        """Where a unit embedding (d,) lies, (2,), and the numbers of the concepts that say so, nearest first."""
        cosines = self.table.cosines(vector.cpu().unsqueeze(0))[0]
        best = cosines.topk(min(NEIGHBOURS, len(cosines)))
        weights = (best.values / SHARPNESS).softmax(0)
        return weights @ self.places[best.indices].float(), best.indices.tolist()
