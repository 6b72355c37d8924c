"""Contrast of one modality's vector with whole tuples of the others, by how little they span: GRAM and TRIANGLE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import ranks
from .batch import Embeddings, Masks, full_precision, nothing, prepare
from .kernel import Block, pair_lse
from .volume import cross_dets, of_unit, safe_root, tuple_terms


def smoothed(lse: Tensor, positive: Tensor, mean_logit: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with label smoothing, mean over rows, from the rows' log-sum-exp and the two means of logits."""
    return lse - (1 - smoothing) * positive - smoothing * mean_logit


class TupleContrast(nn.Module):
    """InfoNCE between the anchor's vectors and the other modalities' tuples with logit -size / tau, both ways.

    Only samples that have every modality take part.

    Args:
        anchor: the modality that stands alone (the text, in the papers).
        tau: temperature of the size.
        smoothing: label smoothing in [0, 1).
    """

    modalities: int | None = None

    def __init__(self, anchor: str = "text", tau: float = 0.07, smoothing: float = 0.1):
        super().__init__()
        if not tau > 0 or not 0 <= smoothing < 1:
            raise ValueError(f"tau must be positive and smoothing in [0, 1), got {tau} and {smoothing}")
        self.anchor, self.tau, self.smoothing = anchor, tau, smoothing

    def tuple_side(self, rest: list[Tensor]) -> list[Tensor]:
        """The column tensors (b, ...) that `block` reads."""
        raise NotImplementedError

    def block(self, rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
        """Sizes (r, c), not negative."""
        raise NotImplementedError

    def own(self, anchor: Tensor, rest: list[Tensor]) -> Tensor:
        """The size (b,) of each sample's own tuple."""
        raise NotImplementedError

    @full_precision
    def parts(self, embeddings: Embeddings, masks: Masks | None = None) -> dict[str, Tensor]:
        """`anchor->tuple` and `tuple->anchor`; zero, without gradient, where no sample is complete."""
        batch = prepare(embeddings, masks, self.anchor, self.modalities)
        anchor, rest = batch.z[self.anchor], [batch.z[n] for n in batch.names if n != self.anchor]
        keep = batch.both(*batch.names)
        if keep is not None and int(ranks.total(keep.sum())) == 0:
            return dict.fromkeys(("anchor->tuple", "tuple->anchor"), nothing(batch.z.values()))

        def logits(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
            return self.block(rows, columns, parameters) / -self.tau

        block: Block = logits
        forward, backward, mean = pair_lse(block, [anchor], self.tuple_side(rest), keep=keep)
        positive = ranks.mean(self.own(anchor, rest), keep) / -self.tau
        return {
            "anchor->tuple": smoothed(forward, positive, mean, self.smoothing),
            "tuple->anchor": smoothed(backward, positive, mean, self.smoothing),
        }

    def forward(self, embeddings: Embeddings, masks: Masks | None = None) -> Tensor:
        """Scalar, the mean of both directions; arguments and errors as in `batch.prepare`."""
        return torch.stack(list(self.parts(embeddings, masks).values())).mean()


class GRAM(TupleContrast):
    """Gramian contrast (Cicchetti et al., arXiv 2412.11959): the size is the volume sqrt(det G(anchor_i, rest_j))."""

    def tuple_side(self, rest: list[Tensor]) -> list[Tensor]:
        return [*tuple_terms(rest), *rest]

    def block(self, rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
        return safe_root(cross_dets(rows[0], columns[2:], columns[0], columns[1]))

    def own(self, anchor: Tensor, rest: list[Tensor]) -> Tensor:
        return of_unit([anchor, *rest])


class TRIANGLE(TupleContrast):
    """The size is the area of the triangle with corners anchor_i and the two others' points of sample j (M = 3).

    After "A TRIANGLE Enables Multimodal Alignment Beyond Cosine Similarity" (arXiv 2509.24734): half the root of
    |u|^2 |v|^2 - (u.v)^2, u and v the edges from the anchor, all of it from three dot products.
    """

    modalities = 3

    def tuple_side(self, rest: list[Tensor]) -> list[Tensor]:
        return [(rest[0] * rest[1]).sum(1), *rest]

    def block(self, rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
        return triangle_area(rows[0] @ columns[1].T, rows[0] @ columns[2].T, columns[0])

    def own(self, anchor: Tensor, rest: list[Tensor]) -> Tensor:
        return triangle_area((anchor * rest[0]).sum(1), (anchor * rest[1]).sum(1), (rest[0] * rest[1]).sum(1))


def triangle_area(ab: Tensor, ac: Tensor, bc: Tensor) -> Tensor:
    """Area in [0, 3 sqrt(3) / 4] of the triangle of three unit vectors from their dot products."""
    return safe_root((2 - 2 * ab) * (2 - 2 * ac) - (1 - ab - ac + bc).square()) / 2
