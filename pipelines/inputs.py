"""Of each prompt what it is drawn from: its inputs, or the things that its text names."""

from __future__ import annotations

from collections.abc import Sequence

from unialign_gen.aligner import Aligner
from unialign_gen.concepts import Understanding
from unialign_gen.request import Prompt, Request

from .named import Row, as_named, mixed_on_grounds, several
from .prior import EmbeddingPrior
from .prompts import beside


def inputs_of(
    ready: Request,
    known: Understanding | None,
    aligner: Aligner,
    prior: EmbeddingPrior | None,
    parts: bool = True,
    apart: bool = False,
    flat: bool = False,
) -> list[Row]:
    """Of each prompt of an encoded request its inputs, or the things that its only text names; and where they stand, None
    where they are one point.

    Args:
        known: what is known by name; None, where a text stays as it is encoded.
        parts: whether a text may be several things at all.
        apart, flat: see `named.several`.

    Raises:
        InputError: inputs that are to stand beside each other, with weights that are not above 0.
    """

    def parted(row: Sequence[Prompt]) -> Row:
        if len(row) > 1:
            boxes = beside(row) if ready.mix == "beside" else None
            return mixed_on_grounds(row, boxes, aligner) if known and flat else (row, boxes, ())
        found = several(row[0], known, aligner, prior, apart, flat) if known and parts else None
        return found or (row, None, ())

    rows = [parted(row) for row in ready.prompts]
    if known is None or prior is None:
        return rows
    moved = {id(p): as_named(p, known, aligner, prior) for row, _, _ in rows for p in row}  # each of several once
    return [([moved[id(p)] for p in row], boxes, grounds) for row, boxes, grounds in rows]
