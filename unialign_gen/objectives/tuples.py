"""Contrast of one modality's vector with whole tuples of the others, by how little they span: GRAM and TRIANGLE."""

from __future__ import annotations

from torch import Tensor

from .batch import Batch
from .kernel import Terms, pair_lse
from .objective import Objective, Temperature
from .options import Share, Tau, typed
from .volume import cross_dets, safe_root, tuple_terms


def smoothed(found: Terms, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy with label smoothing, mean over rows and mean over columns."""
    target = (1 - smoothing) * found.own + smoothing * found.mean
    return found.rows - target, found.columns - target


class TupleContrast(Objective):
    """InfoNCE between the anchor's vectors and the other modalities' tuples with logit -size / tau, both ways.

    Only samples that have every modality take part. Parts are `anchor->tuple` and `tuple->anchor`; the loss is their mean.
    The authors of GRAM and TRIANGLE learn tau (`learnable`) and add a matching loss of a fusion encoder over image and text
    tokens, which is no function of embeddings and is not here.

    Args:
        anchor: the modality that stands alone (the text, in the papers).
        tau: temperature of the size.
        smoothing: label smoothing in [0, 1), 0.1 in the authors' code.
        learnable: learn 1 / tau, at most 100; the authors' code learns tau itself, without bounds.
    """

    averaged = True

    @typed
    def __init__(self, anchor: str = "text", tau: Tau = 0.07, smoothing: Share = 0.1, learnable: bool = False):
        super().__init__()
        self.anchor: str = anchor
        self.smoothing = smoothing
        self.temperature = Temperature(tau, learnable)

    def tuple_side(self, rest: list[Tensor]) -> list[Tensor]:
        """The column tensors (b, ...) that `block` reads."""
        raise NotImplementedError

    def block(self, rows: list[Tensor], columns: list[Tensor]) -> Tensor:
        """Sizes (r, c), not negative."""
        raise NotImplementedError

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        anchor, rest = batch.z[self.anchor], [batch.z[n] for n in batch.names if n != self.anchor]

        def logits(rows: list[Tensor], columns: list[Tensor], parameters: list[Tensor]) -> Tensor:
            return self.block(rows, columns) * -parameters[0]  # (r, c)

        keep, scale = batch.both(*batch.names), self.temperature(anchor)
        found = pair_lse(logits, [anchor], self.tuple_side(rest), [scale], keep)
        return dict(zip(("anchor->tuple", "tuple->anchor"), smoothed(found, self.smoothing), strict=True))


class GRAM(TupleContrast):
    """Gramian contrast (Cicchetti et al., arXiv 2412.11959): the size is the volume sqrt(det G(anchor_i, rest_j)).

    >>> import torch
    >>> z = torch.eye(3)                                                             # own tuples have volume 0, others 0 or 1
    >>> GRAM(tau=1.0, smoothing=0)({"text": z, "image": z, "audio": z.roll(1, 0)})
    tensor(0.8620)
    """

    def tuple_side(self, rest: list[Tensor]) -> list[Tensor]:
        return [*tuple_terms(rest), *rest]

    def block(self, rows: list[Tensor], columns: list[Tensor]) -> Tensor:
        return safe_root(cross_dets(rows[0], columns[2:], columns[0], columns[1]))


class TRIANGLE(TupleContrast):
    """The size is the area of the triangle with corners anchor_i and the two others' points of sample j (M = 3).

    After "A TRIANGLE Enables Multimodal Alignment Beyond Cosine Similarity" (arXiv 2509.24734): half the root of
    |u|^2 |v|^2 - (u.v)^2, u and v the edges from the anchor, all of it from three dot products.

    Args:
        root: false leaves the root out, as the authors' code does: the size is then (|u|^2 |v|^2 - (u.v)^2) / 2.

    >>> import torch
    >>> z = torch.eye(3)
    >>> TRIANGLE(tau=1.0, root=False).parts({"text": z, "image": z, "audio": z}).keys()
    dict_keys(['anchor->tuple', 'tuple->anchor'])
    """

    modalities = 3

    @typed
    def __init__(
        self, anchor: str = "text", tau: Tau = 0.07, smoothing: Share = 0.1, learnable: bool = False, root: bool = True
    ):
        super().__init__(anchor, tau, smoothing, learnable)
        self.root = root

    def tuple_side(self, rest: list[Tensor]) -> list[Tensor]:
        return [(rest[0] * rest[1]).sum(1), *rest]

    def block(self, rows: list[Tensor], columns: list[Tensor]) -> Tensor:
        """Areas in [0, 3 sqrt(3) / 4] of triangles of unit vectors, or twice their squares, from dot products."""
        bc, ab, ac = columns[0], rows[0] @ columns[1].T, rows[0] @ columns[2].T
        squared = (2 - 2 * ab) * (2 - 2 * ac) - (1 - ab - ac + bc).square()
        return (safe_root(squared) if self.root else squared) / 2
